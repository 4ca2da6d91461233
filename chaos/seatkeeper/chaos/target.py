"""An existing deployment as the environment: only what comes from outside is done to it.

Relays of ours stand between users of ours and its nodes; pools of ours, which are deleted afterwards,
are all that is used. What others do with the deployment is neither touched nor checked, though it has
the load to bear.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from seatkeeper.chaos.faults import Fault, Network, Users, faults_of
from seatkeeper.chaos.relay import Relay
from seatkeeper.chaos.result import Outcome
from seatkeeper.chaos.trial import Trial, TrialConfig
from seatkeeper.chaos.users import Habits
from seatkeeper.chaos.worker import WorkerConfig
from seatkeeper.chaos.worker_pool import WorkerPool
from seatkeeper.client import (
    AsyncSeatClient,
    ClientConfig,
    SeatError,
    ServiceUnavailable,
    TlsConfig,
)
from seatkeeper.oracle.checker import Violation
from seatkeeper.oracle.stored import pool_key
from seatkeeper.oracle.witness import Witness
from seatkeeper.server.store import Store, StoreRefused

CANARY_SECONDS = 3.0
"""How long a node may take to serve somebody whom nothing stands between."""
CONNECT_SECONDS = 5.0
"""How long to look for a node before it is said that there is none."""
DELETE_TRIES = 15
HABITS = Habits(
    pause=0.05,
    holds=(0.05, 0.1, 0.3, 0.6),
    hold_max=10.0,
    waits=(0.0, 0.5, 3.0, 5.0),
    time_limit=4.0,
)
"""Users who keep a service busy."""


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """Where a deployment is, and how hard it is used."""

    nodes: Sequence[str]
    tls: TlsConfig | None = None
    workers: int = 3
    users: int = 8
    """In each worker."""
    pools: int = 2
    seats: int = 4
    """In each pool."""
    rate_min: float = 10.0
    seed: int = 0


class Canary:
    """Somebody who takes a seat at each node, one after the other, to see whether it works."""

    def __init__(
        self, nodes: Sequence[str], pool: str, tls: TlsConfig | None, *, time_limit: float
    ) -> None:
        self._pool = pool
        self._time_limit = time_limit
        config = ClientConfig(
            follow_ring=False,
            keeper="process",
            connect_timeout=timedelta(seconds=time_limit),
            call_timeout=timedelta(seconds=time_limit),
        )
        self._clients = {
            node: AsyncSeatClient(node, holder="canary", tls=tls, config=config)
            for node in nodes
        }

    async def trouble(self) -> str:
        """Return which node does not serve, and why; empty: all do."""
        tries = [self._try(client, self._pool) for client in self._clients.values()]
        results = await asyncio.gather(*tries)
        reported = zip(self._clients, results, strict=True)
        return "; ".join(f"{node}: {why}" for node, why in reported if why)

    async def trouble_at_last(self, pools: Iterable[str]) -> str:
        """Return which node grants no seat of one of these pools, of which none is held."""
        reported = [
            f"{node}: {pool}: {why}"
            for node, client in self._clients.items()
            for pool in pools
            if (why := await self._try(client, pool))
        ]
        return "; ".join(reported)

    async def close(self) -> None:
        """Close its clients."""
        for client in self._clients.values():
            await client.close()

    async def _try(self, client: AsyncSeatClient, pool: str) -> str:
        try:
            async with asyncio.timeout(2 * self._time_limit):
                async with client.seat(pool, wait=self._time_limit):
                    return ""
        except (SeatError, TimeoutError) as error:
            return str(error) or "no answer"


@dataclass
class TargetEnvironment:
    """What can be done to a deployment from outside."""

    canary: Canary
    faults: Mapping[str, Fault] = field(default_factory=dict)

    async def trouble(self) -> str:
        """Return which node does not serve; empty: all do."""
        return await self.canary.trouble()

    async def trouble_at_last(self, pools: Iterable[str]) -> str:
        """Return which node grants no seat of a pool of which none is held."""
        return await self.canary.trouble_at_last(pools)

    def lease_restarts(self) -> Sequence[float]:
        """Return nothing: an election cannot be caused from here."""
        return ()

    def growth(self) -> Iterator[Violation]:
        """Return nothing: the size of a node cannot be seen from here."""
        return iter(())


@asynccontextmanager
async def trial_of(
    config: TargetConfig,
    store: Store | None,
    prefix: str,
    folder: Path,
    *,
    notify: Callable[[str], None] = lambda text: None,
) -> AsyncIterator[Trial]:
    """Begin a trial of a deployment; its users work, until the end of this.

    ``store``: its etcd, to check its history by; None: only what users observed is checked. Logs go
    to ``folder``; ``notify`` is called with messages for people. Raises ``SeatError``,
    ``WorkerPoolError`` or ``StoreError`` where it cannot begin.
    """
    rng = random.Random(config.seed)
    run_id = f"{random.SystemRandom().getrandbits(32):08x}"
    pools = {f"chaos-{run_id}-{number}": config.seats for number in range(1, config.pools + 1)}
    canary_pool = f"chaos-{run_id}-canary"
    async with AsyncExitStack() as stack:
        admin = AsyncSeatClient(
            config.nodes,
            tls=config.tls,
            config=ClientConfig(
                connect_timeout=timedelta(seconds=CONNECT_SECONDS), keeper="process"
            ),
        )
        await stack.enter_async_context(admin)
        for name, seats in {**pools, canary_pool: 2 * len(config.nodes)}.items():
            await admin.pools.create(name, seats=seats)
            stack.push_async_callback(_delete_pool, admin, name, notify)
        relays = [await _relay(stack, node, rng) for node in config.nodes]
        witness = None
        if store is not None:
            witness = Witness(store, prefix)
            await witness.start()
            stack.push_async_callback(witness.stop)
            if not any(
                change.key == pool_key(canary_pool, prefix) for change in witness.changes
            ):
                raise StoreRefused(
                    f"our pools are not below {prefix}/: is it the deployment's etcd, "
                    "and is its prefix right?"
                )
        worker_pool = WorkerPool(
            lambda name, number: worker_config(
                *(name, number, [relay.endpoint for relay in relays], pools), config
            ),
            workers=config.workers,
            folder=folder,
        )
        stack.push_async_callback(worker_pool.end)
        canary = Canary(config.nodes, canary_pool, config.tls, time_limit=CANARY_SECONDS)
        stack.push_async_callback(canary.close)
        if trouble := await canary.trouble():
            raise ServiceUnavailable(f"not all of it serves: {trouble}")
        await worker_pool.start()
        faults = faults_of(Network(relays, rng), Users(worker_pool, rng))
        yield Trial(
            TargetEnvironment(canary, faults),
            worker_pool,
            witness,
            TrialConfig(
                pools=pools,
                ttl_max=max(HABITS.ttls),
                rate_min=config.rate_min,
            ),
            Outcome(
                target=f"the deployment at {', '.join(config.nodes)}",
                checked_by="etcd's whole history, and what users observed"
                if store
                else "what users observed and believed; etcd's history was not given",
                capacity=sum(pools.values()),
            ),
            notify=notify,
        )


def worker_config(
    name: str, number: int, nodes: Sequence[str], pools: Mapping[str, int], config: TargetConfig
) -> WorkerConfig:
    """Return the configuration of one worker."""
    tls = config.tls
    return WorkerConfig(
        name=name,
        seed=config.seed * 1_000_003 + number,
        users=config.users,
        nodes=nodes,
        pools=list(pools.items()),
        habits=HABITS,
        tls_ca=str(tls.ca or "") if tls else "",
        tls_cert=str(tls.cert or "") if tls else "",
        tls_key=str(tls.key or "") if tls else "",
        tls_name=(tls.server_name or "") if tls else "",
    )


async def _relay(stack: AsyncExitStack, node: str, rng: random.Random) -> Relay:
    relay = Relay(node, rng=rng)
    await relay.start()
    stack.push_async_callback(relay.close)
    return relay


async def _delete_pool(
    admin: AsyncSeatClient, name: str, notify: Callable[[str], None]
) -> None:
    """Delete a pool of ours, as soon as the seats of killed users are free."""
    for _ in range(DELETE_TRIES):
        try:
            await admin.pools.delete(name)
        except ServiceUnavailable:
            break
        except SeatError:
            await asyncio.sleep(1.0)
        else:
            return
    notify(f"pool {name} is ours, and could not be deleted: `seatkeeper pool delete {name}`")
