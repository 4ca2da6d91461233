"""The service of processes as a stage: what can be done to it, and whether it is whole."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.chaos import policy_pools
from tests.chaos.builder import Builder
from tests.chaos.faults import Injected, service_faults
from tests.chaos.growth import Growth
from tests.chaos.operator import Operator
from tests.chaos.places import Place, Places
from tests.chaos.policy_faults import policy_faults
from tests.chaos.service import KEYS, TLS_NAME, ChaosService, running_service

from seatkeeper.chaos.faults import Fault, Network, Users, faults_of
from seatkeeper.chaos.relay import Relay
from seatkeeper.chaos.result import Outcome
from seatkeeper.chaos.target import CANARY_SECONDS, HABITS, Canary
from seatkeeper.chaos.trial import Mix, Trial, TrialConfig
from seatkeeper.chaos.worker import PROJECTS, WorkerConfig
from seatkeeper.chaos.worker_pool import WorkerPool
from seatkeeper.client import TlsConfig
from seatkeeper.client.admin.projects import parse_project
from seatkeeper.client.admin.reclaims import parse_reclaim
from seatkeeper.devcluster.etcd_binary import find_etcd
from seatkeeper.devcluster.etcd_process import EtcdNotHealthyError
from seatkeeper.oracle.checker import Violation
from seatkeeper.oracle.witness import Witness

POOLS = {"chaos-1": 4, "chaos-2": 2}
SHARED_POOL = "chaos-1"
"""Its users lend each other seats, and these are called back."""
BUILD_POOL = "chaos-2"
CANARY_POOL = "canary"
CANARY_SEATS = 20
WORKERS = 3
USERS = 8
ELECTION_SECONDS = 3.0
"""How long after a fault a new leader of etcd may still begin."""


@dataclass
class AtWork:
    """Who workers are that start from now on."""

    name: str = ""
    """Empty: those who take seats of the pools without a policy, and of the shared one."""

    def be(self, name: str) -> None:
        """Have them be these."""
        self.name = name


@dataclass
class ProcessEnvironment:
    """Looks after the service between faults."""

    service: ChaosService
    canary: Canary
    faults: Mapping[str, Fault]
    restarts: list[float] = field(default_factory=list)
    grown: Growth = field(default_factory=Growth)

    async def trouble(self) -> str:
        """Return what is not as it should be; empty: all is well."""
        for node in self.service.nodes:
            if node.process.process.poll() is not None:
                return f"{node.name} has ended: {node.process.log.read_text()[-500:]}"
        for member in self.service.etcd.members:
            if not member.running:
                return f"{member.name} has ended: {member.log_tail()}"
            try:
                await member.wait_healthy(0.0)
            except EtcdNotHealthyError:
                return f"{member.name} does not serve"
        agent = self.service.agent
        if agent is not None and agent.process.poll() is not None:
            return f"the agent has ended: {agent.log.read_text()[-500:]}"
        return await self.canary.trouble()

    async def trouble_at_last(self, pools: Iterable[str]) -> str:
        """Return which node grants no seat of a pool of which none is held."""
        return await self.canary.trouble_at_last(pools)

    def lease_restarts(self) -> Sequence[float]:
        """Return when etcd may have had a new leader: while something was wrong, and just after."""
        return self.restarts

    def growth(self) -> Iterator[Violation]:
        """Return which nodes are too large, or grow (I10)."""
        return self.grown.violations()

    def processes(self) -> dict[str, int]:
        """Return the nodes' processes."""
        return {
            node.name: node.server.process.pid
            for node in self.service.nodes
            if node.server is not None
        }

    def noting_restarts(self, fault: Fault) -> Callable[[], AbstractAsyncContextManager[str]]:
        """Return the fault, after which leases may have their whole time again."""

        @asynccontextmanager
        async def noted() -> AsyncIterator[str]:
            self.restarts.append(time.monotonic())
            async with fault() as place:
                yield place
            self.restarts.append(time.monotonic())
            self.restarts.append(time.monotonic() + ELECTION_SECONDS)

        return noted


def open_canary(addresses: Sequence[str], tls: TlsConfig | None) -> Canary:
    """Return a client that takes a seat at every node, from a pool that nothing else uses."""
    return Canary(addresses, CANARY_POOL, tls, time_limit=CANARY_SECONDS)


