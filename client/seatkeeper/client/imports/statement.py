"""A statement of a licence or options file: its words, and the lines that they stand on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

SHOWN_WORDS = 6
"""Words of a statement that are shown: what it is about, without signatures."""
SHOWN_CHARS = 100


@dataclass(frozen=True)
class Word:
    """What blanks separate; quotes around it, or within it, are taken off."""

    text: str
    lines: tuple[int, ...]
    """Those that it stands on: several, where a quote is open at the end of one."""
    is_quoted: bool = False
    """It began with a quote, so it is no keyword."""

    @property
    def keyword(self) -> str:
        """What it is as a keyword, which may be in any case."""
        return "" if self.is_quoted else self.text.upper()


@dataclass(frozen=True)
class Statement:
    """What one keyword begins."""

    file: str
    words: tuple[Word, ...]
    remarks: tuple[str, ...] = ()
    """What was unusual about how it is written."""
    damage: str = ""
    """Why nothing of it can be believed; empty: nothing is wrong with its characters."""

    @cached_property
    def lines(self) -> tuple[int, ...]:
        """The lines that it stands on, counted from 1."""
        return tuple(sorted({line for word in self.words for line in word.lines}))

    @cached_property
    def rest(self) -> tuple[str, ...]:
        """The texts of the words after the keyword."""
        return tuple(word.text for word in self.words[1:])

    @property
    def keyword(self) -> str:
        """Its first word, in upper case."""
        return self.words[0].keyword

    @property
    def place(self) -> str:
        """The file and the first line, as compilers say it."""
        return f"{self.file}:{self.lines[0]}"

    @property
    def shown(self) -> str:
        """Its first words, for people."""
        texts = [word.text for word in self.words[:SHOWN_WORDS]]
        text = " ".join(f'"{each}"' if " " in each else each for each in texts)
        more = "..." if len(self.words) > SHOWN_WORDS or len(text) > SHOWN_CHARS else ""
        return f"{text[:SHOWN_CHARS]} {more}".rstrip()
