"""Which tickets that want more seats than are free may be overtaken by smaller ones, and how far.

The seats that were granted before a ticket so are written with the guard, so the bound holds whichever
nodes decide. Time only takes from what is allowed: no plan has to be made anew because some has passed.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import timedelta

from seatkeeper.server.domain import Instant, Overtaking, Ticket
from seatkeeper.server.policy.snapshot import PoolSnapshot

AHEAD_MAX = 8
"""Most tickets that one may overtake at once: so many are looked past for each that is served."""
OVERTAKEN_MAX = 64
"""Most tickets of a pool for which is written how far they were overtaken."""


class Backfill:
    """What one plan serves behind tickets that do not fit: which are looked past, and how far."""

    def __init__(self, rule: Overtaking | None, pool: PoolSnapshot, now: Instant) -> None:
        self._rule = rule
        self._pool = pool
        self._now = now
        self._room: dict[str, int] = {}
        """Seats that may still be granted before each ticket that is looked past."""
        self.passed: dict[str, tuple[str, ...]] = {}
        """By ticket that is served: the ids of those which it overtakes."""

    def look_past(self, ticket: Ticket) -> bool:
        """Return whether smaller tickets may go before this one, which is next and does not fit."""
        rule, before = self._rule, self._pool.state.guard.overtaken
        if rule is None or len(self._room) >= AHEAD_MAX:
            return False
        if self._now - ticket.queued_at >= rule.within / timedelta(milliseconds=1):
            return False
        if self._has_mates(ticket):
            return False
        written = {each for each in before if each in self._pool.state.tickets}
        room = rule.seats - before.get(ticket.grant_id, 0)
        if room < 1 or len({*written, *self._room, ticket.grant_id}) > OVERTAKEN_MAX:
            return False
        self._room[ticket.grant_id] = room
        return True

    def _has_mates(self, ticket: Ticket) -> bool:
        """Return whether others wait for the same work, and so for its place.

        They are not in the order until it is gone, so what goes before them would not be counted.
        """
        key, state = ticket.work_key, self._pool.state
        if not key:
            return False
        new = sum(each.work_key == key for each in self._pool.new)
        return len(state.work_waiting.get(key, ())) + new > 1

    def may_go(self, ticket: Ticket, unharmed: Container[str] = ()) -> bool:
        """Return whether all that are looked past may be overtaken by so many seats more.

        But for those that are ``unharmed``, as it takes seats that they would not get.
        """
        return not self._room or all(
            ticket.seats <= room for each, room in self._room.items() if each not in unharmed
        )

    def go(self, ticket: Ticket, unharmed: Container[str] = ()) -> None:
        """Serve a ticket before all that are looked past, and are not unharmed."""
        if not self._room:
            return
        passed = tuple(each for each in self._room if each not in unharmed)
        if passed:
            self.passed[ticket.grant_id] = passed
            self._room |= {each: self._room[each] - ticket.seats for each in passed}
