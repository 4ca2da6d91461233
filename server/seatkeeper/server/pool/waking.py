"""When a pool's loop goes on: at once, after a while, or when many wait, not too often."""

from __future__ import annotations

import asyncio
import random

from seatkeeper.server.domain.clock import Clock

TIMER_MIN, TIMER_MAX = 0.001, 3600.0
CONTENTION_PER_SEAT = (1, 5)
"""There is contention from when five times as many wait as there are seats, until as many do."""
SEATS_PER_RELEASE = 2
"""One release for so many seats is worth a decision, also under contention."""
FEW_SEATS = 4
"""Of so many, each release is."""


class Waker:
    """Wakes one waiter, now or later. Of several times asked for, the earliest counts."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Return once it was set; it is not set any more then."""
        await self._event.wait()
        self._event.clear()

    def set(self) -> None:
        """Wake the waiter now."""
        self._event.set()

    def set_in(self, seconds: float) -> None:
        """Wake the waiter in so many seconds, if it is not to be woken before."""
        loop = asyncio.get_running_loop()
        delay = min(max(seconds, TIMER_MIN), TIMER_MAX)
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._rang)

    def cancel(self) -> None:
        """Forget the time that was asked for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rang(self) -> None:
        self._timer = None
        self._event.set()


class Backoff:
    """How long to rest before the next try: twice as long after each failure, within bounds."""

    def __init__(self, shortest: float, longest: float) -> None:
        """Seconds, both."""
        self._shortest, self._longest = shortest, longest
        self.pause = shortest
        """The next pause, before chance shortens it."""

    def next(self) -> float:
        """Return how long to rest now; the next rest is longer."""
        pause = self.pause * random.uniform(0.5, 1.0)
        self.lengthen()
        return pause

    def lengthen(self) -> None:
        """Rest longer the next time."""
        self.pause = min(2 * self.pause, self._longest)

    def reset(self) -> None:
        """Begin with the shortest again: something has worked."""
        self.pause = self._shortest


class Pace:
    """Under contention, few decisions, and large ones: their cost matters more than their time.

    A decision serves no more requests than there are seats free, so of a small pool none is worth
    waiting for: a pause is over as soon as one in ``SEATS_PER_RELEASE`` seats is given back, or any
    of ``FEW_SEATS``.
    """

    def __init__(self, clock: Clock, pause_seconds: float) -> None:
        """``pause_seconds``: from one decision to the next under contention, at most."""
        self._clock = clock
        self._pause = pause_seconds
        self._decided_at = 0.0
        self._is_contended = False

    def pause(self, *, waiting: int, seats: int) -> tuple[float, int]:
        """Return how many seconds to wait at most, and how many releases end that."""
        ends, begins = CONTENTION_PER_SEAT
        self._is_contended = waiting >= (ends if self._is_contended else begins) * seats > 0
        if not self._is_contended:
            return 0.0, 0
        left = self._pause - (self._clock.monotonic() - self._decided_at)
        return max(0.0, left), -(-seats // SEATS_PER_RELEASE) if seats > FEW_SEATS else 1

    def decided(self) -> None:
        """Note that a decision is made now."""
        self._decided_at = self._clock.monotonic()
