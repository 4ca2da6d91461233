"""A clock that tests move on, for the clients of one process and for the node in their memory.

Theory of operation
-------------------
The machine's clock runs on; ``moved`` is added to it, and only grows. So nothing that waits for a
moment notices anything but that the moment comes sooner. Timers belong to the event loops that set
them, and several loops may: when the clock is moved, each loop calls, in order, what is due in it,
and sets the rest again.

A renewer that uses this clock says when (`Follower`), so that time can be made to pass
from one renewal to the next, as it would by itself, and no lease ends that would not have ended.

What is never true: ``now()`` goes back; a callback is called by another loop's thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable

from seatkeeper.core.clock import Clock, Follower, SystemClock, Timer, set_default_clock

LOOP_SECONDS_MAX = 10.0
"""How long a loop may take to do what is due. One that is blocked is not waited for any longer."""
SETTLE_SECONDS_MAX = 5.0
"""How long a renewal may take to be answered, in real time."""
SETTLE_POLL_SECONDS = 0.001


class MovableClock(SystemClock):
    """The machine's clock, and what it was moved on by."""

    def __init__(self) -> None:
        self.moved = 0.0
        """Seconds that it is ahead of the machine's clock."""
        self._lock = threading.Lock()
        self._timers: set[_Timer] = set()
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()

    def now(self) -> float:
        """Return seconds since boot, and what was added to them."""
        return super().now() + self.moved

    def monotonic(self) -> float:
        """Return the seconds that event loops count, and what was added to them."""
        return time.monotonic() + self.moved

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` at ``when``, or once the clock has been moved that far."""
        timer = _Timer(self, when, callback)
        with self._lock:
            self._timers.add(timer)
        timer.arm()
        return timer

    def follow(self, follower: Follower) -> None:
        """Let `pass_by` wait for the renewals of ``follower``, for as long as it lives."""
        with self._lock:
            self._followers.add(follower)

    def move(self, seconds: float) -> None:
        """Move on, and return when every loop has done what is due in it.

        Not to be called in one of these loops, which could not do it then.
        """
        assert seconds >= 0
        self.moved += seconds
        with self._lock:
            loops = {timer.loop for timer in self._timers}
        done = [self._ring_in(loop) for loop in loops]
        end = time.monotonic() + LOOP_SECONDS_MAX
        for event in done:
            event.wait(max(0.0, end - time.monotonic()))

    def pass_by(self, seconds: float, after_each: Callable[[], None]) -> None:
        """Move on from one renewal to the next, until ``seconds`` have passed."""
        end = self.now() + seconds
        # A renewal that is not answered holds time up once, and then no more: it comes to be lost.
        settled = True
        while (now := self.now()) < end:
            settled = settled and self._settle()
            ahead = [at for at in self._renewals() if now < at < end]
            self.move(max(0.0, min(ahead, default=end) - self.now()))
            after_each()
        if settled:
            self._settle()

    def _settle(self) -> bool:
        """Wait until no renewal is under way, in real time; return whether that came to be."""
        end = time.monotonic() + SETTLE_SECONDS_MAX
        while any(at <= self.now() for at in self._renewals()):
            if time.monotonic() >= end:
                return False
            time.sleep(SETTLE_POLL_SECONDS)
        return True

    def _renewals(self) -> list[float]:
        with self._lock:
            followers = list(self._followers)
        return [follower.renews_at() for follower in followers]

    def discard(self, timer: _Timer) -> None:
        """Forget a timer."""
        with self._lock:
            self._timers.discard(timer)

    def _ring_in(self, loop: asyncio.AbstractEventLoop) -> threading.Event:
        done = threading.Event()

        def ring() -> None:
            with self._lock:
                timers = sorted(
                    (timer for timer in self._timers if timer.loop is loop),
                    key=lambda timer: timer.when,
                )
            for timer in timers:
                timer.arm()
            # What is due was put at the end of this turn; what that sets off comes in the next.
            loop.call_later(0, loop.call_soon, loop.call_soon, done.set)

        try:
            loop.call_soon_threadsafe(ring)
        except RuntimeError:  # a loop that was closed, with its timers
            with self._lock:
                self._timers = {timer for timer in self._timers if timer.loop is not loop}
            done.set()
        return done


class _Timer:
    """A callback, and when it is due by the clock."""

    def __init__(self, clock: MovableClock, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.loop = asyncio.get_running_loop()
        self._clock = clock
        self._callback: Callable[[], None] | None = callback
        self._handle: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Wait for as long as the clock says now."""
        if self._callback is None:
            return
        if self._handle is not None:
            self._handle.cancel()
        left = max(0.0, self.when - self._clock.now())
        self._handle = self.loop.call_later(left, self._ring)

    def cancel(self) -> None:
        """Never call it. Safe to call when it was called."""
        self._callback = None
        if self._handle is not None:
            self._handle.cancel()
        self._clock.discard(self)

    def _ring(self) -> None:
        callback, self._callback = self._callback, None
        self._clock.discard(self)
        if callback is not None:
            callback()


_sharing = threading.Lock()
_shared: MovableClock | None = None
_sharers = 0
_before: Clock | None = None


def share() -> MovableClock:
    """Return the one clock of all who share it now; new clients count by it until `unshare`."""
    global _shared, _sharers, _before
    with _sharing:
        if _shared is None:
            _shared = MovableClock()
            _before = set_default_clock(_shared)
        _sharers += 1
        return _shared


def unshare() -> None:
    """Undo one `share`: after the last, new clients count by the machine's clock again."""
    global _shared, _sharers, _before
    with _sharing:
        _sharers -= 1
        if _sharers == 0 and _before is not None:
            set_default_clock(_before)
            _shared = _before = None
