"""Real nodes, as processes, over a real etcd."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import grpc.aio
import pytest
from bench.service import ServerProcess, Service, start_node

from seatkeeper.devcluster.etcd_process import EtcdCluster
from seatkeeper.oracle.history import PoolHistory, read_history, replay
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.keys import Keys
from seatkeeper.v1 import pool_service_pb2, pool_service_pb2_grpc

NODES = 3
DEADLINE = 20.0


@dataclass
class Cluster:
    """Three nodes, and their own store."""

    service: Service
    keys: Keys
    first_revision: int
    pools: int = 0
    extras: list[ServerProcess] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """Where the three nodes are."""
        return self.service.addresses[:NODES]

    async def another_node(self) -> ServerProcess:
        """Start one more node, for this test to treat badly."""
        name = f"extra-{len(self.service.nodes)}"
        return await start_node(self.service, name, self.flags)

    @property
    def flags(self) -> tuple[str, ...]:
        """What every node of this cluster is started with."""
        return ("--prefix", self.keys.prefix, "--stop-grace", "1")

    async def pool(self, seats: int) -> str:
        """Create a pool of a name of its own."""
        self.pools += 1
        name = f"pool-{self.pools}"
        async with grpc.aio.insecure_channel(self.addresses[0]) as channel:
            stub = pool_service_pb2_grpc.PoolServiceStub(channel)
            spec = pool_service_pb2.PoolSpec(name=name, seats=seats)
            await stub.CreatePool(
                pool_service_pb2.CreatePoolRequest(spec=spec), timeout=DEADLINE
            )
        return name

    async def look(self, pool: str, address: str | None = None) -> pool_service_pb2.Pool:
        """Return a pool as a node shows it."""
        async with grpc.aio.insecure_channel(address or self.addresses[0]) as channel:
            stub = pool_service_pb2_grpc.PoolServiceStub(channel)
            request = pool_service_pb2.GetPoolRequest(name=pool)
            return (await stub.GetPool(request, timeout=DEADLINE)).pool

    async def checked(self, pool: str) -> PoolHistory:
        """Replay etcd's own history of a pool, which must be without fault."""
        store = EtcdStore(EtcdConfig(endpoints=self.service.etcd.endpoints))
        try:
            changes = await read_history(
                store, self.keys.prefix, from_revision=self.first_revision
            )
        finally:
            await store.close()
        history = replay(changes, self.keys.prefix)[pool]
        assert history.is_correct, history.faults
        return history


@pytest.fixture(scope="session")
def shared_cluster(
    etcd: EtcdCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The cluster of all tests in this folder."""
    service = Service(tmp_path_factory.mktemp("nodes"), etcd)
    keys = Keys(f"cluster-{secrets.token_hex(4)}")
    cluster = Cluster(service, keys, asyncio.run(_present(etcd)) + 1)

    async def start() -> None:
        for number in range(1, NODES + 1):
            await start_node(service, f"node-{number}", cluster.flags)

    async def stop() -> None:
        await asyncio.gather(*(node.stop() for node in service.nodes))

    try:
        asyncio.run(start())
        yield cluster
    finally:
        asyncio.run(stop())


@pytest.fixture
async def cluster(shared_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Three nodes that serve, before and after."""
    for address in shared_cluster.addresses:
        await serves(address)
    yield shared_cluster
    for address in shared_cluster.addresses:
        await serves(address)


async def serves(address: str) -> None:
    """Make sure that a node answers."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pool_service_pb2_grpc.PoolServiceStub(channel)
        await stub.ListPools(pool_service_pb2.ListPoolsRequest(), timeout=DEADLINE)


async def _present(etcd: EtcdCluster) -> int:
    store = EtcdStore(EtcdConfig(endpoints=etcd.endpoints))
    try:
        return (await store.list("cluster-")).revision
    finally:
        await store.close()
