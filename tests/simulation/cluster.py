"""A whole service in simulation: etcd, nodes, and the processes of those who use it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulation.etcd import RecordingStore, SimEtcd, SimStore
from tests.simulation.lots import most_of
from tests.simulation.network import Network
from tests.simulation.rpc import Board, SimTransport
from tests.simulation.windows import drawn_windows
from tests.simulation.world import EPOCH, Process, World

from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.client import alternatives as alternatives_module
from seatkeeper.client import gangs as gangs_module
from seatkeeper.client.session import driver as session_module
from seatkeeper.client.session import introduction as introduction_module
from seatkeeper.client.session import lease as lease_module
from seatkeeper.client.session import tables as tables_module
from seatkeeper.core.clock import Timer
from seatkeeper.core.ids import IdGenerator
from seatkeeper.core.lots import NO_LOTS, PoolLots, succeeding
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.domain import (
    NO_POLICY,
    NO_RULES,
    Drain,
    Instant,
    PoolPolicy,
    PoolRules,
    PoolSpec,
)
from seatkeeper.server.events.usage import UsageEvent
from seatkeeper.server.node import Node, StartError
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Policy
from seatkeeper.server.pool.context import LISTING_STEP
from seatkeeper.server.store import Put, StoreError, Unchanged, records
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.telemetry.tally import Tally

KEYS = Keys()
RESTART_SECONDS = 0.2
KEY_SEED = b"of all nodes in simulation, only"
"""Of the nodes' signing key. One made anew would make each run another one."""


@dataclass(frozen=True)
class NodeClock:
    """The clocks of a node's machine."""

    process: Process

    def now(self) -> Instant:
        return Instant(int(self.process.unix_seconds() * 1000))

    def monotonic(self) -> float:
        return self.process.world.now


@dataclass(frozen=True)
class ClientClock:
    """The clock that a client believes in: of nearly the true rate."""

    process: Process

    def now(self) -> float:
        return self.process.world.now * self.process.clock_rate

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        delay = (when - self.now()) / self.process.clock_rate
        return asyncio.get_running_loop().call_later(max(0.0, delay), callback)


