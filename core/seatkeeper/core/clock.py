"""Time, as the driver sees it. Injected, so that tests move it by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable


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


class Follower(Protocol):
    """Something that is renewed by a clock."""

    def renews_at(self) -> float:
        """Return when it is renewed next; infinity: not at all. In the past: it is being renewed."""


@runtime_checkable
class FollowedClock(Clock, Protocol):
    """A clock that is moved, and that must not be moved past a renewal."""

    def follow(self, follower: Follower) -> None:
        """Let moving the clock wait for the renewals of ``follower``, for as long as it lives."""


class SystemClock:
    """The machine's own clock.

    Counts the time that the machine spends suspended where the system reports it: a laptop that
    slept past its lease must wake up knowing that its seats are gone.
    """

    def now(self) -> float:
        """Return seconds since boot."""
        return _seconds_since_boot()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` at ``when``, or later when the machine was suspended meanwhile."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.now()), callback)


_default: Clock = SystemClock()


def default_clock() -> Clock:
    """Return the clock of a client that was given none."""
    return _default


def set_default_clock(clock: Clock) -> Clock:
    """Let clients made from now on count by ``clock``; return what they counted by before.

    For tests only. Clients that were made before keep theirs.
    """
    global _default
    before, _default = _default, clock
    return before


def wall_time() -> datetime:
    """Return the date and time, moved as far as the default clock was moved by a test."""
    return datetime.now(UTC) + timedelta(seconds=getattr(_default, "moved", 0.0))


_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def _seconds_since_boot() -> float:
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
