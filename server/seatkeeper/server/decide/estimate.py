"""How long a ticket is likely to wait, and what that is said from.

An estimate stands on two things: how long the latest holds lasted, and for how long the present ones
have lasted already. A seat that is held for longer than every hold that was seen to end says nothing
about when it ends, so it is left out; where that is true of all seats there is no estimate. So none
is ever below what the present holders have shown to be too short.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from seatkeeper.server.domain.basis import Basis
from seatkeeper.server.domain.state import Grant, Instant, PoolState, Ticket
from seatkeeper.server.policy.plan import Plan

RECENT_MAX = 20
"""Holds that are remembered."""
HOLDERS_MAX = 256
"""Grants that are looked at; of more, so many at equal distances."""
ZERO = timedelta(0)


@dataclass(frozen=True, slots=True)
class HoldStats:
    """How long seats of a pool have been held lately."""

    recent: tuple[timedelta, ...] = ()
    """The latest holds that were seen to end, the newest last."""

    def with_hold(self, held_for: timedelta) -> HoldStats:
        """Return the statistics after one more hold. A negative one (clock skew) counts as zero."""
        return HoldStats((*self.recent[1 - RECENT_MAX :], max(held_for, ZERO)))

    @property
    def usual(self) -> timedelta | None:
        """The median; None: no hold has been seen to end."""
        return _middle(sorted(self.recent)) if self.recent else None


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the seats of a pool are likely to be free. Made once, asked for many tickets."""

    basis: Basis | None = None
    """None: nothing is known."""
    ends: tuple[tuple[timedelta, int], ...] = ()
    """When holders of whom that can be said are likely to end, and their seats; the next first."""
    surplus: int = 0
    """Seats that must be given back before any is free for others: the capacity was lowered."""
    share: float = 1.0
    """The part of the grants that was looked at."""
    _times: list[timedelta] = field(default_factory=list, compare=False)
    """When the first, second, third seat is free; as far as anybody has asked."""
    _next: list[tuple[timedelta, int]] = field(default_factory=list, compare=False)
    """A heap: when seats are free next, and how many."""

    def wait(self, position: int) -> timedelta | None:
        """Estimate the time until the ticket at ``position`` is served; None: unknown.

        Each place is taken for one seat, and each seat for one that the next holds as long as usual.
        """
        if self.basis is None or not self.ends:
            return None
        place = max(1, round((position + self.surplus) * self.share))
        return self._free_at(place, self.basis.hold_median)

    def _free_at(self, place: int, hold: timedelta) -> timedelta:
        if not hold:  # holders release at once
            return self.ends[0][0]
        if not self._next:
            self._next.extend(self.ends)  # sorted, and so a heap
        # Once every present holder has ended, all comes again after one hold.
        seats, last = sum(number for _, number in self.ends), self.ends[-1][0]
        while len(self._times) < place and not self._repeats(seats, last):
            free_at, number = self._next[0]
            self._times.extend([free_at] * number)
            heapq.heapreplace(self._next, (free_at + hold, number))
        rounds = max(0, -(-(place - len(self._times)) // seats))
        return self._times[place - rounds * seats - 1] + rounds * hold

    def _repeats(self, seats: int, last: timedelta) -> bool:
        return len(self._times) >= seats and self._times[-seats] >= last


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ticket stands in its queue."""

    position: int
    """From 1, in the order of the pool's plan."""
    wait: timedelta | None
    """The estimated time until it is served; None: unknown, or not a matter of seats alone."""
    waits_for_work: bool = False
    """Whether another does, or is to do, the work that it names."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What those who wait for a pool are shown: the order of its plan, and when seats become free."""

    plan: Plan
    outlook: Outlook

    def place(self, ticket: Ticket) -> Place | None:
        """Return where a ticket stands; None: the plan does not know it."""
        position = self.plan.order.position(ticket)
        return None if position is None else self._place(ticket, position)

    def line(self) -> Iterator[tuple[Ticket, Place]]:
        """Yield all tickets with their places, the next one first."""
        for position, ticket in enumerate(self.plan.order, start=1):
            yield ticket, self._place(ticket, position)

    def _place(self, ticket: Ticket, position: int) -> Place:
        # A seat that becomes free does not help one that is held back, so no hold says when.
        if self.plan.hold_back(ticket):
            return Place(position, None, bool(ticket.work_key))
        return Place(position, self.outlook.wait(position))


def outlook(pool: PoolState, holds: HoldStats, now: Instant) -> Outlook:
    """Return when seats of ``pool`` are likely to be free, by its grants and the latest holds."""
    usual = holds.usual
    capacity = pool.spec.open_seats if pool.spec else 0
    if usual is None or capacity < 1:
        return Outlook()
    looked_at = _some(pool.grants.values())
    expected = sorted(_expected(looked_at, sorted(holds.recent), now))
    basis = Basis(
        holds=len(holds.recent),
        hold_median=usual,
        holders=len(looked_at),
        overdue=len(looked_at) - len(expected),
    )
    return Outlook(
        basis=basis,
        ends=tuple(expected),
        surplus=max(0, pool.held - capacity),
        share=len(looked_at) / len(pool.grants) if pool.grants else 1.0,
    )


def _some(grants: Iterable[Grant]) -> list[Grant]:
    found = list(grants)
    step = -(-len(found) // HOLDERS_MAX) or 1
    return list(islice(found, 0, None, step))


def _expected(
    grants: Sequence[Grant], recent: Sequence[timedelta], now: Instant
) -> Iterable[tuple[timedelta, int]]:
    """Yield how long each grant is likely to last still, and its seats; nothing where that is unknown.

    That is by the holds that lasted at least as long as this one has already.
    """
    for grant in grants:
        age = timedelta(milliseconds=max(0, now - grant.granted_at))
        longer = recent[bisect_left(recent, age) :]
        if longer:
            yield _middle(longer) - age, grant.seats


def _middle(ordered: Sequence[timedelta]) -> timedelta:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
