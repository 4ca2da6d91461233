"""The lists of a pool's rules, as they are put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from seatkeeper.client.imports.groups import DefinedGroup
from seatkeeper.client.imports.holders import Holders
from seatkeeper.client.imports.names import name_of
from seatkeeper.client.imports.parsed import Outcome
from seatkeeper.core.pool_rule_faults import GROUPS_MAX, NAMES_MAX
from seatkeeper.v1 import pool_service_pb2 as pb

_NAME_MAX = 63
_KINDS = ("projects", "holders", "groups", "hosts")


@dataclass(frozen=True, eq=False)
class Entry:
    """Whom a line lets in, or keeps out: a project, holders, a group of them, or hosts."""

    outcome: Outcome
    is_exclusion: bool
    project: str = ""
    """As the file has it."""
    holders: Holders | None = None
    group: DefinedGroup | None = None
    hosts: Holders | None = None
    listed: DefinedGroup | None = None
    """The group that the hosts, or the holders, are those of, where they are listed."""

    @property
    def key(self) -> str:
        """The list that it is of, as the file of pools calls it."""
        return "exclude" if self.is_exclusion else "include"


@dataclass
class NamedGroup:
    """A group of a pool."""

    name: str
    group: DefinedGroup
    holders: tuple[str, ...]


@dataclass
class Draft:
    """Lists that have room for so many names."""

    is_brief: bool = False
    """Holders are meant in their usual form only."""
    groups: dict[int, NamedGroup] = field(default_factory=dict)
    lists: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)
    """By ``include`` or ``exclude`` and ``projects``, ``holders``, ``groups`` or ``hosts``."""
    outcomes: dict[str, dict[int, Outcome]] = field(default_factory=dict)
    """The lines of each list, each once."""
    projects: dict[str, Outcome] = field(default_factory=dict)
    """Projects as the files have them, with the line that names each first."""
    count: int = 0
    characters: int = 0
    """Of all names."""

    @property
    def lets_in_some(self) -> bool:
        """Whether there is a list of who is let in."""
        return "include" in self.lists

    def add(self, entry: Entry) -> bool:
        """Add what a line says; return False, and add nothing, where there is no room for it."""
        lists = self.lists.get(entry.key, {})
        if entry.group is not None:
            return self._add_group(entry, entry.group, lists)
        names: tuple[str, ...] = (name_of(entry.project),)
        if entry.holders is not None:
            names = self._patterns(entry.holders)
        kind = "projects" if entry.holders is None else "holders"
        if entry.hosts is not None:
            names, kind = entry.hosts.whole, "hosts"
        new = [name for name in names if name not in lists.get(kind, ())]
        if self.count + len(new) > NAMES_MAX:
            return False
        self._put(entry, kind, new)
        if entry.project:
            self.projects.setdefault(entry.project, entry.outcome)
        return True

    def _patterns(self, holders: Holders) -> tuple[str, ...]:
        return holders.brief if self.is_brief else holders.whole

    def _add_group(
        self, entry: Entry, group: DefinedGroup, lists: dict[str, dict[str, None]]
    ) -> bool:
        assert entry.holders is not None
        there = self.groups.get(id(group))
        holders = self._patterns(entry.holders)
        if there is None:
            if len(self.groups) >= GROUPS_MAX or self.count + len(holders) + 1 > NAMES_MAX:
                return False
            there = self.groups[id(group)] = NamedGroup(self._free(group.name), group, holders)
            self.count += len(holders)
            self.characters += sum(map(len, holders))
        if there.name not in lists.get("groups", ()) and self.count >= NAMES_MAX:
            return False
        self._put(entry, "groups", [there.name])
        return True

    def _put(self, entry: Entry, kind: str, names: Iterable[str]) -> None:
        wanted = self.lists.setdefault(entry.key, {}).setdefault(kind, {})
        before = len(wanted)
        wanted |= dict.fromkeys(names)
        self.count += len(wanted) - before
        self.characters += sum(map(len, names))
        lines = (entry.outcome, *(entry.listed.outcomes if entry.listed else ()))
        self.outcomes.setdefault(entry.key, {}).update({id(each): each for each in lines})

    def _free(self, text: str) -> str:
        """Return a name for a group that no other one of the pool has."""
        taken = {each.name for each in self.groups.values()}
        base = name_of(text) or "group"
        if base not in taken:
            return base
        many = (f"{base[: _NAME_MAX - 4]}-{number}" for number in range(2, GROUPS_MAX + 2))
        return next(name for name in many if name not in taken)

    def put_into(self, rules: pb.PoolRules) -> None:
        """Write the lists into the message of a pool's rules."""
        for group in self.groups.values():
            rules.groups.add(name=group.name, holders=group.holders)
        for key, lists in self.lists.items():
            who: pb.Who = getattr(rules, key)
            for kind in _KINDS:
                getattr(who, kind).extend(lists.get(kind, ()))
