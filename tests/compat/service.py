"""A service whose nodes and agents are of two versions: etcd, three nodes, and an agent of each.

It is the service of `tests.chaos`, so that the same faults can be injected; but without TLS, so that
sessions are proven by their secrets. Each node runs the release that it was last given.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.service import ServerProcess, spawn
from tests.chaos.places import Place, Places
from tests.chaos.service import NODES, ChaosService, Node
from tests.client.certificates import Authority
from tests.cluster.balancer import free_ports
from tests.compat.previous import Release

from seatkeeper.chaos.relay import Relay
from seatkeeper.client import AsyncSeatClient, ClientConfig, SeatError, TlsConfig
from seatkeeper.devcluster.etcd_binary import find_etcd
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

STOP_GRACE_SECONDS = 1


class NotThatVersion(Exception):
    """A node says that it is of another version than the one that was started."""


@dataclass(kw_only=True)
class MixedNode(Node):
    """A node that comes back where it was, as the release that it is given."""

    release: Release

    async def start(self) -> None:
        """Start it, wait until it serves, and make sure of what it is."""
        endpoints = ",".join(relay.endpoint for relay in self.relays)
        arguments = ["serve", "--node-id", self.name, "--listen", self.listen]
        self.server = spawn(
            self.folder,
            self.name,
            [*arguments, "--etcd-endpoints", endpoints, *self.flags],
            command=self.place.command,
            program=self.release.program,
        )
        await self.server.wait_serving()
        await check_version(self.listen, self.release)


async def check_version(address: str, release: Release) -> None:
    """Raise ``NotThatVersion`` where another version answers than was started."""
    config = ClientConfig(follow_ring=False, keeper="process")
    async with AsyncSeatClient(address, config=config) as client:
        try:
            said = (await client.cluster.version()).version
        except SeatError as error:
            raise NotThatVersion(f"{address} does not say what it is: {error}") from error
    if said != release.version:
        raise NotThatVersion(f"{address} is {said}, and {release.version} was started")


@dataclass
class MixedAgent:
    """A build agent that comes back with its id and its engines, as the release that it is given."""

    name: str
    place: Place
    listen: str
    folder: Path
    flags: Sequence[str]
    release: Release
    server: ServerProcess | None = None

    @property
    def process(self) -> ServerProcess:
        """Its process."""
        assert self.server is not None, "start it first"
        return self.server

    async def start(self) -> None:
        """Start it on the engines that it has, and wait until it serves."""
        self.server = spawn(
            self.folder,
            self.name,
            [
                *("agent", "--agent-id", self.name, "--listen", self.listen, *self.flags),
                *("--engines", str(self.folder / f"engines-{self.name}")),
            ],
            command=self.place.command,
            program=self.release.program,
        )
        await self.server.wait_serving()


@dataclass
class MixedService(ChaosService):
    """All of it."""

    agents: list[MixedAgent] = field(default_factory=list)
    """Those that compile."""
    mixed: list[MixedNode] = field(default_factory=list)
    """The nodes, with what they run."""

    async def add_mixed_node(self, release: Release) -> None:
        """Start one more node."""
        name = f"node-{len(self.nodes) + 1}"
        place = self.places.make(name)
        relays = [
            Relay(endpoint, host=self.places.hub, rng=self.rng)
            for endpoint in self.etcd.endpoints
        ]
        for relay in relays:
            await relay.start()
        listen = f"{place.host}:{free_ports(1)[0]}"
        flags = ("--stop-grace", str(STOP_GRACE_SECONDS))
        node = MixedNode(name, place, listen, flags, self.folder, relays, release=release)
        self.nodes.append(node)
        self.mixed.append(node)
        await node.start()

    async def add_agent(self, release: Release, pool: str) -> None:
        """Start one more build agent, for the seats of a pool."""
        name = f"agent-{len(self.agents) + 1}"
        place = self.places.make(name)
        listen = f"{place.host}:{free_ports(1)[0]}"
        flags = ("--nodes", ",".join(self.addresses), "--pool", pool)
        agent = MixedAgent(name, place, listen, self.folder, flags, release)
        self.agents.append(agent)
        await agent.start()

    def client(self, name: str) -> AsyncSeatClient:
        """Return a client that nothing stands before."""
        config = ClientConfig(keeper="process")
        return AsyncSeatClient(self.addresses, holder=name, project="compat", config=config)

    def admin_client(self) -> AsyncSeatClient:
        """Return a client that may administer; here all may."""
        return self.client("admin")

    async def stop(self) -> None:
        """End everything. Safe to call twice."""
        for agent in self.agents:
            if agent.server is not None:
                await agent.server.stop()
        await super().stop()


@asynccontextmanager
async def mixed_service(
    release: Release, folder: Path, rng: random.Random, *, members: int
) -> AsyncIterator[MixedService]:
    """Start etcd, and three nodes of one release; end all of it afterwards."""
    etcd = EtcdCluster(
        find_etcd().path, folder / "etcd", members=members, options=EtcdOptions()
    )
    await etcd.start()
    service = MixedService(
        folder,
        Places(is_namespaces=False),
        etcd,
        EtcdStore(EtcdConfig(endpoints=etcd.endpoints)),
        Authority(folder),
        TlsConfig(),
        rng,
    )
    try:
        for _ in range(NODES):
            await service.add_mixed_node(release)
        yield service
    finally:
        await service.stop()
