"""Clients that never stop asking for seats: the load under which things are killed.

*Turn-takers* take a seat, hold it a moment, give it back and ask again, over session streams; there are
more of them than seats, so somebody always waits. *Keepers* hold one seat all the time and are
expected never to lose it. *Callers* do as the turn-takers with unary calls, and renew their sessions
themselves. All of them know every node. Every second turn-taker follows the ring, and so goes to the
node that owns the pool; the others stay where they are, as clients behind a load balancer do.

``Waiters`` remembers every seat that a turn-taker got, and every call that failed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import perf_counter, time

from bench.recovery import Fault, Recovery, Served, recovery
from bench.report import progress
from seatkeeper.client import (
    AsyncGrant,
    AsyncSeatClient,
    ClientConfig,
    HoldingState,
    NoSeatFree,
    SeatError,
)
from seatkeeper.client.session.driver import SessionDriver
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

POLL_SECONDS = 0.01
REST_SECONDS = 0.1
"""Pause of a client after a call that failed."""
CALLER_TTL = timedelta(seconds=30)
"""Callers renew between two acquires only, and one may wait and be asked again."""
CALLER_WAIT_SECONDS = 5
CALL_SECONDS = 10.0
"""The client's ``call_timeout``. A release that takes so long was not confirmed by any node."""
START_SECONDS_MAX = 30.0
END_SECONDS_MAX = 60.0
"""How long calls under way may take to return when the load ends."""


@dataclass(frozen=True, kw_only=True)
class WaitersConfig:
    """How many clients there are, and what they do."""

    pool: str
    clients: int
    """Turn-takers."""
    keepers: int
    callers: int
    hold: timedelta
    """How long turn-takers and callers hold a seat."""
    ttl: timedelta
    """Of the sessions of turn-takers and keepers."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that raised or was not answered, or a grant that was lost."""

    at: float
    what: str
    message: str


