"""Grants that share seats: the members of a group count as its largest one. Pure.

Nothing else sums seats. How many are in use is a function of the grants that there are, and of nothing
else: a member may vanish with its lease, and no other record changes. So no seat is handed from one
grant to another. Each has its own number, and the group takes the largest of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from seatkeeper.core.count_once import HOLDER, HOST, LABEL
from seatkeeper.server.domain.attribution import Attribution

if TYPE_CHECKING:
    from seatkeeper.server.domain.state import Grant, Ticket

Group = tuple[tuple[str, str], ...]
"""What the members have in common: attributes by name, the project first."""
NO_GROUP: Group = ()


def group_of(named: Iterable[str], asked: Attribution) -> Group:
    """Return the group of a request in a pool that counts those once which have these in common.

    Always of one project, which is charged. None where one of them is not known, and for what is
    granted with seats of other pools, or instead of them.
    """
    if asked.gang:
        return NO_GROUP
    found = [("project", asked.project)]
    for name in named:
        if not (value := _value(name, asked)):
            return NO_GROUP
        found.append((name, value))
    return tuple(found) if len(found) > 1 else NO_GROUP


def said_of(group: Group) -> str:
    """Return it for people: ``project cv, holder alice, host ws1``."""
    return ", ".join(f"{name} {value}" for name, value in group)


def _value(name: str, asked: Attribution) -> str:
    if name == HOLDER:
        return asked.holder
    if name == HOST:
        return asked.host.lower()
    key = name.removeprefix(LABEL)
    return next((value for label, value in asked.labels if label == key), "")


class SeatSum:
    """Seats in use, by name. Of the members of a group, under each name, the largest counts."""

    __slots__ = ("_before", "_sizes", "held")

    def __init__(self, before: SeatSum | None = None) -> None:
        self.held: dict[str, int] = {}
        """By name, where there are any. In a branch: how many more than before it, or fewer."""
        self._sizes: dict[tuple[str, Group], Counter[int]] = {}
        """How many members have so many seats."""
        self._before = before

    def branch(self) -> SeatSum:
        """Return one that counts on, and leaves this one as it is. Costs nothing to make."""
        return SeatSum(self)

    def of(self, name: str = "") -> int:
        """Return how many seats are in use under a name."""
        held = self.held.get(name, 0)
        return held if self._before is None else held + self._before.of(name)

    def takes(self, seats: int, group: Group, name: str = "") -> int:
        """Return how many more seats are in use with one more of these."""
        return max(0, seats - self._largest((name, group))) if group else seats

    def add(self, seats: int, group: Group, name: str = "") -> None:
        """Count a grant."""
        if group:
            sizes = self._sizes_of((name, group))
            more = max(0, seats - max(sizes, default=0))
            sizes[seats] += 1
            seats = more
        self._count(name, seats)

    def remove(self, seats: int, group: Group, name: str = "") -> None:
        """Count a grant no longer."""
        if group:
            key = name, group
            sizes = self._sizes_of(key)
            sizes[seats] -= 1
            if not sizes[seats]:
                del sizes[seats]
            if not sizes and self._before is None:
                del self._sizes[key]
            seats = max(0, seats - max(sizes, default=0))
        self._count(name, -seats)

    def _count(self, name: str, more: int) -> None:
        if after := self.held.get(name, 0) + more:
            self.held[name] = after
        else:
            self.held.pop(name, None)

    def _largest(self, key: tuple[str, Group]) -> int:
        if (sizes := self._sizes.get(key)) is not None:
            return max(sizes, default=0)
        return self._before._largest(key) if self._before is not None else 0

    def _sizes_of(self, key: tuple[str, Group]) -> Counter[int]:
        if (sizes := self._sizes.get(key)) is None:
            sizes = self._sizes[key] = self._copied(key)
        return sizes

    def _copied(self, key: tuple[str, Group]) -> Counter[int]:
        """Return a copy of what was before."""
        before = self._before
        if before is None:
            return Counter()
        if (sizes := before._sizes.get(key)) is not None:
            return sizes.copy()
        return before._copied(key)


class Groups:
    """The members of each group, by how many seats they have."""

    __slots__ = ("_by_seats",)

    def __init__(self) -> None:
        self._by_seats: dict[Group, dict[int, dict[str, Grant]]] = {}

    def __bool__(self) -> bool:
        """Return whether any grant is in one."""
        return bool(self._by_seats)

    def add(self, grant: Grant) -> None:
        """Add a member."""
        by_seats = self._by_seats.setdefault(grant.group, {})
        by_seats.setdefault(grant.seats, {})[grant.grant_id] = grant

    def remove(self, grant: Grant) -> None:
        """Remove a member."""
        by_seats = self._by_seats[grant.group]
        del by_seats[grant.seats][grant.grant_id]
        if not by_seats[grant.seats]:
            del by_seats[grant.seats]
        if not by_seats:
            del self._by_seats[grant.group]

    def members(self, group: Group) -> list[Grant]:
        """Return the members of a group, the largest first."""
        found = self._by_seats.get(group, {})
        return [each for seats in sorted(found, reverse=True) for each in found[seats].values()]

    def __iter__(self) -> Iterator[Group]:
        """Yield the groups that have members."""
        return iter(self._by_seats)

    def largest(self, group: Group) -> Grant | None:
        """Return the member whose seats are those of the group; None: it has none."""
        found = self._by_seats.get(group)
        return next(iter(found[max(found)].values())) if found else None


class WaitingGroups:
    """The tickets of each group that a pool's rule makes: an index that only such pools pay for."""

    def __init__(self, named: tuple[str, ...], tickets: Iterable[Ticket]) -> None:
        self.named = named
        self.by_group: dict[Group, set[str]] = {}
        """Ids of tickets."""
        for ticket in tickets:
            self.add(ticket)

    def add(self, ticket: Ticket) -> None:
        """Look at a ticket."""
        if group := group_of(self.named, ticket.attribution):
            self.by_group.setdefault(group, set()).add(ticket.grant_id)

    def remove(self, ticket: Ticket) -> None:
        """Forget a ticket."""
        if group := group_of(self.named, ticket.attribution):
            self.by_group[group].discard(ticket.grant_id)
            if not self.by_group[group]:
                del self.by_group[group]
