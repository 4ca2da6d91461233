"""The node behind `InMemoryService`: the server's own parts, put together, by a clock that moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import grpc.aio

from seatkeeper.core.serving.listening import SERVER_OPTIONS, listen
from seatkeeper.core.version import seatkeeper_version
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Instant, PoolSpec
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.pool.admin import PoolExists, Pools, PoolView
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.context import LoopConfig
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.report.node_report import NodeReporter, NodeVersion
from seatkeeper.server.report.service_report import ServiceReporter
from seatkeeper.server.service import add_services
from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.sessions.sessions import Sessions
from seatkeeper.server.store import Delete, Put
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.store.memory import MemoryStore
from seatkeeper.server.telemetry.tally import Tally
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.testing.movable_clock import MovableClock

EXPIRY_INTERVAL = timedelta(milliseconds=50)
TURNS = 20
"""Turns of the event loop after which what became due in the store is known in the node."""


class NodeLoop(asyncio.SelectorEventLoop):
    """An event loop that counts by a clock that tests move on."""

    def __init__(self, clock: MovableClock) -> None:
        self._clock = clock
        super().__init__()

    def time(self) -> float:
        """Return the seconds that timers are set by."""
        return self._clock.monotonic()


class NodeClock:
    """The same clock, as the node's parts read it."""

    def __init__(self, clock: MovableClock) -> None:
        self._clock = clock

    def now(self) -> Instant:
        """Return Unix time in milliseconds, moved on."""
        return Instant(int((time.time() + self._clock.moved) * 1000))

    def monotonic(self) -> float:
        """Return seconds since some start, moved on."""
        return self._clock.monotonic()


@dataclass
class MemoryNode:
    """A node over a store in memory. Belongs to one event loop."""

    address: str
    _store: MemoryStore
    _keys: Keys
    _core: Core
    _server: grpc.aio.Server | None

    @classmethod
    async def start(
        cls, pools: Mapping[str, int], session_ttl: timedelta, moving: MovableClock
    ) -> MemoryNode:
        """Start a node with these pools."""
        store, keys = MemoryStore(now=moving.monotonic), Keys()
        clock, observer = NodeClock(moving), Observer()
        store.start_expiry(EXPIRY_INTERVAL)
        seats = PoolRouter(
            store,
            keys,
            PoolCatalogue(store, keys, observer),
            clock,
            config=LoopConfig(),
            observer=observer,
        )
        core = Core(
            node_id="in-memory",
            sessions=Sessions(store, keys, clock, default_ttl=session_ttl),
            seats=seats,
            signer=TokenSigner.generate(),
            clock=clock,
        )
        node = cls("127.0.0.1:0", store, keys, core, None)
        record = state_pb2.KeyRecord(jwk_json=core.signer.jwk_json)
        # Not leased, as a node's is: that lease would end when the clock is moved by hours.
        await store.commit([Put(keys.signing_key(core.signer.kid), record.SerializeToString())])
        await seats.start()
        for name, capacity in pools.items():
            await node.put_pool(name, capacity)
        await node.come_back()
        return node

    async def stop(self) -> None:
        """Stop, and forget everything."""
        await self.go_away()
        await self._core.seats.stop()
        await self._store.close()

    async def put_pool(self, name: str, seats: int) -> None:
        """Create a pool, or change its capacity."""
        pools, spec = Pools(self._store, self._keys), PoolSpec(name, seats)
        try:
            await pools.create(spec)
        except PoolExists:
            await pools.update(spec)

    async def count(self, pool: str) -> tuple[int, int]:
        """Return how many seats are held, and how many tickets wait."""
        view = await Pools(self._store, self._keys).read(pool)
        return view.state.held, len(view.state.tickets)

    async def lose_sessions(self) -> None:
        """End every session."""
        listing = await self._store.list(self._keys.session(""))
        for entry in listing.entries:
            await self._store.revoke_lease(entry.lease_id)

    async def lose_grant(self, pool: str, grant_id: str) -> None:
        """End one grant, and nothing else of its session."""
        await self._store.commit([Delete(self._keys.grant(pool, grant_id))])

    async def do_what_is_due(self) -> None:
        """End the leases whose time is up, and let the pools take notice."""
        self._store.expire_due()
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def has_waits_that_are_over(self) -> bool:
        """Return whether somebody waits for longer than it wanted to."""
        now = self._core.clock.now()
        pools = Pools(self._store, self._keys)
        return any(
            ticket.wait is not None
            and ticket.queued_at + ticket.wait.total_seconds() * 1000 <= now
            for view in [view async for _, view in pools.all() if isinstance(view, PoolView)]
            for ticket in view.state.tickets.values()
        )

    async def go_away(self) -> None:
        """Stop answering."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def _reporter(self) -> ServiceReporter:
        number = seatkeeper_version()
        node = NodeReporter(
            version=NodeVersion(self._core.node_id, number, "memory", "", ()),
            clock=self._core.clock,
            tally=Tally(),
            address=self.address,
            certificate_files={},
        )
        return ServiceReporter(node=node, store=self._store, keys=self._keys)

    async def come_back(self) -> None:
        """Answer, on the address that was used before."""
        if self._server is None:
            self._server = grpc.aio.server(options=SERVER_OPTIONS)
            self.address = listen(self._server, self.address, None)
            add_services(
                *(self._server, self._core, self._store, self._keys, self._reporter()),
                drain=lambda: None,
            )
            await self._server.start()
