"""Keeps those who wait informed of their places: a few at a time, and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from seatkeeper.server.decide import Forecast
from seatkeeper.server.domain import PoolState
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.pool.subscribers import Subscribers

PAUSE = 0.05
"""Seconds between two groups of notifications, where there are too many for one."""
ESTIMATES_INTERVAL = 2.0
"""Seconds between two looks at estimates while places stay the same."""
FORECAST_AGE_MAX = 0.5
"""Seconds for which a forecast is used, as the pool changes meanwhile."""


class PositionNotifier:
    """Notifies the clients of this node that wait for one pool."""

    def __init__(
        self,
        subscribers: Subscribers,
        state: PoolState,
        forecast: Callable[[], Forecast],
        clock: Clock,
        interval: timedelta,
    ) -> None:
        """``interval``: how often a client is notified, at most."""
        self._subscribers = subscribers
        self._state = state
        self._forecast = forecast
        self._clock = clock
        self._interval = interval.total_seconds()
        self._due = asyncio.Event()

    def places_may_have_changed(self) -> None:
        """Note a change of the pool. Where no client of this node waits, nothing wakes up."""
        if self._subscribers.any_waits:
            self._due.set()

    async def run(self) -> None:
        """Notify, until cancelled. Sleeps while no client of this node waits."""
        while True:
            await self._wait()
            # A request that waits for a moment only needs no position.
            await asyncio.sleep(self._interval)
            is_due = self._due.is_set()
            self._due.clear()
            await self._notify(estimates_only=not is_due)

    async def _wait(self) -> None:
        """Wait for a change, or while clients wait, until estimates are to be looked at."""
        with suppress(TimeoutError):
            while not self._due.is_set():
                seconds = ESTIMATES_INTERVAL - self._interval
                async with asyncio.timeout(seconds if self._subscribers.any_waits else None):
                    await self._due.wait()

    async def _notify(self, *, estimates_only: bool) -> None:
        """Notify a few at a time, so that a long queue delays nothing else.

        Estimates turn out to be wrong also when nothing happens; without a basis there are none.
        """
        if not self._subscribers.any_waits:
            return
        forecast, made_at = self._forecast(), self._clock.monotonic()
        if estimates_only and forecast.outlook.basis is None:
            return
        for _ in range(len(self._subscribers) + 1):
            if self._clock.monotonic() > made_at + FORECAST_AGE_MAX:
                forecast, made_at = self._forecast(), self._clock.monotonic()
            if not self._subscribers.review_positions(self._state, forecast):
                return
            await asyncio.sleep(PAUSE)
