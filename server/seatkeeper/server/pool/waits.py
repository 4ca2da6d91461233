"""When those who wait in one pool's queue give up, by this node's own monotonic clock.

The store says how long a ticket waits, not until when: clocks of nodes differ. A node to which the
request came measures from then. Any other measures from when it saw the ticket, which is later. So
nobody is turned away before its time, whatever the time of day is said to be; and the node that
serves the waiter turns it away in time. A client that asks again, perhaps elsewhere, says how much of
its wait is left.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from seatkeeper.server.clock import Clock
from seatkeeper.server.decide import Acquire, Command, PoolState, Ticket


class Waits:
    """The ends of the waits that have one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: dict[str, float] = {}
        self._by_end: list[tuple[float, str]] = []
        """A heap. What is not as in ``_ends`` is out of date."""

    def asked(self, command: Command, asked_at: float) -> None:
        """Take in when a request came here that waits now; ``review`` is to be told of it next."""
        if isinstance(command, Acquire) and command.wait is not None:
            self._end(command.grant_id, asked_at + command.wait.total_seconds())

    def review(self, grant_ids: Iterable[str], state: PoolState) -> None:
        """Take in that these tickets have come or gone."""
        now = self._clock.monotonic()
        for grant_id in grant_ids:
            ticket = state.tickets.get(grant_id)
            if ticket is None:
                self._ends.pop(grant_id, None)
            elif ticket.wait is not None:
                self._end(grant_id, now + ticket.wait.total_seconds())
        while self._by_end and self._is_out_of_date(*self._by_end[0]):
            heapq.heappop(self._by_end)

    def due(self, state: PoolState) -> list[Ticket]:
        """Return the tickets that have waited long enough, in no particular order."""
        now = self._clock.monotonic()
        if not self._by_end or self._by_end[0][0] > now:
            return []
        due = sorted(grant_id for grant_id, end in self._ends.items() if end <= now)
        return [state.tickets[grant_id] for grant_id in due if grant_id in state.tickets]

    def next_end(self) -> float | None:
        """Return when the next one gives up, by the monotonic clock, or None when none ever does."""
        return self._by_end[0][0] if self._by_end else None

    def _end(self, grant_id: str, end: float) -> None:
        """Let a wait end then, unless it ends before."""
        if end < self._ends.get(grant_id, float("inf")):
            self._ends[grant_id] = end
            heapq.heappush(self._by_end, (end, grant_id))

    def _is_out_of_date(self, end: float, grant_id: str) -> bool:
        return self._ends.get(grant_id) != end
