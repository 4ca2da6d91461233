"""When the notices of grants that are called back are over, by this node's own monotonic clock.

Each node measures from when it saw the reclaim, which is later than when it was written. So no seat is
freed before its time, whatever the clocks of the day say; where the node that decides is another one
than before, it may be freed later, by as long as that one has seen it for less.
"""

from __future__ import annotations

from seatkeeper.server.domain import Reclaim, Reclaims
from seatkeeper.server.domain.clock import Clock

DRIFT = 1 / 1000
"""How much longer the notice is here: so much slower the clock of a holder may run. Its margin pays for
that within a lease, and not within a notice of a day."""


class ReclaimTimers:
    """The ends of the notices of one pool, by the number of the reclaim."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._ends: dict[int, float] = {}

    def review(self, reclaims: Reclaims) -> None:
        """Note which grants are called back now."""
        if not reclaims.running and not self._ends:
            return
        now = self._now()
        self._ends = {
            each.number: self._ends.get(each.number, now + _seconds(each))
            for each in reclaims.running.values()
        }

    def over(self) -> frozenset[int]:
        """Return the numbers of those whose notice is over."""
        if not self._ends:
            return frozenset()
        now = self._now()
        return frozenset(number for number, end in self._ends.items() if end <= now)

    def next_end(self) -> float | None:
        """Return when the next notice is over, by the monotonic clock; None: there is none."""
        return min(self._ends.values(), default=None)


def _seconds(reclaim: Reclaim) -> float:
    return reclaim.within.total_seconds() * (1 + DRIFT)