class SimNode:
    """A node that can be killed and started again, always at the same address."""

    def __init__(self, cluster: SimCluster, number: int) -> None:
        self.name = f"node-{number}"
        self.address = f"node-{number}:7420"
        self.process: Process | None = None
        self.is_kept_up = False
        """Whether it is started again when it ends by itself, as a supervisor would."""
        self._cluster = cluster
        self._config = cluster.node_config.model_copy(
            update={"node_id": self.name, "listen": self.address}
        )
        self._node: Node | None = None

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, serving or not."""
        return self.process is not None and self.process.is_alive

    def follows(self, pool: str) -> bool:
        """Return whether it reads what happens in a pool, and so has to decide for it."""
        return self.is_alive and self._node is not None and self._node._core.seats.follows(pool)

    def start(self) -> None:
        """Start it, if it does not run."""
        if not self.is_alive:
            self.process = self._cluster.world.process(self.name)
            self.process.start(self._serve(self.process))

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()

    def drain(self) -> None:
        """Have it stop as on SIGTERM; its process ends by itself."""
        process, node = self.process, self._node
        if process is not None and process.is_alive and node is not None:

            def end() -> None:
                process.kill()
                if self.is_kept_up:
                    self.start()

            async def stop() -> None:
                await node.stop()
                process.world.call_in(0.0, end)

            process.call(lambda: process.start(stop()))

    async def _serve(self, process: Process) -> None:
        cluster = self._cluster
        self._node = None
        while True:
            try:
                self._node = await Node.start(
                    self._config,
                    store=SimStore(cluster.etcd, process),
                    clock=NodeClock(process),
                    transport=SimTransport(cluster.board, process),
                    tally=cluster.tally(),
                    policy=cluster.policy,
                    listing_step=cluster.listing_step,
                )
            except (StartError, StoreError):
                await asyncio.sleep(RESTART_SECONDS)
            else:
                return


PROJECTS = ("sim", "cv", "nlp", "asr")


@dataclass
class SimCluster:
    """etcd and nodes in one world."""

    world: World
    nodes_count: int = 3
    session_ttl: float = 6.0
    policy: Policy = BY_POOL
    policies: Callable[[int], PoolPolicy] = lambda seats: NO_POLICY
    """Draws the policy of a pool of so many seats."""
    lots: Callable[[int], PoolLots] = lambda seats: NO_LOTS
    """Draws its lots, beside those seats."""
    listing_step: int = LISTING_STEP
    nodes: list[SimNode] = field(default_factory=list)
    _patches: list[mock._patch[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.world.rng
        self.network = Network(self.world, random.Random(rng.getrandbits(64)))
        self.board = Board(self.network)
        self.etcd = SimEtcd(self.world, self.network, random.Random(rng.getrandbits(64)))
        self.node_config = NodeConfig(
            node_id="n",
            listen="n:1",
            store="memory",
            session_ttl=self.session_ttl,
            stop_grace=1.0,
            token_key_file=_signing_key(),
        )
        self.published: list[UsageEvent] = []
        """The usage events of all nodes."""
        self.capacity: dict[str, int] = {}
        """The seats that each pool was made with."""
        self.most: dict[str, int] = {}
        """The most seats that each pool can ever have in force."""
        self.contracts: dict[str, PoolLots] = {}
        """The lots that each pool was made with, of which nothing was written."""
        self.shared: dict[str, PoolPolicy] = {}
        """The policy that each pool was made with, and its rules of now."""
        self.ruled: set[str] = set()
        """The pools whose rules have changed."""
        self.nodes = [SimNode(self, number) for number in range(1, self.nodes_count + 1)]

    def __enter__(self) -> SimCluster:
        # The one thing that the client takes from the operating system and not from its arguments.
        rng = random.Random(self.world.rng.getrandbits(64))
        new_id = IdGenerator(now_millis=self._now_millis, random_bits=rng.getrandbits)
        for module in (
            *(lease_module, session_module, tables_module, gangs_module),
            alternatives_module,
        ):
            patch = mock.patch.object(module, "new_id", new_id)
            patch.start()
            self._patches.append(patch)
        machine = SimpleNamespace(gethostname=self._host_name)
        patch_of_host = mock.patch.object(introduction_module, "socket", machine)
        patch_of_host.start()
        self._patches.append(patch_of_host)
        for node in self.nodes:
            node.start()
        return self

    def __exit__(self, *error: object) -> None:
        for patch in self._patches:
            patch.stop()

    @property
    def store(self) -> RecordingStore:
        """What is in etcd."""
        return self.etcd.store

    def tally(self) -> Tally:
        """Return what a node reports to."""
        tally = Tally()
        tally.usage.subscribe(self.published.append)
        return tally

    def pool(self, name: str, seats: int) -> None:
        """Make a pool, before anything else happens."""
        self.capacity[name] = seats
        self.shared[name] = self.policies(seats)
        lots = self.contracts[name] = self.lots(seats)
        self.most[name] = seats + most_of(lots)
        task = self.etcd.process.start(self._resize(name, seats))
        self.world.run(self.world.now, done=task.done)

    def resize(self, name: str, seats: int | None = None) -> None:
        """Change a pool's capacity, as an administrator does; None: to what it was made with.

        Of those that are to be closed, some are drained instead: by the time, so that nothing is drawn.
        """
        wanted = self.capacity[name] if seats is None else seats
        is_drained = not wanted and int(self.world.now * 1_000) % 2 == 0
        self.etcd.process.start(
            self._resize(name, self.capacity[name] if is_drained else wanted, is_drained)
        )

    def rule(self, name: str, rules: PoolRules) -> None:
        """Change who may use a pool, and how much each may have, as an administrator does."""
        self.shared[name] = replace(self.shared[name], rules=rules)
        self.ruled.add(name)
        self.etcd.process.start(self._rule(name, rules))

    def advise(self, name: str, is_advisory: bool) -> None:
        """Have a pool count only, or bind again, as an administrator does."""
        policy = self.shared[name]
        counting = replace(policy.counting, is_advisory=is_advisory)
        self.shared[name] = replace(policy, counting=counting)

        def advised(spec: PoolSpec) -> PoolSpec:
            return replace(spec, policy=replace(spec.policy, counting=counting))

        self.etcd.process.start(self._change(name, advised))

    async def _rule(self, name: str, rules: PoolRules) -> None:
        def ruled(spec: PoolSpec) -> PoolSpec:
            return replace(spec, policy=replace(spec.policy, rules=rules))

        await self._change(name, ruled)

    async def _change(self, name: str, change: Callable[[PoolSpec], PoolSpec]) -> None:
        """Change what there is of a pool; nodes write it, too."""
        key = KEYS.pool(name)
        while True:
            found = await self.store.get(key)
            seen = found.mod_revision if found is not None else 0
            before = records.decode_spec(found.value) if found else PoolSpec(name, 0)
            committed = await self.store.commit(
                [Put(key, records.encode_spec(change(before)))], only_if=[Unchanged(key, seen)]
            )
            if committed.succeeded:
                return

    async def _resize(self, name: str, seats: int, is_drained: bool = False) -> None:
        drain = Drain("drawn", "administrator", 1) if is_drained else None
        policy = self.shared[name]
        drawn = drawn_windows(self.world.seed, name, policy.reservations)
        made = PoolSpec(name, seats, policy=policy, drain=drain)
        lots = self.contracts[name]

        def resized(before: PoolSpec) -> PoolSpec:
            is_new = not before.policy.reservations
            spec = replace(made, windows=drawn if is_new else before.windows)
            if not lots:
                return spec
            ruled = tuple(lot for lot in before.lots.lots if lot.is_by_rule)
            wanted = replace(lots, lots=(*lots.lots, *ruled), seats=seats)
            return spec.with_lots(succeeding(wanted, before.lots))

        await self._change(name, resized)

    def project_of(self, user: str) -> str:
        """Return what a user's seats are charged to: the same in every run of a seed."""
        policies = self.shared.values()
        if not any(policy.projects or policy.rules != NO_RULES for policy in policies):
            return PROJECTS[0]
        return random.Random(f"project of {user} in {self.world.seed}").choice(PROJECTS)

    def client(
        self,
        process: Process,
        config: ClientConfig,
        *,
        holder: str | None = None,
        project: str = PROJECTS[0],
    ) -> AsyncSeatClient:
        """Return a client in a process of its user. ``holder``: default: the process's name."""
        client = AsyncSeatClient(
            [node.address for node in self.nodes],
            holder=holder or process.name,
            project=project,
            config=config,
            clock=ClientClock(process),
        )
        connect = SimTransport(self.board, process).connect
        client._session.connect = connect
        client._calls._connect = connect
        return client

    def _host_name(self) -> str:
        """Return the host of the process that runs: there are two."""
        running = self.world.running
        return f"host-{sum(running.name.encode()) % 2 if running else 0}"

    def _now_millis(self) -> int:
        running = self.world.running
        seconds = running.unix_seconds() if running else EPOCH + self.world.now
        return int(seconds * 1000)


@functools.cache
def _signing_key() -> Path:
    """Return a file with the key that all nodes sign with."""
    key = Ed25519PrivateKey.from_private_bytes(KEY_SEED)
    folder = Path(tempfile.mkdtemp(prefix="seatkeeper-simulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "key.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


def seconds(length: float) -> timedelta:
    """Return a length of time."""
    return timedelta(seconds=length)
