"""The clients of a company's day, on any event loop: the machine's, or that of a simulation.

Machines have a session each, open before the day begins. A pod opens its own when it asks, and closes
it after its build. Every ask goes through the client library, as a build's does: ``acquire``, hold,
``release``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from bench.company_day import Ask, Day
from bench.report import progress
from seatkeeper.client import (
    AsyncGrant,
    AsyncSeatClient,
    BackoffConfig,
    BreakerConfig,
    ClientConfig,
    HoldingState,
    SeatError,
)

TTL_SECONDS = 300.0
"""In the day's time. A session has to outlive an election of etcd's leader, which takes a second or two
however fast the day is, so this is longer than the nodes' default of 15 s."""
TTL_SECONDS_MIN = 2.0
"""No node accepts a shorter one."""
WAIT_SECONDS = 4 * 3600.0
"""How long a build waits for its seat at most, in the day's time."""
FAILURES_KEPT = 20
OPEN_AT_ONCE = 16
END_SECONDS_MAX = 120.0
"""How long builds may take to end after the day's end."""
MakeClient = Callable[[str, ClientConfig], AsyncSeatClient]
"""Returns a client of this holder."""


def compressed_config(speedup: float) -> ClientConfig:
    """Return the settings of clients for whom time passes so many times faster.

    What paces a client is compressed: its ttl, as far as nodes accept it, its backoff, and how long it
    leaves a node that failed alone. What says whether a node is alive is not: the time that an answer
    takes is the machine's, and not the day's.
    """
    usual = ClientConfig()
    return ClientConfig(
        ttl=timedelta(seconds=max(TTL_SECONDS_MIN, TTL_SECONDS / speedup)),
        backoff=BackoffConfig(
            initial=usual.backoff.initial / speedup, longest=usual.backoff.longest / speedup
        ),
        breaker=BreakerConfig(open_for=usual.breaker.open_for / speedup),
        keeper="process",
    )


@dataclass
class Beliefs:
    """The seats that clients believe they hold: from the answer until the release is sent."""

    seats: Mapping[str, int]
    held: Counter[str] = field(default_factory=Counter)
    held_now: int = 0
    held_max: int = 0
    over: int = 0
    """How often a seat was believed in beyond those that a pool has."""

    def take(self, pool: str) -> None:
        """Note that one more is held."""
        self.held[pool] += 1
        self.held_now += 1
        self.held_max = max(self.held_max, self.held_now)
        self.over += self.held[pool] > self.seats[pool]

    def give_back(self, pool: str) -> None:
        """Note that one is not relied on any more."""
        self.held[pool] -= 1
        self.held_now -= 1


@dataclass
class DayRecord:
    """What the clients of a day saw."""

    beliefs: Beliefs
    waits: list[float] = field(default_factory=list)
    """Seconds from calling ``acquire`` until it returned."""
    done: int = 0
    """Transactions that were whole."""
    failures: Counter[str] = field(default_factory=Counter)
    """What failed for a caller, and how often."""
    jeopardies: int = 0
    took: float = 0.0
    """Seconds from the beginning until the last build had ended, and the day was over."""

    def fail(self, what: str, error: BaseException | str) -> None:
        """Note that a call of the library failed for its caller, or a seat was lost."""
        kind = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
        name = f"{what}: {kind}{error}"[:200]
        known = name in self.failures or len(self.failures) < FAILURES_KEPT
        self.failures[name if known else "others"] += 1
        progress(f"  failed: {name}")


class DayClients:
    """Plays one day."""

    def __init__(self, day: Day, speedup: float, make_client: MakeClient) -> None:
        """``day`` is compressed already, by ``speedup``."""
        self.record = DayRecord(Beliefs(day.seats))
        self._day = day
        self._projects = day.projects
        self._config = compressed_config(speedup)
        self._wait = WAIT_SECONDS / speedup
        self._make_client = make_client
        self._machines: dict[str, AsyncSeatClient] = {}
        self._builds: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open the machines' sessions."""
        gate = asyncio.Semaphore(OPEN_AT_ONCE)

        async def open_one(name: str) -> None:
            async with gate:
                await self._machines[name].session()

        for name in self._day.machines:
            self._machines[name] = self._make_client(name, self._config)
        await asyncio.gather(*map(open_one, self._machines))

    async def play(self) -> None:
        """Let the day happen. Raises ``TimeoutError`` where builds do not end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for ask in self._day.asks:
            if (pause := began + ask.at - loop.time()) > 0:
                await asyncio.sleep(pause)
            build = asyncio.create_task(self._build(ask))
            self._builds.add(build)
            build.add_done_callback(self._ended)
        await asyncio.sleep(max(0.0, began + self._day.seconds - loop.time()))
        async with asyncio.timeout(END_SECONDS_MAX):
            while self._builds:
                await asyncio.wait(tuple(self._builds))
        self.record.took = loop.time() - began

    async def close(self) -> None:
        """End every session."""
        for build in self._builds:
            build.cancel()
        await asyncio.gather(*self._builds, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self._machines.values()))

    def _ended(self, build: asyncio.Task[None]) -> None:
        self._builds.discard(build)
        if not build.cancelled() and (error := build.exception()) is not None:
            self.record.fail("build", error)

    async def _build(self, ask: Ask) -> None:
        client = self._machines.get(ask.session)
        if client is not None:
            await self._transact(client, ask)
            return
        async with self._make_client(ask.session, self._config) as own:
            await self._transact(own, ask)

    async def _transact(self, client: AsyncSeatClient, ask: Ask) -> None:
        """Ask, wait, hold, give back."""
        record, clock = self.record, asyncio.get_running_loop()
        belief = _Belief(record, ask.pool)
        asked_at = clock.time()
        try:
            grant = await client.acquire(
                ask.pool,
                project=self._projects[ask.pool],
                wait=self._wait,
                on_state=belief.on_state,
            )
        except SeatError as error:
            record.fail("acquire", error)
            return
        record.waits.append(clock.time() - asked_at)
        belief.begin()
        await asyncio.sleep(ask.hold)
        belief.end()
        if await self._give_back(grant) and not belief.is_lost:
            record.done += 1

    async def _give_back(self, grant: AsyncGrant) -> bool:
        clock, limit = asyncio.get_running_loop(), self._config.call_timeout.total_seconds()
        began = clock.time()
        await grant.release()
        if clock.time() - began >= limit:
            self.record.fail("release", "no node has confirmed it")
            return False
        return True


class _Belief:
    """Of one build, that it holds a seat."""

    def __init__(self, record: DayRecord, pool: str) -> None:
        self._record = record
        self._pool = pool
        self._is_held = False
        self.is_lost = False

    def begin(self) -> None:
        self._record.beliefs.take(self._pool)
        self._is_held = True
        if self.is_lost:
            self.end()

    def end(self) -> None:
        if self._is_held:
            self._is_held = False
            self._record.beliefs.give_back(self._pool)

    def on_state(self, state: HoldingState) -> None:
        if state is HoldingState.LOST and not self.is_lost:
            self.is_lost = True
            self._record.fail("grant", "lost")
            self.end()
        elif state is HoldingState.JEOPARDY:
            self._record.jeopardies += 1
