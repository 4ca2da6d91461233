"""How long a ticket is likely to wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

SMOOTHING = 0.2
"""Weight of the newest hold: the last ten or so decide."""


@dataclass(frozen=True, slots=True)
class HoldStats:
    """How long seats of a pool have been held lately."""

    mean: timedelta | None = None
    """Exponentially weighted mean; None: no hold has been seen to end."""

    def with_hold(self, held_for: timedelta) -> HoldStats:
        """Return the statistics after one more hold. A negative one (clock skew) counts as zero."""
        held_for = max(held_for, timedelta(0))
        if self.mean is None:
            return HoldStats(held_for)
        return HoldStats(self.mean + SMOOTHING * (held_for - self.mean))


def estimate_wait(position: int, capacity: int, holds: HoldStats) -> timedelta | None:
    """Estimate the time until the ticket at ``position`` is served; None: nothing is known.

    Seats end one after another, ``capacity`` of them in each mean hold, so the ticket at position
    p waits p / capacity holds (Little's law, with single seats and a full pool).
    """
    if holds.mean is None or capacity < 1:
        return None
    return holds.mean * position / capacity
