"""The machine's clocks: what a node uses as its `seatkeeper.server.domain.clock.Clock`."""

from __future__ import annotations

import time

from seatkeeper.server.domain import Instant


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Instant:
        """Return Unix time in milliseconds."""
        return Instant(time.time_ns() // 1_000_000)

    def monotonic(self) -> float:
        """Return seconds since some start."""
        return time.monotonic()
