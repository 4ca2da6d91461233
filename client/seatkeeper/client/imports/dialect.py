"""A language of licence files: its keywords, and what each becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seatkeeper.client.imports.lexer import Grammar
from seatkeeper.client.imports.parsed import Aside, Became, Parsed
from seatkeeper.client.imports.statement import Statement

Reading = Callable[[Statement], Parsed]
"""What a statement means. Raises ``Unreadable``."""


@dataclass(frozen=True)
class Dialect:
    """How one kind of server is configured."""

    name: str
    title: str
    grammar: Grammar
    readings: Mapping[str, Reading | Aside]
    """By keyword; an ``Aside``: it becomes nothing, whatever it says."""
    daemons: frozenset[str]
    """Keywords of lines that name a vendor's server, and perhaps its options file."""
    is_name_case_sensitive: bool
    is_lowest_limit_in_force: bool
    """Of several limits for one group the lowest counts; else the first."""
    all_groups: str
    """The name that stands for every group; empty: none does."""
    borrowed: str
    """What it calls a seat that is taken to a machine without a network."""
    of_each_version: bool
    """A reservation is made of each version of a feature."""
    unknown: Callable[[Statement], str]
    """What to say of a statement whose keyword is not known, beside that; empty: nothing."""

    def key(self, text: str) -> str:
        """Return what of a name counts: all of it, or all but its case."""
        return text if self.is_name_case_sensitive else text.lower()

    def read(self, statement: Statement) -> Parsed | None:
        """Return what a statement means; None: its keyword is not known. Raises ``Unreadable``."""
        reading = self.readings.get(statement.keyword)
        return reading if isinstance(reading, Aside) or reading is None else reading(statement)


def not_needed(reason: str) -> Aside:
    """Return that nothing is lost without a statement."""
    return Aside(Became.NOT_NEEDED, reason)


def no_counterpart(reason: str, instead: str = "") -> Aside:
    """Return that pools have nothing for a statement, and what to do instead, if there is something."""
    return Aside(Became.NONE, f"{reason}; {instead}" if instead else reason)
