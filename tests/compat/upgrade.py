"""A rolling upgrade and the way back, under load and faults: what happens, and what is used."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.builder import models
from tests.chaos.environment import (
    CANARY_POOL,
    CANARY_SEATS,
    ProcessEnvironment,
    open_canary,
)
from tests.chaos.faults import service_faults
from tests.chaos.operator import Operator
from tests.chaos.service import NODES
from tests.compat.fields import Planter
from tests.compat.previous import Release
from tests.compat.probing import OPEN, PLANTED, Probing
from tests.compat.program import Config
from tests.compat.service import MixedService, mixed_service

from seatkeeper.chaos.faults import Fault, Users, faults_of
from seatkeeper.chaos.result import Outcome
from seatkeeper.chaos.scenario import Calm, Injection, Scenario, Step
from seatkeeper.chaos.trial import Trial, TrialConfig
from seatkeeper.chaos.worker_pool import WorkerPool
from seatkeeper.devcluster.etcd_binary import find_etcd
from seatkeeper.oracle.witness import Witness
from seatkeeper.server.store import Change
from seatkeeper.server.store.keys import Keys

SHARED = {"compat-1": 4, "compat-2": 2}
"""Pools that all users share, and their seats."""
AGENT_POOL, BUILD_POOL = "compat-agent", "compat-build"
SINGLE = {AGENT_POOL: 1, BUILD_POOL: 2}
"""One seat for agents without a compiler: so no engine is published under an older fence."""
TTL_SECONDS = 10.0
"""Longer than any fault keeps a session from being renewed: no seat may be lost."""
ADMINISTERED_MAX = 40
"""Programs of users that may run at once; each administers a pool of its own."""
AGENTS_CHANGE = (0, NODES)
"""With which nodes of a round the build agents change their versions: forth, and back."""
PROGRAM = Path(__file__).with_name("program.py")
TARGET = "three nodes and agents of two versions"
CHECKED_BY = "etcd's whole history, and what users were answered and believed"
FAULTS = (
    Injection("KillNode.owner", 1.0),
    Injection("Freeze.owner", 3.0),
    Injection("Etcd.kill_leader", 1.0),
    Injection("KillNode.after_commit_before_reply", 0.5),
    Injection("EtcdLink.answers_lost", 1.0),
    Injection("Users.die", 0.5),
    Injection("Watch.ends", 0.5),
)
"""One or more of them are injected into every mixture."""


@dataclass(frozen=True)
class Size:
    """How much is done."""

    rounds: int
    seconds: float
    """How long users work in each mixture, faults not counted."""
    members: int = 3
    """Of etcd."""
    workers: int = 4
    """Programs of users, half of each version."""
    faults: int = 2
    """In each mixture."""
    builds: bool = True
    """Have real engines compiled."""
    tls: bool = True
    """Mutual TLS everywhere; else none."""
    kinds: Sequence[Injection] = FAULTS
    """The faults that there are."""
    rate_min: float = 5.0
    """Answers a second before a fault, below which it proves nothing."""
    probed: Collection[int] = range(2 * NODES)
    """After which of a round's replacements callers try everything."""


class Upgrade:
    """Nodes change their version, one at a time."""

    def __init__(self, service: MixedService, old: Release, new: Release) -> None:
        self._service = service
        self._old = old
        self._new = new
        self.exits: list[int] = []
        """How nodes and agents ended, and what ended them."""

    @asynccontextmanager
    async def forward(self) -> AsyncIterator[str]:
        """A node of the old version is drained, and one of the new version starts in its place."""
        yield await self._replace(self._old, self._new)

    @asynccontextmanager
    async def back(self) -> AsyncIterator[str]:
        """A node of the new version is drained, and one of the old version starts in its place.

        The old version's administrator has it drained.
        """
        yield await self._replace(self._new, self._old)

    @asynccontextmanager
    async def agents(self) -> AsyncIterator[str]:
        """Every build agent is stopped, and the other version starts with its id and its engines."""
        for agent in self._service.agents:
            self.exits.append(await agent.process.stop())
            agent.release = self._new if agent.release is self._old else self._old
            await agent.start()
        yield "all agents"

    async def _replace(self, from_: Release, to: Release) -> str:
        nodes = [node for node in self._service.mixed if node.release is from_]
        node = self._service.rng.choice(nodes)
        if to is self._old:
            self.exits.append(await self._service.drain(node, to))
        self.exits.append(await node.process.stop())
        node.release = to
        await node.start()
        return node.name


