"""A service whose nodes and agents are of two versions: etcd, three nodes, and an agent of each.

It is the service of `tests.chaos`, so that the same faults can be injected. Each node runs the release
that it was last given. With mutual TLS a certificate proves whose a session is; without, its secret.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL

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
TLS_FILES = ("ca", "cert", "key")
CALLER = "compat"
"""Name in the certificate of all callers, who may administer and publish."""


class NotThatVersion(Exception):
    """A node says that it is of another version than the one that was started."""


@dataclass(kw_only=True)
class MixedNode(Node):
    """A node that comes back where it was, as the release that it is given."""

    release: Release
    tls: TlsConfig | None

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
        await check_version(self.listen, self.release, self.tls)


async def check_version(address: str, release: Release, tls: TlsConfig | None) -> None:
    """Raise ``NotThatVersion`` where another version answers than was started."""
    config = ClientConfig(follow_ring=False, keeper="process")
    async with AsyncSeatClient(address, tls=tls, config=config) as client:
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
    caller: TlsConfig | None = None
    """What callers prove themselves with; None: all of it is without TLS."""

    @property
    def caller_files(self) -> Mapping[str, str]:
        """The caller's CA, certificate and key; empty: without TLS."""
        tls = self.caller
        return {name: str(getattr(tls, name)) for name in TLS_FILES} if tls else {}

    @property
    def caller_flags(self) -> Sequence[str]:
        """The same, for the command line."""
        files = self.caller_files.items()
        return [word for name, file in files for word in (f"--tls-{name}", file)]

    async def drain(self, node: MixedNode, release: Release) -> int:
        """Have the command line of a release drain a node; return its exit code."""
        process = await asyncio.create_subprocess_exec(
            *(*release.program, "node", "drain", node.name),
            *("--nodes", node.listen, *self.caller_flags),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        return await process.wait()

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
        flags = ("--stop-grace", str(STOP_GRACE_SECONDS), *self._node_flags(name))
        node = MixedNode(
            *(name, place, listen, flags, self.folder, relays),
            release=release,
            tls=self.caller,
        )
        self.nodes.append(node)
        self.mixed.append(node)
        await node.start()

    async def add_agent(self, release: Release, pool: str) -> None:
        """Start one more build agent, for the seats of a pool."""
        name = f"agent-{len(self.agents) + 1}"
        place = self.places.make(name)
        listen = f"{place.host}:{free_ports(1)[0]}"
        nodes = ("--nodes", ",".join(self.addresses), "--pool", pool)
        flags = (*nodes, *self._agent_flags(name))
        agent = MixedAgent(name, place, listen, self.folder, flags, release)
        self.agents.append(agent)
        await agent.start()

    def client(self, name: str) -> AsyncSeatClient:
        """Return a client that nothing stands before."""
        return AsyncSeatClient(
            self.addresses,
            holder=name,
            project="compat",
            tls=self.caller,
            config=ClientConfig(keeper="process"),
        )

    def admin_client(self) -> AsyncSeatClient:
        """Return a client that may administer; here all may."""
        return self.client("admin")

    async def stop(self) -> None:
        """End everything. Safe to call twice."""
        for agent in self.agents:
            if agent.server is not None:
                await agent.server.stop()
        await super().stop()

    def _node_flags(self, name: str) -> Sequence[str]:
        if self.caller is None:
            return ()
        return (
            *self._server_flags(name),
            *("--tls-client-ca-file", str(self.authority.ca)),
            *("--administrators", f"dns:{CALLER}", "--agents", f"dns:{CALLER}"),
        )

    def _agent_flags(self, name: str) -> Sequence[str]:
        if self.caller is None:
            return ()
        caller = self.caller_files
        return (
            *self._server_flags(name),
            *("--nodes-ca-file", caller["ca"]),
            *("--nodes-cert-file", caller["cert"], "--nodes-key-file", caller["key"]),
        )

    def _server_flags(self, name: str) -> Sequence[str]:
        cert, key = self.authority.issue(name)
        return ("--tls-cert-file", str(cert), "--tls-key-file", str(key))


@asynccontextmanager
async def mixed_service(
    release: Release, folder: Path, rng: random.Random, *, members: int, tls: bool
) -> AsyncIterator[MixedService]:
    """Start etcd, and three nodes of one release; end all of it afterwards."""
    etcd = EtcdCluster(
        find_etcd().path, folder / "etcd", members=members, options=EtcdOptions()
    )
    await etcd.start()
    authority = Authority(folder)
    cert, key = authority.issue(CALLER)
    caller = TlsConfig(ca=authority.ca, cert=cert, key=key)
    service = MixedService(
        folder,
        Places(is_namespaces=False),
        etcd,
        EtcdStore(EtcdConfig(endpoints=etcd.endpoints)),
        authority,
        caller,
        rng,
        caller=caller if tls else None,
    )
    try:
        for _ in range(NODES):
            await service.add_mixed_node(release)
        yield service
    finally:
        await service.stop()
