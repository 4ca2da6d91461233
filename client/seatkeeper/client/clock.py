"""Time, as the driver sees it. Injected, so that tests move it by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Make it not happen. Safe to call when it already has."""


class Clock(Protocol):
    """Seconds that never go back, and timers that count them."""

    def now(self) -> float:
        """Return the time in seconds since some fixed moment."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once ``now()`` has reached ``when``, in the event loop."""


class SystemClock:
    """The machine's own clock.

    Counts the time that the machine spends suspended where the system can tell it: a laptop that
    slept past its lease must wake up knowing that its seats are gone.
    """

    def now(self) -> float:
        """Return seconds since boot."""
        return _seconds_since_boot()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` at ``when``, or later when the machine was suspended meanwhile."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.now()), callback)


_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def _seconds_since_boot() -> float:
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
