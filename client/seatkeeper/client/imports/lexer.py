"""From the bytes of a file to statements, as licence servers read them.

Theory of operation
-------------------
A statement begins with a line whose first word is a keyword, in any case. It goes on:

- after a backslash at the end of a line, also where a blank or a comment follows it, and over empty
  lines and comments;
- while a quote is open;
- without a backslash, where the lines after it are indented, or have more of what it lists: members
  of a group, attributes of a licence.

What was forgotten ends it all the same: a keyword with the right words behind it begins a statement
also after a backslash, within an open quote, and in the middle of a line (two licences run together).
Each of these is remarked. Every line is then blank, a comment, or of a statement; a line that is none
of this is a statement whose keyword is not known. So nothing can be dropped here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from seatkeeper.client.imports.statement import Statement, Word

Shape = Callable[[Sequence[str]], bool]
"""Whether words after a keyword are what it takes."""

_WORD = re.compile(r'(?:[^\s"]+|"[^"]*"?)+')
_CONTINUES = re.compile(r"\\[ \t]*(?:#.*)?$")
_CAPITALS = re.compile(r"[A-Z][A-Z_]{2,}")
_PEEKED = 8
"""Words of a line that are looked at to find out whether it begins a statement."""
_NUL = "a NUL byte is in it: the file is damaged, or is no text"
_LONG = "line {} has more than {} characters, of which the server may read no more"
_CLOSED = "a quote is left open; it ends with line {}"


@dataclass(frozen=True)
class Grammar:
    """What begins a statement."""

    keywords: frozenset[str]
    shapes: dict[str, Shape]
    """For keywords that are believed also in the middle of something: what must follow them."""
    numbered: frozenset[str]
    """Keywords that names have, too: these begin a statement only before a number."""
    listing: frozenset[str]
    """Keywords whose statements go on without a backslash."""
    groups: frozenset[str]
    """Those of them that list names, which may be any words."""
    names: frozenset[str]
    """Keywords that a host may have as its name."""
    line_max: int
    """Characters of a line that the server reads."""
    is_attribute: Callable[[str], bool]
    """Whether a word is an attribute of a licence, or a part of its key."""
    splitting: frozenset[str]
    """Keywords that begin a statement also in the middle of a line."""

    def begins(self, line: str) -> str:
        """Return the keyword that a line begins with; empty: none."""
        first, *rest = line.split(None, _PEEKED)
        keyword = first.upper()
        if keyword not in self.keywords:
            return ""
        if keyword in self.numbered and not (rest and rest[0].isdigit()):
            return ""
        return keyword

    def has_its_shape(self, keyword: str, rest: Sequence[str]) -> bool:
        """Return whether the words behind a keyword are what it takes."""
        shape = self.shapes.get(keyword)
        return shape is not None and shape(rest)


@dataclass
class Lexed:
    """A file, line by line."""

    statements: list[Statement] = field(default_factory=list)
    comments: list[int] = field(default_factory=list)
    blanks: list[int] = field(default_factory=list)


def decoded(data: bytes) -> str:
    """Return the text of a file: UTF-16 and UTF-8 by their marks, else UTF-8, else Latin-1."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")


def lines_of(data: bytes) -> list[str]:
    """Return the lines of a file, without what ends them: LF, CR LF, or CR alone."""
    text = decoded(data).removesuffix("\x1a")  # how DOS ends a file
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if not lines[-1]:
        lines.pop()
    return lines


def lexed(file: str, data: bytes, grammar: Grammar) -> Lexed:
    """Return the statements of a file, and its other lines."""
    lexer = _Lexer(file, grammar)
    for number, line in enumerate(lines_of(data), start=1):
        lexer.add(number, line)
    lexer.finish()
    return lexer.found


@dataclass
class _Draft:
    """A statement that may go on."""

    keyword: str
    pieces: list[tuple[int, str]] = field(default_factory=list)
    quotes: int = 0
    goes_on: bool = False
    """Its last line ended with a backslash."""
    remarks: list[str] = field(default_factory=list)

    @property
    def is_quote_open(self) -> bool:
        return self.quotes % 2 == 1

    def add(self, number: int, line: str) -> None:
        found = _CONTINUES.search(line)
        self.goes_on = found is not None
        piece = line if found is None else line[: found.start()]
        self.quotes += piece.count('"')
        self.pieces.append((number, piece))


