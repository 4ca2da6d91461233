"""How long a ticket is likely to wait, and what that is said from.

An estimate stands on two things: how long the latest holds lasted, and for how long the present ones
have lasted already. A seat that is held for longer than every hold that was seen to end says nothing
about when it ends, so it is left out; where that is true of all seats there is no estimate. So none
is ever below what the present holders have shown to be too short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import accumulate, islice

from seatkeeper.server.decide.futures import Futures
from seatkeeper.server.domain.basis import Basis, EstimatedWait
from seatkeeper.server.domain.state import Grant, Instant, PoolState, Ticket
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.units import units

RECENT_MAX = 100
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

    def with_ended(self, grants: Sequence[Grant], now: Instant) -> HoldStats:
        """Return the statistics after these grants have been seen to end.

        What was taken over from another session counts from when it was first granted.
        """
        stats = self
        for grant in grants[-RECENT_MAX:]:
            stats = stats.with_hold(timedelta(milliseconds=now - grant.held_since))
        return stats

    @property
    def usual(self) -> timedelta | None:
        """The median; None: no hold has been seen to end."""
        return _middle(sorted(self.recent)) if self.recent else None


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the seats of a pool are likely to be free. Made once, asked for many tickets."""

    basis: Basis | None = None
    """None: nothing is known."""
    futures: Futures | None = None
    """None: of no holder it can be said when it ends."""
    surplus: int = 0
    """Seats that must be given back before any is free for others, as the capacity was lowered; below
    zero: seats that are free already, and not enough for the ticket that is next."""
    share: float = 1.0
    """The part of the seats held whose holders were looked at."""

    def wait(self, seats: int) -> EstimatedWait | None:
        """Estimate the time until so many ``seats`` have gone to those who wait; None: unknown.

        Each seat is taken for one that the next holds as long as others did lately.
        """
        if self.futures is None:
            return None
        return self.futures.wait(max(1, round((seats + self.surplus) * self.share)))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ticket stands in its queue."""

    position: int
    """From 1, in the order of the pool's plan."""
    wait: EstimatedWait | None
    """The estimated time until it is served; None: unknown, or not a matter of seats alone."""
    waits_for_work: bool = False
    """Whether another does, or is to do, the work that it names."""


@dataclass(frozen=True)
class Forecast:
    """What those who wait for a pool are shown: the order of its plan, and when seats become free."""

    plan: Plan
    outlook: Outlook
    is_of_singles: bool = True
    """Whether no ticket wants more than one seat."""

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
        seats = position if self.is_of_singles else self._seats_to[ticket.grant_id]
        return Place(position, self.outlook.wait(seats))

    @cached_property
    def _seats_to(self) -> Mapping[str, int]:
        """The seats that are served up to each ticket, its own included."""
        line = list(self.plan.order)
        served = accumulate(ticket.seats for ticket in line)
        return {ticket.grant_id: seats for ticket, seats in zip(line, served, strict=True)}


def forecast(pool: PoolState, plan: Plan, holds: HoldStats, now: Instant) -> Forecast:
    """Return what those who wait are shown, by the latest holds."""
    return Forecast(plan, outlook(pool, holds, now), pool.seats_wanted_max <= 1)


def outlook(pool: PoolState, holds: HoldStats, now: Instant) -> Outlook:
    """Return when seats of ``pool`` are likely to be free, by its grants and the latest holds."""
    usual = holds.usual
    capacity = pool.spec.open_seats if pool.spec else 0
    if usual is None or capacity < 1:
        return Outlook()
    looked_at = _some(units(PoolSnapshot.of(pool)))
    recent = [length.total_seconds() for length in sorted(holds.recent)]
    ages = ((max(0, now - grant.held_since) / 1000, grant.seats) for grant in looked_at)
    present = [(age, seats) for age, seats in ages if age <= recent[-1]]
    basis = Basis(
        holds=len(recent),
        hold_median=usual,
        holders=len(looked_at),
        overdue=len(looked_at) - len(present),
    )
    return Outlook(
        basis=basis,
        futures=Futures(present, recent) if present else None,
        surplus=pool.held - capacity,
        share=sum(grant.seats for grant in looked_at) / pool.held if pool.held else 1.0,
    )


def _some(grants: Iterable[Grant]) -> list[Grant]:
    found = list(grants)
    step = -(-len(found) // HOLDERS_MAX) or 1
    return list(islice(found, 0, None, step))


def _middle(ordered: Sequence[timedelta]) -> timedelta:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
