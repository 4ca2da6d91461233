"""That a replay grants what the real loop grants: the same clients, to both, in virtual time."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from unittest import mock

import pytest
from tests.policies.trial import DRAWING, TrialStore, VirtualClock
from tests.simulation.world import World
from tests.unit.kit import KEYS, POOL, open_lease, uuid7

from seatkeeper.server.domain import (
    Acquire,
    Attribution,
    Denied,
    Grant,
    Instant,
    PoolPolicy,
    PoolSpec,
    ProjectShare,
    Refusal,
    Release,
)
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.context import LoopConfig, PoolContext
from seatkeeper.server.pool.loop import PoolLoop
from seatkeeper.server.pool.subscribers import SeatsGranted, Update
from seatkeeper.server.replay.demand import Arrival
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.replay import replay
from seatkeeper.server.replay.request import Request
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Put, records

TICK = 100
"""Milliseconds. No two moments of a demand are closer; the loop needs a few for what it does."""
SHARED = PoolPolicy(
    (
        ProjectShare(project="cv", guaranteed=2),
        ProjectShare(project="nlp", guaranteed=1, limit=3),
        ProjectShare(project="asr", weight=2),
    )
)
Fates = list[tuple[str, Refusal | None]]
"""By arrival: when it got its seats, in ticks, or nothing; and why it was denied."""


@dataclass
class Answer:
    """What one client is answered: seats, or a denial."""

    came: asyncio.Event = field(default_factory=asyncio.Event)
    update: SeatsGranted | Denied | None = None

    def receive(self, pool: str, update: Update) -> None:
        if isinstance(update, SeatsGranted | Denied):
            self.update = update
            self.came.set()

    def expect(self, pool: str, grant: Grant) -> None:
        pass


class RealPool:
    """The loop of one node over a store in memory, and clients that do as a demand says."""

    def __init__(self, policy: PoolPolicy, seats: int, demand: list[Arrival]) -> None:
        self._world = World(1)
        self._store = TrialStore(self._world)
        self._spec = PoolSpec(POOL, seats, policy=policy)
        self._demand = demand
        self._began = 0.0
        self._fates: dict[int, tuple[str, Refusal | None]] = {}

    def run(self) -> Fates:
        process = self._world.process("service")
        with ExitStack() as stack:
            for module in DRAWING:
                stack.enter_context(mock.patch.object(module, "random", random.Random(1)))
            task = process.start(self._live())
            self._world.run(float("inf"), done=task.done)
            task.result()
        assert not self._world.errors
        return [self._fates[number] for number in range(len(self._demand))]

    async def _live(self) -> None:
        await self._store.commit([Put(KEYS.pool(POOL), records.encode_spec(self._spec))])
        catalogue = PoolCatalogue(self._store, KEYS, Observer())
        around = (catalogue, VirtualClock(self._world), LoopConfig(), Observer())
        loop = PoolLoop(PoolContext(POOL, self._store, KEYS, *around))
        catalogue.on_change = lambda pool: loop.spec_changed()
        catalogue.start()
        await catalogue.ready()
        loop.start()
        await loop.listed()
        self._began = self._world.now
        await asyncio.gather(*(self._client(loop, *each) for each in enumerate(self._demand)))
        await loop.stop()
        await catalogue.stop()

    async def _client(self, loop: PoolLoop, number: int, arrival: Arrival) -> None:
        """Ask at its time, hold for so long from the tick of the grant on, and give back."""
        session = f"session-{number}"
        await open_lease(self._store, session, timedelta(days=365))
        await self._sleep_until(arrival.at)
        wait = arrival.wait_millis
        asked = Acquire(
            uuid7(number + 1),
            session,
            lease_id_of(session),
            Attribution(arrival.project, arrival.project, arrival.priority),
            arrival.seats,
            None if wait is None else timedelta(milliseconds=wait),
            wait != 0,
        )
        answer = Answer()
        loop.submit(asked, answer)
        await answer.came.wait()
        if isinstance(answer.update, Denied):
            self._fates[number] = ("", answer.update.reason)
            return
        tick = int(self._millis() // TICK)
        self._fates[number] = (f"tick {tick}", None)
        await self._sleep_until(tick * TICK + arrival.hold_millis)
        released = Answer()
        loop.submit(Release(asked.grant_id, session, asked.lease_id), released)

    def _millis(self) -> float:
        return 1000 * (self._world.now - self._began)

    async def _sleep_until(self, millis: int) -> None:
        # A moment late rather than early, so that a tick is not the one before.
        await asyncio.sleep((millis + 1 - self._millis()) / 1000)


@pytest.mark.parametrize("policy", [PoolPolicy(), SHARED], ids=["fifo", "shares"])
@pytest.mark.parametrize("seed", range(6))
def test_a_replay_grants_what_the_loop_grants(policy: PoolPolicy, seed: int) -> None:
    demand, outcome = a_demand(policy, seed)
    expected: Fates = [
        ("" if each.granted_at is None else f"tick {each.granted_at // TICK}", each.refusal)
        for each in outcome.requests
    ]
    assert sum(bool(when) for when, _ in expected) > 20
    assert any(each.wait_millis for each in outcome.requests), "some wait"
    assert {Refusal.NO_SEAT_FREE, Refusal.TOO_MANY_SEATS} <= {why for _, why in expected}
    assert RealPool(policy, 5, demand).run() == expected


def a_demand(policy: PoolPolicy, seed: int) -> tuple[list[Arrival], Outcome]:
    """Draw a demand in which no two things happen in one tick, where chance would order them."""
    rng = random.Random(seed)
    while True:
        demand = [
            Arrival(
                at=Instant(TICK * at),
                project=rng.choice(["cv", "nlp", "asr"]),
                hold_millis=TICK * rng.randrange(50, 1500),
                seats=rng.choice([1, 1, 1, 1, 1, 2, 2, 3, 3, 6]),
                wait_millis=rng.choice([None, None, 0, TICK * rng.randrange(20, 300)]),
                priority=rng.choice([0, 0, 1]),
            )
            for at in sorted(rng.sample(range(10, 2000), 60))
        ]
        outcome = replay(PoolSpec(POOL, 5, policy=policy), demand)
        moments: list[int] = [each.at for each in demand]
        moments += [each.ended_at or 0 for each in outcome.requests if not is_at_once(each)]
        if len(set(moments)) == len(moments):
            return demand, outcome


def is_at_once(request: Request) -> bool:
    """Whether it was denied when it came."""
    return request.granted_at is None and request.ended_at == request.arrival.at
