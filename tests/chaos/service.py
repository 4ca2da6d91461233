"""A whole service of processes: three etcd members with users, three nodes with TLS, one build agent.

Between each node and each etcd member stands a relay of its own. Every process has a place.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from bench.service import ServerProcess, spawn
from tests import debian_tools
from tests.chaos.places import Place, Places
from tests.client.certificates import Authority
from tests.cluster.balancer import free_ports
from tests.conftest import add_users

from seatkeeper.chaos.relay import Relay
from seatkeeper.client import AsyncSeatClient, ClientConfig, TlsConfig
from seatkeeper.devcluster.etcd_binary import find_etcd
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions, EtcdPlace, EtcdProcess
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.keys import Keys

MEMBERS = NODES = 3
NODE_PORT = 7420
AGENT_PORT = 7440
AGENT = "chaos-agent"
ADMIN = "admin"
AGENT_CERTIFICATE = "agent"
"""Names in certificates. Users have certificates too, which may not administer."""
TLS_NAME = "seatkeeper-chaos"
"""What every node's certificate carries: through relays its address is not its own."""
ETCD_OPTIONS = EtcdOptions(auth_token_ttl=timedelta(seconds=5))
"""Tokens of etcd's users end all the time, so that nodes must get new ones."""
KEYS = Keys()
SMALL_DISK_MEGABYTES = 1500


