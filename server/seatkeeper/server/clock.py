"""Time, as an argument."""

from __future__ import annotations

import time
from typing import Protocol

from seatkeeper.server.domain import Instant


class Clock(Protocol):
    """Two clocks of one machine."""

    def now(self) -> Instant:
        """Return Unix time in milliseconds. May jump; never decides who holds a seat."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some start. Never goes back; measures how long things take."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Instant:
        """Return Unix time in milliseconds."""
        return Instant(time.time_ns() // 1_000_000)

    def monotonic(self) -> float:
        """Return seconds since some start."""
        return time.monotonic()
