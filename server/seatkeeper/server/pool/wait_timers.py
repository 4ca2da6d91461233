"""When those who wait in one pool's queue give up, by this node's own monotonic clock.

The store says how long a ticket waits, not until when: clocks of nodes differ. A node to which the
request came measures from then. Any other measures from when it saw the ticket, which is later. So
no request is denied before its time, whatever the clocks of the day say; and the node that
serves the waiter turns it away in time. A client that asks again, perhaps elsewhere, says how much of
its wait is left.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from math import inf

from seatkeeper.server.domain import Acquire, Command, PoolState, Ticket
from seatkeeper.server.domain.clock import Clock


class WaitTimers:
    """The ends of the waits that have one."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._ends: dict[str, float] = {}
        self._in_order: list[tuple[float, str]] = []

    def asked(self, command: Command, asked_at: float) -> None:
        """Record when a request came here that waits now; ``review`` is to learn of it next."""
        if isinstance(command, Acquire) and command.wait is not None:
            self._end(command.grant_id, asked_at + command.wait.total_seconds())

    def review(self, grant_ids: Iterable[str], state: PoolState) -> None:
        """Record that these tickets have come or gone."""
        now = self._now()
        for grant_id in grant_ids:
            ticket = state.tickets.get(grant_id)
            if ticket is None:
                self._forget(grant_id)
            elif ticket.wait is not None:
                self._end(grant_id, now + ticket.wait.total_seconds())

    def due(self, state: PoolState) -> list[Ticket]:
        """Return the tickets that have waited long enough: first whose wait ended first."""
        over = bisect_right(self._in_order, self._now(), key=lambda wait: wait[0])
        due = (state.tickets.get(grant_id) for _, grant_id in self._in_order[:over])
        return [ticket for ticket in due if ticket is not None]

    def next_end(self) -> float | None:
        """Return when the next one gives up, by the monotonic clock, or None when none ever does."""
        return self._in_order[0][0] if self._in_order else None

    def _end(self, grant_id: str, end: float) -> None:
        """Let a wait end then, unless it ends before."""
        if end < self._ends.get(grant_id, inf):
            self._forget(grant_id)
            self._ends[grant_id] = end
            insort(self._in_order, (end, grant_id))

    def _forget(self, grant_id: str) -> None:
        if (end := self._ends.pop(grant_id, None)) is not None:
            del self._in_order[bisect_left(self._in_order, (end, grant_id))]
