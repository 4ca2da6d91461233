"""Several nodes' loops of one pool over one store, and what the store says of them afterwards."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from tests.unit.faults import FaultyStore
from tests.unit.kit import (
    KEYS,
    POOL,
    Ear,
    FakeClock,
    create_pool,
    eventually,
    history,
    open_lease,
)

from seatkeeper.oracle.history import PoolHistory
from seatkeeper.server.domain import Command, Denied, Limits, Refusal
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.events.usage import UsageEvent
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Policy
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.context import LoopConfig, PoolContext
from seatkeeper.server.pool.forwarder import Forwarder
from seatkeeper.server.pool.loop import PoolLoop
from seatkeeper.server.pool.subscribers import SeatsGranted, Update
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import MemoryStore

PAUSES = [field.name for field in fields(LoopConfig) if field.name.endswith("_pause")]
SESSIONS = ("anna", "bert", "cora", "dave")


class Tally(Observer):
    """Counts what a loop reports to its operator."""

    def __init__(self) -> None:
        super().__init__()
        self.usage_events: list[UsageEvent] = []
        self.usage.subscribe(self.usage_events.append)
        self.conflicts = 0
        self.unknown = 0
        self.dead: int = 0
        self.store_failures: list[str] = []

    def conflicted(self, pool: str) -> None:
        self.conflicts += 1

    def outcome_unknown(self, pool: str) -> None:
        self.unknown += 1

    def dead_session(self, pool: str) -> None:
        self.dead += 1

    def store_failed(self, pool: str, reason: str) -> None:
        self.store_failures.append(reason)


@dataclass
class NodeLoop:
    """One node's loop, and what is between it and the store."""

    loop: PoolLoop
    store: FaultyStore
    catalogue: PoolCatalogue
    tally: Tally

    def submit(self, command: Command, ear: Ear | None = None) -> Ear:
        """Have a command decided; return its listener."""
        ear = ear or Ear()
        self.loop.submit(command, ear)
        return ear


@dataclass
class Loops:
    """One store in memory and the nodes on it."""

    clock: FakeClock = field(default_factory=FakeClock)
    nodes: list[NodeLoop] = field(default_factory=list)
    store: MemoryStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(now=self.clock.monotonic)

    async def pool(self, seats: int) -> None:
        """Create the pool, or change its capacity; open everybody's lease once."""
        await create_pool(self.store, seats)
        for session in SESSIONS:
            if await self.store.lease_remaining(lease_id_of(session)) is None:
                await open_lease(self.store, session)

    async def node(
        self,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        commands_max: int = 20_000,
        rng: random.Random | None = None,
        is_down: bool = False,
        pause: timedelta = timedelta(0),
        tally: Tally | None = None,
        forwarder: Forwarder | None = None,
        policy: Policy = BY_POOL,
    ) -> NodeLoop:
        """Start one more node's loop. ``pause`` is the batch delay."""
        store = FaultyStore(self.store, rng=rng)
        tally = tally or Tally()
        catalogue = PoolCatalogue(store, KEYS, tally)
        # Without batch delays, unless they are what is tested.
        pauses: dict[str, Any] = dict.fromkeys(PAUSES, pause)
        config = LoopConfig(
            limits=limits or Limits(),
            policy=policy,
            commands_max=commands_max,
            position_interval=timedelta(milliseconds=20),
            catch_up_timeout=timedelta(milliseconds=100),
            **pauses,
        )
        clock = clock or self.clock
        context = PoolContext(POOL, store, KEYS, catalogue, clock, config, tally)
        loop = PoolLoop(context, forwarder)

        def spec_changed(pool: str) -> None:
            if pool == POOL:
                loop.spec_changed()

        catalogue.on_change = spec_changed
        catalogue.start()
        await catalogue.ready()
        store.is_down = is_down
        loop.start()
        if not is_down:
            await loop.listed()
        node = NodeLoop(loop, store, catalogue, tally)
        self.nodes.append(node)
        return node

    async def end_session(self, session: str) -> None:
        """Its lease ends, and its keys go."""
        await self.store.revoke_lease(lease_id_of(session))

    async def checked(self) -> PoolHistory:
        """Return what the store remembers, which must be without fault."""
        judgement = await history(self.store)
        assert judgement.is_correct, judgement.faults
        return judgement

    async def close(self) -> None:
        """Stop every loop."""
        for node in self.nodes:
            await node.loop.stop()
            await node.catalogue.stop()
        await self.store.close()


def granted(ear: Ear) -> list[str]:
    return [update.grant.grant_id for update in ear.answers if isinstance(update, SeatsGranted)]


def kinds(ear: Ear) -> list[type[Update]]:
    return [type(update) for update in ear.answers]


def refusals(ear: Ear) -> list[Refusal]:
    """The reasons of the refusals received."""
    return [update.reason for update in ear.answers if isinstance(update, Denied)]


async def received(ear: Ear, count: int = 1) -> None:
    """Wait until that many answers were received, places in the queue not counted."""
    await eventually(lambda: len(ear.answers) >= count)