class _Lexer:
    def __init__(self, file: str, grammar: Grammar) -> None:
        self.found = Lexed()
        self._file = file
        self._grammar = grammar
        self._draft: _Draft | None = None

    def add(self, number: int, line: str) -> None:
        """Read one more line."""
        body = line.strip()
        draft = self._draft
        if not body:
            self.found.blanks.append(number)
        elif body.startswith("#"):
            self.found.comments.append(number)
        elif (keyword := self._begun(line, body)) or draft is None:
            self.finish()
            self._draft = _Draft(keyword or body.split(None, 1)[0].upper())
            self._draft.add(number, body)
        elif draft.goes_on or draft.is_quote_open or self._lists_more(draft, line, body):
            draft.add(number, body)
        else:
            self.finish()
            self._draft = _Draft(body.split(None, 1)[0].upper())
            self._draft.add(number, body)

    def _begun(self, line: str, body: str) -> str:
        """Return the keyword of the statement that a line begins; empty: it begins none."""
        keyword = self._grammar.begins(body)
        draft = self._draft
        if not keyword or draft is None:
            return keyword
        words = [word.strip('"') for word in body.split(None, _PEEKED)]
        if not self._grammar.has_its_shape(keyword, words[1:]):
            # A name, or a word of a text, may be spelled as a keyword is.
            stands_out = line[0] not in " \t" and words[0].isupper()
            if draft.is_quote_open:
                is_next = stands_out and not draft.goes_on
            elif draft.keyword in self._grammar.groups:
                may_be_name = draft.goes_on or (
                    line[0] in " \t" and keyword in self._grammar.names
                )
                is_next = stands_out or not may_be_name
            else:
                is_next = stands_out or not draft.goes_on
            if not is_next:
                return ""
        if draft.goes_on:
            last = draft.pieces[-1][0]
            draft.remarks.append(
                f"it ends with a backslash, and line {last} is its last all the same"
            )
        return keyword

    def _lists_more(self, draft: _Draft, line: str, body: str) -> bool:
        """Return whether a line has more of what the statement lists, without a backslash."""
        if draft.keyword not in self._grammar.listing:
            return False
        if line[0] in " \t":
            return True
        words = body.split(None, _PEEKED)
        if draft.keyword not in self._grammar.groups:
            return all(map(self._grammar.is_attribute, words[:_PEEKED]))
        is_more = "=" not in words[0] and _CAPITALS.fullmatch(words[0]) is None
        if is_more:
            draft.remarks.append(
                f"the line after {draft.pieces[-1][0]} is read as more of it, though it is not indented"
            )
        return is_more

    def finish(self) -> None:
        """End the statement that is open."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        remarks = list(draft.remarks)
        most = self._grammar.line_max
        long = [number for number, piece in draft.pieces if len(piece) > most]
        remarks.extend(_LONG.format(number, most) for number in long[:1])
        if draft.is_quote_open:
            remarks.append(_CLOSED.format(draft.pieces[-1][0]))
        damage = _NUL if any("\0" in piece for _, piece in draft.pieces) else ""
        words, has_comment = _words(draft.pieces)
        if has_comment:
            remarks.append("what follows # is read as a comment, though the server may not")
        parts = list(self._parts(words))
        lines = {number for number, _ in draft.pieces}
        for at, part in enumerate(parts):
            more = [*remarks] if at == 0 else ["it is run together with the one before"]
            made = Statement(self._file, tuple(part), tuple(more), damage)
            lines -= set(made.lines)
            self.found.statements.append(made)
        # A line of which no word is left (a backslash alone) is a blank one.
        self.found.blanks.extend(sorted(lines))

    def _parts(self, words: list[Word]) -> Iterator[list[Word]]:
        begun = 0
        for at, word in enumerate(words):
            if at == begun or word.keyword not in self._grammar.splitting:
                continue
            rest = [each.text for each in words[at + 1 : at + 1 + _PEEKED]]
            if self._grammar.has_its_shape(word.keyword, rest):
                yield words[begun:at]
                begun = at
        if words[begun:]:
            yield words[begun:]


def _words(pieces: list[tuple[int, str]]) -> tuple[list[Word], bool]:
    """Return the words of lines, and whether a comment behind them was left out."""
    text = "\n".join(piece for _, piece in pieces)
    words: list[Word] = []
    has_comment = False
    at, counted, index = 0, 0, 0
    while (found := _WORD.search(text, at)) is not None:
        index += text.count("\n", counted, found.start())
        counted = found.start()
        raw = found[0]
        at = found.end()
        if raw.startswith("#"):
            has_comment = True
            end = text.find("\n", found.start())
            at = len(text) if end < 0 else end
            continue
        plain = " ".join(raw.replace('"', "").split()) if '"' in raw else raw
        last = index + raw.count("\n")
        lines = tuple(number for number, _ in pieces[index : last + 1])
        words.append(Word(plain, lines, raw.startswith('"')))
    return words, has_comment