@dataclass(frozen=True)
class WorkerConfig:
    """One program of users, as the worker pool starts it."""

    config: Config

    @property
    def name(self) -> str:
        """What it is called."""
        return self.config.name

    def to_json(self) -> str:
        """Return it as one word of a command line."""
        return json.dumps(asdict(self.config))


@dataclass
class Mixture:
    """Everything that takes part."""

    trial: Trial
    environment: MixedEnvironment
    probing: Probing
    upgrade: Upgrade
    size: Size
    rng: random.Random
    releases: Sequence[Release]
    began: float = field(default_factory=time.monotonic)
    rounds: int = 0
    """Upgrades and ways back that are over."""

    @property
    def changes(self) -> Sequence[Change]:
        """All that has changed in etcd, in order."""
        assert self.trial.witness is not None
        return list(self.trial.witness.changes)

    def around(self, at: float) -> str:
        """Return what was injected last before a moment of the machine's clock: for people."""
        seconds = at - self.began
        before = [each for each in self.environment.injected if each[0] <= at]
        if not before:
            return f"at {seconds:.1f} s"
        injected_at, what = before[-1]
        return f"at {seconds:.1f} s, {at - injected_at:.1f} s after {what}"

    async def run(self) -> None:
        """Upgrade every node and go back, as often as wanted; callers try everything in between."""
        for number in range(1, self.size.rounds + 1):
            for turn, scenario in enumerate(round_of(number, self.size, self.rng)):
                await self.trial.run([scenario])
                if turn in self.size.probed:
                    await self.probing.run(self.releases)
            self.rounds = number
        await self.trial.conclude()


def round_of(number: int, size: Size, rng: random.Random) -> list[Scenario]:
    """Return what happens in one round: after each replaced node, the faults in that mixture. Pure."""
    shuffled: list[Injection] = []
    scenarios: list[Scenario] = []
    for turn in range(2 * NODES):
        is_forward = turn < NODES
        steps: list[Step] = [Injection("Upgrade.forward" if is_forward else "Upgrade.back")]
        for _ in range(size.faults):
            if not shuffled:
                shuffled = rng.sample(size.kinds, len(size.kinds))
            steps += [Calm(size.seconds / (size.faults + 1)), shuffled.pop()]
        if size.builds and turn in AGENTS_CHANGE:
            steps += [Calm(size.seconds), Injection("Upgrade.agents")]
        steps.append(Calm(size.seconds / (size.faults + 1)))
        new = turn + 1 if is_forward else 2 * NODES - turn - 1
        scenarios.append(
            Scenario(
                f"round {number}, {'upgrade' if is_forward else 'way back'}",
                f"{new} of {NODES} nodes are new",
                tuple(steps),
            )
        )
    return scenarios


@dataclass
class MixedEnvironment(ProcessEnvironment):
    """Watches over the service between faults, and notes when each was injected."""

    mixed: MixedService = field(kw_only=True)
    injected: list[tuple[float, str]] = field(default_factory=list)
    """When, by the machine's clock, and what."""

    async def trouble(self) -> str:
        """Return what is not as it should be; empty: the service is whole."""
        for agent in self.mixed.agents:
            if agent.process.process.poll() is not None:
                return f"{agent.name} has ended: {agent.process.log.read_text()[-500:]}"
        return await super().trouble()

    def noting(self, name: str, fault: Fault) -> Fault:
        """Return the fault, which from now on is noted when it is injected."""

        @asynccontextmanager
        async def noted() -> AsyncIterator[str]:
            async with fault() as place:
                self.injected.append((time.monotonic(), f"{name} {place}"))
                yield place

        return noted