@dataclass
class Node:
    """One node, which comes back where it was."""

    name: str
    place: Place
    listen: str
    flags: tuple[str, ...]
    folder: Path
    relays: list[Relay]
    """Before each etcd member."""
    server: ServerProcess | None = None

    @property
    def process(self) -> ServerProcess:
        """Its process."""
        assert self.server is not None, "start it first"
        return self.server

    @property
    def clock_file(self) -> Path:
        """Says by how much its clock is wrong."""
        return self.folder / f"{self.name}.clock"

    async def start(self) -> None:
        """Start it and wait until it serves."""
        endpoints = ",".join(relay.endpoint for relay in self.relays)
        arguments = ["serve", "--node-id", self.name, "--listen", self.listen]
        self.server = spawn(
            self.folder,
            self.name,
            [*arguments, "--etcd-endpoints", endpoints, *self.flags],
            command=self.place.command,
            environment=self._clock(),
        )
        await self.server.wait_serving()

    def jump(self, seconds: int) -> None:
        """Set its clock so much ahead of the true time."""
        self.clock_file.write_text(f"{seconds:+d}\n")

    def _clock(self) -> Mapping[str, str]:
        """Return what has it see the clock of its file, where that can be done."""
        program = debian_tools.find(debian_tools.FAKETIME)
        library = program and program.parent / "lib" / "faketime" / "libfaketime.so.1"
        if library is None or not library.exists():
            return {}
        self.jump(0)
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock_file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@dataclass
class ChaosService:
    """All of it."""

    folder: Path
    places: Places
    etcd: EtcdCluster
    store: EtcdStore
    """etcd as its operator sees it: past all relays."""
    authority: Authority
    tls: TlsConfig
    rng: random.Random
    nodes: list[Node] = field(default_factory=list)
    agent: ServerProcess | None = None
    _made: int = 0

    @property
    def addresses(self) -> list[str]:
        """Where the nodes are."""
        return [node.listen for node in self.nodes]

    @property
    def member_on_small_disk(self) -> EtcdProcess:
        """The member of etcd whose disk can be filled, where places are machines of their own."""
        return self.etcd.members[-1]

    async def add_node(self) -> Node:
        """Start one more node."""
        self._made += 1
        name = f"node-{self._made}"
        place = self.places.make(name)
        port = NODE_PORT if self.places.is_namespaces else free_ports(1)[0]
        relays = [
            Relay(endpoint, host=self.places.hub, rng=self.rng)
            for endpoint in self.etcd.endpoints
        ]
        for relay in relays:
            await relay.start()
        self.issue(name, place)
        node = Node(name, place, f"{place.host}:{port}", self._flags(name), self.folder, relays)
        self.nodes.append(node)
        await node.start()
        return node

    async def remove_node(self, node: Node) -> None:
        """Have a node leave for good."""
        await node.process.stop()
        self.nodes.remove(node)
        for relay in node.relays:
            await relay.close()

    def issue(self, name: str, place: Place) -> None:
        """Make a new certificate for a process; it is read when the process starts."""
        self.authority.issue(name, also=[TLS_NAME], addresses=[place.host])

    def client(self, name: str) -> AsyncSeatClient:
        """Return a client that nothing stands before."""
        return AsyncSeatClient(
            self.addresses,
            holder=name,
            project="chaos",
            tls=self.tls,
            config=ClientConfig(keeper="process"),
        )

    def admin_client(self) -> AsyncSeatClient:
        """Return a client whose certificate names an administrator; no other does."""
        cert, key = self.authority.issue(ADMIN)
        tls = replace(self.tls, cert=cert, key=key)
        return AsyncSeatClient(self.addresses, holder=ADMIN, project="chaos", tls=tls)

    async def start_agent(self, pool: str) -> None:
        """Start the build agent, for the seats of a pool."""
        place = self.places.make("agent")
        self.issue(AGENT_CERTIFICATE, place)
        port = AGENT_PORT if self.places.is_namespaces else free_ports(1)[0]
        keys = self.folder / f"{AGENT_CERTIFICATE}.key"
        self.agent = spawn(
            self.folder,
            "agent",
            [
                *("agent", "--agent-id", AGENT, "--listen", f"{place.host}:{port}"),
                *("--nodes", ",".join(self.addresses), "--nodes-ca-file", str(self.tls.ca)),
                *("--nodes-cert-file", str(self.folder / f"{AGENT_CERTIFICATE}.pem")),
                *("--nodes-key-file", str(keys), "--tls-key-file", str(keys)),
                *("--tls-cert-file", str(self.folder / f"{AGENT_CERTIFICATE}.pem")),
                *("--engines", str(self.folder / "engines"), "--pool", pool),
            ],
            command=place.command,
        )
        await self.agent.wait_serving()

    async def stop(self) -> None:
        """End everything. Safe to call twice."""
        if self.agent is not None:
            await self.agent.stop()
        for node in self.nodes:
            if node.server is not None:
                await node.server.stop()
            for relay in node.relays:
                await relay.close()
        await self.store.close()
        await self.etcd.stop()
        self.places.close()

    def _flags(self, name: str) -> tuple[str, ...]:
        return (
            *("--etcd-username", "node", "--etcd-password-file", str(self.folder / "password")),
            *("--tls-cert-file", str(self.folder / f"{name}.pem")),
            *("--tls-key-file", str(self.folder / f"{name}.key")),
            *("--tls-client-ca-file", str(self.authority.ca)),
            *("--administrators", f"dns:{ADMIN}", "--agents", f"dns:{AGENT_CERTIFICATE}"),
            *("--stop-grace", "1"),
        )


@asynccontextmanager
async def running_service(
    places: Places, folder: Path, rng: random.Random
) -> AsyncIterator[ChaosService]:
    """Start etcd and nodes; end all of it afterwards."""
    program = find_etcd().path
    members = [places.make(f"etcd-{number}") for number in range(1, MEMBERS + 1)]
    etcd = EtcdCluster(
        program,
        folder / "etcd",
        members=MEMBERS,
        options=ETCD_OPTIONS,
        places=[EtcdPlace(host=place.host, command=place.command) for place in members],
    )
    if places.is_namespaces:
        places.mount_disk(etcd.members[-1].data_folder, SMALL_DISK_MEGABYTES)
    await etcd.start()
    await add_users(program, etcd, f"{KEYS.prefix}/")
    (folder / "password").write_text("hush\n")
    authority = Authority(folder)
    cert, key = authority.issue("users")
    service = ChaosService(
        folder,
        places,
        etcd,
        EtcdStore(EtcdConfig(endpoints=etcd.endpoints, username="root", password="secret")),
        authority,
        TlsConfig(ca=authority.ca, cert=cert, key=key, server_name=TLS_NAME),
        rng,
    )
    try:
        for _ in range(NODES):
            await service.add_node()
        yield service
    finally:
        await service.stop()
