"""The node behind `InMemoryService`: the server's own parts, put together without its extras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version

import grpc.aio

from seatkeeper.server.clock import SystemClock
from seatkeeper.server.core import Core
from seatkeeper.server.decide import PoolSpec
from seatkeeper.server.grpc_server import SERVER_OPTIONS, listen
from seatkeeper.server.keys import Keys
from seatkeeper.server.leased_record import LeasedRecord
from seatkeeper.server.observer import Observer
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.loop import LoopConfig
from seatkeeper.server.pool.seats import Seats
from seatkeeper.server.pools import PoolExists, Pools
from seatkeeper.server.report.node_report import NodeReporter, NodeVersion
from seatkeeper.server.report.service_report import ServiceReporter
from seatkeeper.server.report.tally import Tally
from seatkeeper.server.service import add_services
from seatkeeper.server.sessions import Sessions
from seatkeeper.server.store.memory import MemoryStore
from seatkeeper.server.tokens import TOKEN_LIFE_MAX, TokenSigner
from seatkeeper.v1 import state_pb2

EXPIRY_INTERVAL = timedelta(milliseconds=50)


@dataclass
class MemoryNode:
    """A node over a store in memory. Belongs to one event loop."""

    address: str
    _store: MemoryStore
    _keys: Keys
    _core: Core
    _server: grpc.aio.Server | None

    @classmethod
    async def start(cls, pools: Mapping[str, int], session_ttl: timedelta) -> MemoryNode:
        """Start a node with these pools."""
        store, keys, clock, observer = MemoryStore(), Keys(), SystemClock(), Observer()
        store.start_expiry(EXPIRY_INTERVAL)
        seats = Seats(
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
        key = LeasedRecord(
            store,
            keys.signing_key(core.signer.kid),
            record.SerializeToString(),
            TOKEN_LIFE_MAX,
        )
        await key.start()
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

    async def go_away(self) -> None:
        """Stop answering."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def _reporter(self) -> ServiceReporter:
        number = version("seatkeeper")
        node = NodeReporter(
            version=NodeVersion(self._core.node_id, number, "memory", "", ()),
            clock=self._core.clock,
            tally=Tally(),
            started_at=self._core.clock.now(),
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
