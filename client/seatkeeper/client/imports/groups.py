"""Groups of users and of hosts, as options files define them: each for its own lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.names import name_of
from seatkeeper.client.imports.parsed import Became, Group, Outcome

MEMBERS_SHOWN = 5


@dataclass
class DefinedGroup:
    """A group of one options file: all lines that define it."""

    file: str
    kind: str
    name: str
    lines: list[tuple[Outcome, Group]] = field(default_factory=list)
    is_project: bool = False
    """Seats are given to a project of its name."""
    is_in_rules: bool = False
    """Rules of who may use a pool name it."""

    @cached_property
    def members(self) -> tuple[str, ...]:
        """Who is in it, each once. Only once all lines are there."""
        found = (member for _, group in self.lines for member in group.members)
        return tuple(dict.fromkeys(found))

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Its lines."""
        return tuple(outcome for outcome, _ in self.lines)


class Groups:
    """The groups of all options files."""

    def __init__(self, dialect: Dialect, found: list[tuple[Outcome, Group]]) -> None:
        self._dialect = dialect
        self._found: dict[tuple[str, str, str], DefinedGroup] = {}
        for outcome, group in found:
            file = outcome.statement.file
            at = file, group.kind, dialect.key(group.name)
            there = self._found.setdefault(at, DefinedGroup(file, group.kind, group.name))
            there.lines.append((outcome, group))

    def named(self, file: str, kind: str, name: str) -> DefinedGroup | None:
        """Return a group of a file; None: no line of it defines one of this name."""
        return self._found.get((file, kind, self._dialect.key(name)))

    def of_users(self, file: str) -> list[DefinedGroup]:
        """Return all groups of users of a file."""
        return [
            group
            for (of_file, kind, _), group in self._found.items()
            if of_file == file and kind == "GROUP"
        ]

    def say(self) -> None:
        """Say of the lines of each group what became of them."""
        for group in self._found.values():
            for outcome, line in group.lines:
                if not (group.is_project or group.is_in_rules):
                    outcome.ends_as(Became.NOT_NEEDED, "no line that is translated uses it")
                elif group.is_project and line.members:
                    outcome.partly(_as_project(line))


def _as_project(group: Group) -> str:
    shown = ", ".join(each[:40] for each in group.members[:MEMBERS_SHOWN])
    more = len(group.members) - MEMBERS_SHOWN
    others = f" and {more} more" if more > 0 else ""
    name = name_of(group.name)
    return (
        f"a project does not list its users; have {shown}{others} set SEATKEEPER_PROJECT={name}"
    )


def not_defined(name: str) -> tuple[Became, str]:
    """Return what becomes of a line about a group that its file does not define."""
    reason = f"no GROUP line of this file defines {name[:60]}, so the server ignores it"
    return Became.UNREADABLE, reason