@asynccontextmanager
async def running_trial(places: Places, folder: Path, seed: int) -> AsyncIterator[Trial]:
    """Start everything, users and builder at work; end all of it afterwards."""
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running_service(places, folder, rng))
        admin = await stack.enter_async_context(service.admin_client())
        for name, seats in {**POOLS, CANARY_POOL: CANARY_SEATS}.items():
            await admin.pools.create(name, seats=seats)
        await policy_pools.make(admin)
        await admin.pools.update(
            SHARED_POOL,
            projects=[parse_project(f"{name}:guaranteed=2") for name in PROJECTS],
            reclaim=parse_reclaim("notice=1,minimum_hold=1,hourly=1000"),
        )
        witness = Witness(service.store, KEYS.prefix)
        await witness.start()
        stack.push_async_callback(witness.stop)
        relays = [await _relay(stack, places, address, rng) for address in service.addresses]
        at_work = AtWork()
        worker_pool = _worker_pool(service, relays, folder, seed, at_work)
        stack.push_async_callback(worker_pool.end)
        canary = open_canary(service.addresses, service.tls)
        stack.push_async_callback(canary.close)
        await service.start_agent(BUILD_POOL)
        await worker_pool.start()
        builder = Builder(service, BUILD_POOL, worker_pool.record)
        stack.push_async_callback(builder.stop)
        builder.start()
        operator = Operator(find_etcd().path, service.etcd, service.store)
        stage = ProcessEnvironment(service, canary, {})
        looking = asyncio.create_task(stage.grown.look_always(stage.processes))
        stack.callback(looking.cancel)
        ours = service_faults(
            *(service, operator, witness, admin, next(iter(POOLS))),
            with_places=places.is_namespaces,
        )
        injected = Injected(service, operator, witness, admin, policy_pools.LENT)
        ours |= policy_faults(injected, worker_pool)
        stage.faults = {name: stage.noting_restarts(fault) for name, fault in ours.items()}
        stage.faults = {
            **stage.faults,
            **faults_of(Network(relays, rng), Users(worker_pool, rng)),
        }
        yield Trial(
            stage,
            worker_pool,
            witness,
            TrialConfig(pools=POOLS, ttl_max=max(HABITS.ttls)),
            Outcome(
                target="three nodes, three etcd members and a build agent, as processes "
                + ("in namespaces of their own" if places.is_namespaces else "on loopback"),
                checked_by="etcd's whole history, and what users observed and believed",
                capacity=sum(POOLS.values()),
            ),
            before_end=builder.stop,
            mixes={
                "": Mix(begin=partial(at_work.be, "")),
                "policy": Mix(
                    begin=partial(at_work.be, "policy"),
                    pools=policy_pools.MOST,
                    settling=policy_pools.SETTLING_SECONDS,
                ),
            },
        )


def _worker_pool(
    service: ChaosService, relays: Sequence[Relay], folder: Path, seed: int, at_work: AtWork
) -> WorkerPool:
    homes: dict[str, Place] = {}

    def config(name: str, number: int) -> WorkerConfig:
        cert, key = service.authority.issue(name)
        is_usual = at_work.name == ""
        return WorkerConfig(
            name=name,
            seed=seed * 1_000_003 + number,
            users=USERS if is_usual else 0,
            agents=1 if is_usual else 0,
            mix=() if is_usual else policy_pools.MIX,
            nodes=[relay.endpoint for relay in relays],
            ring=service.addresses,
            pools=list(POOLS.items()),
            habits=HABITS if is_usual else policy_pools.POLICY_HABITS,
            tls_ca=str(service.tls.ca),
            tls_cert=str(cert),
            tls_key=str(key),
            tls_name=TLS_NAME,
        )

    def commands(name: str) -> Sequence[str]:
        homes[name] = service.places.make(name)
        return homes[name].command

    return WorkerPool(config, workers=WORKERS, folder=folder, commands=commands)


async def _relay(
    stack: AsyncExitStack, places: Places, target: str, rng: random.Random
) -> Relay:
    relay = Relay(target, host=places.hub, rng=rng)
    await relay.start()
    stack.push_async_callback(relay.close)
    return relay
