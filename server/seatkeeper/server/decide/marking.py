"""From which lots the seats come that a decision grants: written with each grant, and kept.

A function of the pool as it was decided on, which the commit compares. That view may hold grants whose
leases have ended already: then a seat is taken further down the order than it need be, and never one
that another grant has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from seatkeeper.server.domain import LotMarks, MarkedSeats, joined, marks_of, room_in, within
from seatkeeper.server.domain.commands import Command, Granted, Outcome
from seatkeeper.server.domain.counted_once import Group
from seatkeeper.server.domain.state import Grant, Instant, PoolState
from seatkeeper.server.domain.wait_counts import NO_WAITS, WaitCounts, counted_waits


def marked_grants(pool: PoolState, grants: list[Grant], gone: Collection[str]) -> list[Grant]:
    """Return what is granted, each grant marked with its lots. ``gone``: what ends meanwhile."""
    if pool.spec is None or not pool.spec.lots or not grants:
        return grants
    lots, held, marked = pool.spec.lots, pool.sum.branch(), pool.marked.copy()
    groups = _Groups(pool, marked)
    for grant_id in gone:
        if (ended := pool.holding(grant_id)) is not None:
            held.remove(ended.seats, ended.group)
            if ended.group:
                groups.remove(ended)
            elif ended.marks is not None:
                marked.add(ended.marks, -1)
    found = []
    for grant in grants:
        over = max(0, pool.spec.overdraft - marked.overdraft)
        more = held.takes(grant.seats, grant.group)
        marks = marks_of(more, room_in(lots, held.of(), marked), over)
        held.add(grant.seats, grant.group)
        if marks is not None:
            marked.add(marks)
        if grant.group:
            marks = groups.add(grant, marks)
        if marks is not None:
            grant = replace(grant, marks=marks)
        found.append(grant)
    return found


class _Groups:
    """The members of groups, as a decision lets them come and go.

    A new one's seats come from where those of the larger ones do, and among them are those of the
    smaller ones. So when a member ends, what its group takes of each lot never gets more.
    """

    def __init__(self, pool: PoolState, marked: MarkedSeats) -> None:
        self._pool = pool
        self._marked = marked
        """What is marked in all, which follows."""
        self._members: dict[Group, list[Grant]] = {}

    def remove(self, grant: Grant) -> None:
        """Remove a member."""
        members = self._of(grant.group)
        before = members[0]
        members.remove(grant)
        if before.marks is not None:
            self._marked.add(before.marks, -1)
        if members and members[0].marks is not None:
            self._marked.add(members[0].marks)

    def add(self, grant: Grant, more: LotMarks | None) -> LotMarks | None:
        """Add a member, and return its marks. ``more``: those of the seats that its group lacked."""
        members, seats = self._of(grant.group), grant.seats
        smaller = next((each for each in members if each.seats <= seats), None)
        inner = (smaller.marks, smaller.seats) if smaller is not None else (None, 0)
        larger = next((each for each in reversed(members) if each.seats >= seats), None)
        if larger is not None:
            marks = within((larger.marks, larger.seats), inner, seats)
        else:
            marks = joined(inner[0], more)
        members.append(replace(grant, marks=marks))
        members.sort(key=lambda each: -each.seats)
        return marks

    def _of(self, group: Group) -> list[Grant]:
        """Return the members, the largest first."""
        if group not in self._members:
            self._members[group] = self._pool.groups.members(group)
        return self._members[group]


def waits_after(
    pool: PoolState, grants: Iterable[Grant], gone: Collection[str], now: Instant
) -> WaitCounts:
    """Return how long requests waited lately, with those that are granted, or end without a grant."""
    rule = pool.spec.lots.rule if pool.spec is not None else None
    waits = pool.guard.waits
    if not rule and waits is NO_WAITS:
        return waits
    ended = [pool.tickets[each] for each in gone if each in pool.tickets]
    waited = [
        *((each.asked_at, each.granted_at) for each in grants),
        *((each.queued_at, now) for each in ended),
    ]
    return counted_waits(waits, rule, waited)


def with_grants(
    outcomes: list[tuple[Command, Outcome]], grants: list[Grant]
) -> list[tuple[Command, Outcome]]:
    """Return the outcomes of a decision with these in the place of the grants that it made."""
    made = {grant.fence: grant for grant in grants}
    return [
        (command, Granted(made.get(outcome.grant.fence, outcome.grant)))
        if isinstance(outcome, Granted)
        else (command, outcome)
        for command, outcome in outcomes
    ]
