"""What open windows keep back: which tickets may have which of the free seats.

While a window is open, so many seats are kept for those whom it is for: what they do not hold of them
is granted to no other. A seat that is held by one whom two reservations are for counts for both.

Whom a window is for passes those who wait for other seats, as far as seats are kept: a ticket goes
before one that waits only where it leaves that one as many seats as it had. Beyond that it waits for
its turn, as in every pool; so whom nothing is kept for keeps the order, and large tickets are not
starved by small ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from seatkeeper.server.domain import Grant, Instant, Ticket
from seatkeeper.server.domain.window_index import WindowIndex
from seatkeeper.server.policy.overtaking import Backfill
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot


class Kept:
    """What is free, and what of it is kept for whom, in one plan. Only shrinks."""

    def __init__(self, pool: PoolSnapshot, index: WindowIndex, now: Instant) -> None:
        self._pool = pool
        self._now = now
        self._index = index
        self.free = pool.free
        held = index.sum.branch()
        for grant_id in pool.ended:
            if (grant := pool.state.holding(grant_id)) is not None:
                for name in index.kept_for(grant):
                    held.remove(grant.seats, grant.group, name)
        self._left = {
            name: max(0, each.seats - held.of(name))
            for name, each in index.reservations.items()
        }
        """By reservation: the seats that are kept, and not in use."""
        self._waiting = Counter(index.waiting)
        """By reservation: tickets that have not been looked at, or more."""
        for ticket in pool.new:
            self._waiting.update(index.kept_for(ticket))
        self._held_up: dict[tuple[str, ...], None] = {}
        """What is kept for those who wait before the others, each once."""
        self._looked_past: dict[str, tuple[str, ...]] = {}

    def copy(self) -> Kept:
        """Return one that shrinks apart from this one."""
        other = object.__new__(Kept)
        other._pool, other._index, other.free = self._pool, self._index, self.free
        other._now = self._now
        other._left, other._waiting = dict(self._left), Counter(self._waiting)
        other._held_up, other._looked_past = dict(self._held_up), dict(self._looked_past)
        return other

    def for_others(self, ticket: Ticket) -> int:
        """Return how many seats are kept from a ticket."""
        own = self._index.kept_for(ticket)
        return sum(left for name, left in self._left.items() if name not in own)

    @property
    def in_all(self) -> int:
        """How many seats are kept, and not in use."""
        return sum(self._left.values())

    def lacking(self, names: Container[str]) -> int:
        """Return how many seats these reservations lack that are not free; 0 or less: none."""
        own = sum(left for name, left in self._left.items() if name in names)
        return min(own, self.in_all - max(0, self.free))

    def fits(self, ticket: Ticket) -> bool:
        """Return whether a ticket fits into what is free and not kept for others."""
        return ticket.seats <= self.free - self.for_others(ticket)

    def admits(self, ticket: Ticket, backfill: Backfill) -> bool:
        """Return whether a ticket fits, and takes no seat that one before it waits for."""
        if not self.fits(ticket) or any(self._harms(ticket, each) for each in self._held_up):
            return False
        return backfill.may_go(ticket, self._unharmed(ticket))

    def serve(self, ticket: Ticket, backfill: Backfill) -> None:
        """Serve a ticket that is admitted."""
        backfill.go(ticket, self._unharmed(ticket))
        self.use(ticket)
        self._waiting.subtract(self._index.kept_for(ticket))

    def use(self, ticket: Ticket) -> None:
        """Count a ticket's seats as held."""
        self.free -= ticket.seats
        for name in self._index.kept_for(ticket):
            self._left[name] = max(0, self._left[name] - ticket.seats)

    def hold_up(self, ticket: Ticket, backfill: Backfill) -> None:
        """Leave a ticket that is not admitted: those behind it do not take what it waits for.

        But as far as overtaking is allowed. One that may not wait holds up none.
        """
        own = self._index.kept_for(ticket)
        self._waiting.subtract(own)
        if not self._pool.may_wait(ticket):
            return
        if not self.fits(ticket) and backfill.look_past(ticket):
            self._looked_past[ticket.grant_id] = own
        else:
            self._held_up[own] = None

    def is_behind(self, ticket: Ticket) -> bool:
        """Return whether nothing is kept for a ticket, nor for one before it that waits.

        There may be thousands of these, so they are left out before anything else is asked.
        """
        return () in self._held_up and not self._index.kept_for(ticket)

    @property
    def is_done(self) -> bool:
        """Whether no ticket that was not looked at can be admitted; false when in doubt."""
        if self.free <= 0:
            return True
        if not self._held_up:
            return False
        return not any(left and self._waiting[name] > 0 for name, left in self._left.items())

    def _harms(self, ticket: Ticket, before: tuple[str, ...]) -> bool:
        """Return whether it takes seats that one waits for of whom these reservations are."""
        spared = sum(
            min(ticket.seats, self._left[name])
            for name in self._index.kept_for(ticket)
            if name not in before
        )
        return spared < ticket.seats

    def _unharmed(self, ticket: Ticket) -> set[str]:
        return {
            grant_id
            for grant_id, before in self._looked_past.items()
            if not self._harms(ticket, before)
        }

    def keeps_from(self, ticket: Ticket) -> Reason | None:
        """Return which reservation keeps free seats from a ticket that would do; None: none does."""
        if ticket.seats > self.free or self.fits(ticket):
            return None
        own = self._index.kept_for(ticket)
        name = next(name for name, left in self._left.items() if left and name not in own)
        reservation = self._index.reservations[name]
        left = self._left[name]
        kept = f"{left} of the {self.free} free seats {'is' if left == 1 else 'are'} kept"
        until = self._pool.windows[name].left(self._now)
        text = f"{kept} for {reservation.who} for another {until}"
        return Reason(Rule.RESERVATION, text, name)

    def is_for(self, grant: Grant) -> bool:
        """Return whether a grant is of one for whom a window is open."""
        return bool(self._index.kept_for(grant))


def kept_in(pool: PoolSnapshot, now: Instant) -> Kept | None:
    """Return what is kept in a pool; None: no window is open."""
    index = pool.state.by_windows
    return None if index is None else Kept(pool, index, now)


def kept_from(kept: Kept | None, served: Container[str], ticket: Ticket) -> Reason | None:
    """Return which reservation keeps seats from a ticket when those with these ids are served."""
    if kept is None or ticket.grant_id in served:
        return None
    return kept.keeps_from(ticket)
