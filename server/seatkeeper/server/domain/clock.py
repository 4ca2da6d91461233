"""Time, as an argument."""

from __future__ import annotations

from typing import Protocol

from seatkeeper.server.domain.state import Instant


class Clock(Protocol):
    """Two clocks of one machine."""

    def now(self) -> Instant:
        """Return Unix time in milliseconds. May jump; never decides who holds a seat."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some start. Never goes back; measures how long things take."""
        ...
