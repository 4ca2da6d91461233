"""YAML as a tree whose nodes know where they are.

PyYAML parses; nothing of it constructs a value, so a tag cannot make an object of anything. What a
file of pools has no use for, and an attacker or a mistake has, is a fault where it stands: anchors,
aliases and merge keys (ten lines of them can stand for a terabyte), tags, a second document, more depth
than the file has, characters that cannot be seen. The tree has at most as many nodes as the file has
bytes, which are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from yaml.error import Mark

from seatkeeper.core.text import is_shown, named, printable

if TYPE_CHECKING:
    from yaml._yaml import Mark as CMark

FILE_BYTES_MAX = 1 << 20
DEPTH_MAX = 8
"""Levels of mappings and sequences; a file of pools has 5."""
FAULTS_MAX = 100
"""Most faults listed of one file."""
_SHOWN_MAX = 60
_BLANK = frozenset("\n\t\r")


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong at a place of the file. Lines and columns are counted from 1."""

    line: int
    column: int
    reason: str
    path: str = ""
    """Which value, such as ``pools.tensorrt.seats``; empty: none that has a name."""

    def __str__(self) -> str:
        """Return it as compilers say it, without the name of the file."""
        where = f"{self.path}: " if self.path else ""
        return f"{self.line}:{self.column}: {where}{self.reason}"


@dataclass(frozen=True)
class Place:
    """Where a node begins, counted from 1."""

    line: int
    column: int

    def fault(self, reason: str, path: str = "") -> Fault:
        """Return a fault at this place."""
        return Fault(self.line, self.column, reason, path)


@dataclass(frozen=True)
class Scalar:
    """Text; ``is_plain``: it was not quoted, so it may be meant as something else."""

    place: Place
    text: str
    is_plain: bool


@dataclass(frozen=True)
class Sequence:
    """A list."""

    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Mapping:
    """Keys and values, in the order of the file; a key may be there twice."""

    place: Place
    entries: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True)
class Faulty:
    """A node that a fault has been listed for: nothing more is said of it."""

    place: Place


Node = Scalar | Sequence | Mapping | Faulty


class _Stop(Exception):
    """Nothing after this can be understood."""


def shown(text: str) -> str:
    """Return text of the file as a fault quotes it: short, and of characters that can be seen."""
    cut = text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
    return f"'{printable(cut)}'"


def parse(data: bytes) -> tuple[Node | None, list[Fault]]:
    """Return the tree of a file, and what is wrong with it as YAML. None: there is no tree."""
    text, faults = _decoded(data)
    if text is None or faults:
        return None, faults
    parser = _Parser()
    try:
        root = parser.document(text)
    except _Stop:
        root = None
    except yaml.MarkedYAMLError as error:
        root = None
        mark = error.problem_mark or error.context_mark
        place = _place(mark) if mark is not None else Place(1, 1)
        about = f" {error.context}" if error.context else ""
        parser.faults.append(place.fault(f"not YAML: {error.problem}{about}"))
    except yaml.YAMLError as error:
        root = None
        parser.faults.append(Fault(1, 1, f"not YAML: {error}"))
    return root, parser.faults


def _decoded(data: bytes) -> tuple[str | None, list[Fault]]:
    if len(data) > FILE_BYTES_MAX:
        return None, [Fault(1, 1, f"the file has more than {FILE_BYTES_MAX} bytes")]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None, [Fault(1, 1, "the file is UTF-16: save it as UTF-8")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        place = Place(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        wrong = data[error.start]
        return None, [place.fault(f"the byte {wrong:02X} is not UTF-8: save it as UTF-8")]
    faults = []
    for fault in _characters(text):
        faults.append(fault)
        if len(faults) == FAULTS_MAX:
            break
    return text, faults


def _characters(text: str) -> Iterator[Fault]:
    """Yield what no line of a file of pools needs, also in a comment: it deceives who reads it."""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.isascii() and line.isprintable():
            continue
        indent = len(line) - len(line.lstrip(" \t"))
        for column, character in enumerate(line, start=1):
            if character == "\t":
                if column <= indent and line.strip():
                    yield Fault(number, column, "a tab: indent with blanks, as YAML wants it")
                    break
            elif character == "\r":
                yield Fault(number, column, "a carriage return within a line")
            elif not is_shown(character):
                yield Fault(
                    number, column, f"a character that cannot be seen: {named(character)}"
                )


def _place(mark: Mark | CMark | None) -> Place:
    assert mark is not None  # whatever comes from text has its place in it
    return Place(mark.line + 1, mark.column + 1)


class _Parser:
    """From the events of PyYAML to the tree, with a bound on its depth."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def document(self, text: str) -> Node | None:
        """Return the tree of the only document. Raises ``_Stop`` and PyYAML's errors."""
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        events = iter(yaml.parse(text, Loader=loader))
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    place = _place(event.start_mark)
                    self.faults.append(place.fault("a second document: one file has one"))
                    raise _Stop
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, events, 1)
        return root

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        place = _place(event.start_mark)
        if depth > DEPTH_MAX and not isinstance(event, yaml.ScalarEvent):
            self.faults.append(place.fault(f"more than {DEPTH_MAX} levels deep"))
            raise _Stop
        is_faulty = self._has_more_than_a_value(event, place)
        node: Node
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                items.append(self._node(item, events, depth + 1))
            node = Sequence(place, tuple(items))
        elif isinstance(event, yaml.MappingStartEvent):
            entries = []
            while not isinstance(key := next(events), yaml.MappingEndEvent):
                entry = self._node(key, events, depth + 1)
                entries.append((entry, self._node(next(events), events, depth + 1)))
            node = Mapping(place, tuple(entries))
        elif isinstance(event, yaml.ScalarEvent):
            node = Scalar(place, event.value, event.style is None or event.style == "")
        else:
            return Faulty(place)
        return Faulty(place) if is_faulty else node

    def _has_more_than_a_value(self, event: yaml.Event, place: Place) -> bool:
        found = len(self.faults)
        if isinstance(event, yaml.AliasEvent):
            reason = f"the alias *{event.anchor}: write what it stands for"
            self.faults.append(place.fault(reason))
            return True
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            self.faults.append(place.fault(f"the anchor &{anchor}: there are no aliases here"))
        if tag is not None:
            self.faults.append(place.fault(f"the tag {shown(tag)}: leave it out"))
        if len(self.faults) > FAULTS_MAX:
            raise _Stop
        return len(self.faults) > found


_BY_PATTERN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"~|null|Null|NULL|"), "nothing"),
    (
        re.compile(r"(?i:true|false|yes|no|on|off|y|n)"),
        "true or false, for some programs",
    ),
    (re.compile(r"[-+]?[0-9]+"), "a number"),
    (re.compile(r"[-+]?0[xob][0-9a-fA-F_]+"), "a number"),
    (re.compile(r"[-+]?[0-9][0-9_,]*"), "a number"),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"), "a number"),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), "a number"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "a time or a number"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*"), "a date"),
)


def meant_as(text: str) -> str:
    """Return what plain text is to some reader of YAML 1.1 or 1.2; empty: text, for all of them."""
    return next((what for pattern, what in _BY_PATTERN if pattern.fullmatch(text)), "")
