"""Released seats of one client that are kept for its next request, and given back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from seatkeeper.client.client_session import ClientSession
from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.grants import SeatRequest
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.linger import LingerCache
from seatkeeper.client.session.requests import Held
from seatkeeper.core.clock import Clock, Timer


class Lingering:
    """Keeps released seats for as long as ``ClientConfig.linger`` says; with zero, none."""

    def __init__(self, session: ClientSession, config: ClientConfig, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._is_on = bool(config.linger)
        self._kept: LingerCache[Held] = LingerCache(
            config.linger.total_seconds(),
            config.linger_max,
            is_safe=lambda held: held.state(clock.now()) is HoldingState.SAFE,
        )
        self._timer: Timer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def take(self, request: SeatRequest) -> Held | None:
        """Return seats that linger here and are what ``request`` wants; None: ask the service."""
        if not self._is_on:
            return None
        driver = self._session.driver()
        kept = self._kept.take(request.wanted, self._clock.now())
        if kept is not None:
            kept.on_state = driver.bind(request.on_state)
            return kept
        # Seats that linger here for another project must not keep this request waiting.
        for held in self._kept.of_pool(request.pool):
            driver.release(held)
        return None

    def give_back(self, held: Held) -> Awaitable[None] | None:
        """Give seats back, or let them linger when none of our own requests waits for them."""
        driver = self._session.living()
        if driver is None:
            return None
        # Others may wait for the work of a grant that has a key; of a gang no other request asks.
        if not self._is_on or driver.is_waiting(held.pool) or not held.wanted.is_one_of_many:
            return driver.release(held)
        held.on_state = held.active_at = None
        for surplus in self._kept.put(held.wanted, held, self._clock.now()):
            driver.release(surplus)
        self._watch()
        return None

    def stop(self) -> None:
        """Give back nothing more by itself: the session ends, and with it all that lingers."""
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        until = self._kept.next_expiry()
        if until is None:
            return
        if self._timer is not None and self._loop is not None:
            if not self._loop.is_closed():
                return
            # It would have gone off in a loop that is no more.
            self._timer = None
        if self._timer is None:
            self._timer = self._clock.call_at(until, self._expire)
            self._loop = asyncio.get_running_loop()

    def _expire(self) -> None:
        self._timer = None
        driver = self._session.living()
        if driver is not None:
            for held in self._kept.expired(self._clock.now()):
                driver.release(held)
            self._watch()