@dataclass
class Waiters:
    """The clients, and what they have seen so far."""

    config: WaitersConfig
    addresses: Sequence[str]
    clients: list[AsyncSeatClient]
    """The turn-takers', in order of their numbers."""
    served: list[Served] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    jeopardies: int = 0
    """How often a grant was in doubt for a while."""
    keepers_holding: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    """Calls made, by kind."""
    denied: int = 0
    """Unary acquires that got no seat in the time they had asked for."""
    never_returned: int = 0
    """Clients whose last call had not returned ``END_SECONDS_MAX`` after the end."""
    closed_sessions: set[str] = field(default_factory=set)
    """Ids of the sessions that their clients have ended, or are about to."""
    slowest_unary: float = 0.0
    """Seconds that the slowest unary call took; the measurement resets it."""
    moving: set[int] = field(default_factory=set)
    """Turn-takers that are about to begin anew."""
    _asked_at: dict[int, float] = field(default_factory=dict)
    _ending: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self) -> Counter[str]:
        """Return how many turn-takers have their stream at each node's address."""
        return Counter(node_of(client) for client in self.clients)

    def spread(self) -> None:
        """Have those that do not follow the ring leave the fullest nodes, each for one that it draws.

        They stay where they fled to otherwise, so that nodes that were restarted have none.
        """
        staying = [n for n in range(len(self.clients)) if not follows_ring(n)]
        share = -(-len(staying) // len(self.addresses))
        here: Counter[str] = Counter()
        for number in staying:
            here[node := node_of(self.clients[number])] += 1
            if here[node] > share:
                self.moving.add(number)

    def fault(self, address: str = "") -> Fault:
        """Note who waits now, before something is done to the node at ``address``."""
        waiting = frozenset(self._asked_at)
        there = {number for number in waiting if node_of(self.clients[number]) == address}
        return Fault(perf_counter(), waiting, frozenset(there if address else ()))

    async def recovery(self, fault: Fault, within: float) -> Recovery:
        """Wait until all who waited at the fault have been served, at most ``within`` seconds."""
        began = len(self.served)
        while began and self.served[began - 1].taken_at > fault.at:
            began -= 1
        while True:
            found = recovery(fault, self.served[began:], now := perf_counter())
            if not found.unserved or now >= fault.at + within:
                return found
            await asyncio.sleep(POLL_SECONDS)

    async def take_turns(self, number: int) -> None:
        """Be turn-taker ``number`` until the end."""
        config = self.config
        while not self._ending.is_set():
            if number in self.moving:
                await self._begin_anew(number)
            client = self.clients[number]
            asked_at = self._asked_at[number] = perf_counter()
            self.calls["acquire"] += 1
            try:
                grant = await client.acquire(config.pool, on_state=self._on_state)
            except SeatError as error:
                await self._fail("acquire", error)
                continue
            finally:
                del self._asked_at[number]
            taken_at = perf_counter()
            # By our clock: both sides of the subtraction are the machine's wall clock.
            decided_at = taken_at - (time() - grant.granted_at.timestamp())
            self.served.append(Served(number, asked_at, taken_at, decided_at))
            await asyncio.sleep(config.hold.total_seconds())
            await self._release(grant)

    async def keep(self, client: AsyncSeatClient) -> None:
        """Be a keeper until the end."""
        grant = await client.acquire(self.config.pool, on_state=self._on_state)
        self.keepers_holding += 1
        await self._ending.wait()
        await self._release(grant)

    async def call(self, client: AsyncSeatClient) -> None:
        """Be a caller until the end."""
        me = pb.SessionCredentials(session_id=new_id(), secret=secrets.token_bytes(32))
        await client.seats.open_session(me, holder="caller", ttl=CALLER_TTL)
        while not self._ending.is_set():
            if await self._did("unary renew", client.seats.renew(me)):
                await self._call_once(client, me)
        self.closed_sessions.add(me.session_id)
        await self._did("unary close", client.seats.close_session(me))

    def end(self) -> None:
        """Have every client finish its turn and stop."""
        self._ending.set()

    async def _call_once(self, client: AsyncSeatClient, me: pb.SessionCredentials) -> None:
        ask = seat_pb2.Acquire(pool=self.config.pool, grant_id=new_id(), seats=1)
        ask.wait.FromSeconds(CALLER_WAIT_SECONDS)
        try:
            if await self._did("unary acquire", client.seats.acquire(me, ask)):
                await asyncio.sleep(self.config.hold.total_seconds())
        except NoSeatFree:
            return  # it has waited for as long as it had asked for
        # Also after an error: it may have been granted all the same.
        grant = pb.GrantRef(pool=ask.pool, grant_id=ask.grant_id)
        await self._did("unary release", client.seats.release(me, grant))

    async def _begin_anew(self, number: int) -> None:
        left = self.clients[number]
        self.closed_sessions.add((await left.session()).session_id)
        await left.close()
        self.clients[number] = new_client(
            self.addresses, self.config, follow_ring=follows_ring(number)
        )
        self.moving.discard(number)

    async def _release(self, grant: AsyncGrant) -> None:
        self.calls["release"] += 1
        began = perf_counter()
        await grant.release()
        if perf_counter() - began >= CALL_SECONDS:
            await self._fail("release", "no node has confirmed it")

    async def _did(self, what: str, call: Awaitable[object]) -> bool:
        """Make a call; return whether it succeeded. Passes ``NoSeatFree`` on."""
        self.calls[what] += 1
        began = perf_counter()
        try:
            await call
        except NoSeatFree:
            self.denied += 1
            raise
        except SeatError as error:
            await self._fail(what, error)
            return False
        finally:
            self.slowest_unary = max(self.slowest_unary, perf_counter() - began)
        return True

    async def _fail(self, what: str, why: SeatError | str) -> None:
        self._note(what, f"{type(why).__name__}: {why}" if isinstance(why, SeatError) else why)
        await asyncio.sleep(REST_SECONDS)

    def _on_state(self, state: HoldingState) -> None:
        if state is HoldingState.LOST:
            self._note("grant", "lost")
        elif state is HoldingState.JEOPARDY:
            self.jeopardies += 1

    def _note(self, what: str, message: str) -> None:
        self.failures.append(Failure(perf_counter(), what, message))
        progress(f"  failed: {what}: {message}")


@asynccontextmanager
async def running_waiters(
    addresses: Sequence[str], config: WaitersConfig
) -> AsyncIterator[Waiters]:
    """Run the clients. At the end each finishes its turn; how that went is in the result."""
    takers = [
        new_client(addresses, config, follow_ring=follows_ring(number))
        for number in range(config.clients)
    ]
    holding = [new_client(addresses, config) for _ in range(config.keepers)]
    calling = [new_client(addresses, config) for _ in range(config.callers)]
    waiters = Waiters(config, addresses, takers)
    keepers = [asyncio.create_task(waiters.keep(client)) for client in holding]
    tasks: list[asyncio.Task[None]] = [*keepers]
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            while waiters.keepers_holding < config.keepers:
                for task in keepers:
                    if task.done():
                        task.result()
                await asyncio.sleep(POLL_SECONDS)
        tasks += [asyncio.create_task(waiters.call(client)) for client in calling]
        tasks += [asyncio.create_task(waiters.take_turns(n)) for n in range(config.clients)]
        yield waiters
        waiters.end()
        done, left = await asyncio.wait(tasks, timeout=END_SECONDS_MAX)
        waiters.never_returned = len(left)
        for task in done:
            task.result()
        for client in waiters.clients + holding:
            waiters.closed_sessions.add((await client.session()).session_id)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        everyone = waiters.clients + holding + calling
        await asyncio.gather(*(client.close() for client in everyone))


def follows_ring(number: int) -> bool:
    """Return whether the turn-taker of this number goes to the node that owns the pool."""
    return number % 2 == 0


def new_client(
    addresses: Sequence[str], config: WaitersConfig, *, follow_ring: bool = True
) -> AsyncSeatClient:
    """Return a client of the load, not connected yet."""
    settings = ClientConfig(
        ttl=config.ttl,
        call_timeout=timedelta(seconds=CALL_SECONDS),
        follow_ring=follow_ring,
        keeper="process",
    )
    return AsyncSeatClient(addresses, config=settings)


def node_of(client: AsyncSeatClient) -> str:
    """Return the address of the node that a client has its stream to; empty: none."""
    session = client._session.living()
    return (session.node or "") if isinstance(session, SessionDriver) else ""