@asynccontextmanager
async def running_mixture(
    old: Release, new: Release, folder: Path, size: Size, seed: int
) -> AsyncIterator[Mixture]:
    """Start all of it with nodes of the old version; users work until the end of this."""
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            mixed_service(old, folder, rng, members=size.members, tls=size.tls)
        )
        admin = await stack.enter_async_context(service.admin_client())
        administered = [_admin_pool(number) for number in range(ADMINISTERED_MAX)]
        single = dict.fromkeys((*administered, *PLANTED, *OPEN), 1)
        for name, seats in {**SHARED, **SINGLE, **single, CANARY_POOL: CANARY_SEATS}.items():
            await admin.pools.create(name, seats=seats)
        keys = Keys()
        witness = Witness(service.store, keys.prefix)
        await witness.start()
        stack.push_async_callback(witness.stop)
        worker_pool = _worker_pool(service, folder, size, seed, (old, new))
        stack.push_async_callback(worker_pool.end)
        canary = open_canary(service.addresses, service.caller)
        stack.push_async_callback(canary.close)
        for release in (old, new) if size.builds else ():
            await service.add_agent(release, BUILD_POOL)
        await worker_pool.start()
        operator = Operator(find_etcd().path, service.etcd, service.store)
        upgrade = Upgrade(service, old, new)
        environment = MixedEnvironment(service, canary, {}, mixed=service)
        ours = {
            **service_faults(service, operator, witness, admin, next(iter(SHARED))),
            **faults_of(upgrade),
        }
        faults = {name: environment.noting_restarts(fault) for name, fault in ours.items()}
        faults |= faults_of(Users(worker_pool, rng))
        environment.faults = {
            name: environment.noting(name, fault) for name, fault in faults.items()
        }
        trial = Trial(
            environment,
            worker_pool,
            witness,
            TrialConfig(
                pools={**SHARED, **SINGLE}, ttl_max=TTL_SECONDS, rate_min=size.rate_min
            ),
            Outcome(TARGET, CHECKED_BY, sum(SHARED.values())),
            print_line,
        )
        planter = Planter(service.store, keys)
        probing = Probing(service, admin, worker_pool.record, folder, rng, planter)
        yield Mixture(trial, environment, probing, upgrade, size, rng, (old, new))


def print_line(text: str) -> None:
    """Print what people should see at once."""
    print(text, flush=True)


def _admin_pool(number: int) -> str:
    return f"compat-admin-{number % ADMINISTERED_MAX}"


def _worker_pool(
    service: MixedService, folder: Path, size: Size, seed: int, releases: Sequence[Release]
) -> WorkerPool:
    """Return programs of users, as many of each version; also when some have been killed."""
    model = folder / "model.onnx"
    model.write_bytes(models.relu())
    given: dict[str, Release] = {}

    def alive(release: Release) -> int:
        killed = worker_pool.record.killed
        return sum(each is release for name, each in given.items() if name not in killed)

    def config(name: str, number: int) -> WorkerConfig:
        given[name] = release = min(releases, key=alive)
        builds = size.builds and alive(release) == 1
        return WorkerConfig(
            Config(
                name=name,
                version=release.name,
                seed=seed * 1_000_003 + number,
                nodes=service.addresses,
                pools=list(SHARED.items()),
                agent_pool=AGENT_POOL,
                admin_pool=_admin_pool(number),
                build_pool=BUILD_POOL if builds else "",
                model=str(model),
                ttl=TTL_SECONDS,
                tls=dict(service.caller_files),
            )
        )

    worker_pool = WorkerPool(
        config,
        workers=size.workers,
        folder=folder,
        program=lambda name: (*given[name].interpreter, str(PROGRAM)),
    )
    return worker_pool
