"""A random workload on the real loop: log, metrics and history report the same things, once each."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.kit import KEYS, Ear, acquire, eventually, release
from tests.unit.loops import SESSIONS, Loops, NodeLoop, Tally

from seatkeeper.oracle.history import read_history
from seatkeeper.server.domain import Command, Release
from seatkeeper.server.events.history import usage_events
from seatkeeper.server.events.usage import BEGINS, ENDS, UsageEvent, UsageKind
from seatkeeper.server.routing.peers import Decided, PeerSilent
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Change, Put
from seatkeeper.server.telemetry.metrics import MetricsObserver

SEATS = 3
REQUESTS = 60
CHANGES = BEGINS | ENDS | {UsageKind.QUEUED, UsageKind.CANCELLED, UsageKind.GAVE_UP}
"""What the history has all of."""
Happening = tuple[UsageKind, str, int]


class OneOwner:
    """The ring of nodes that cannot reach each other: each decides, and the first owns the pool."""

    def __init__(self, is_owner: bool) -> None:
        self._is_owner = is_owner

    def owner(self, pool: str) -> str | None:
        return "node-1"

    def owner_elsewhere(self, pool: str) -> str | None:
        return None if self._is_owner else "node-1"

    async def decide(
        self, node_id: str, pool: str, commands: Sequence[Command], peers: Sequence[str] = ()
    ) -> Decided:
        raise PeerSilent


class Service:
    """Nodes, their metrics, and clients that ask at random."""

    def __init__(self, loops: Loops, rng: random.Random) -> None:
        self.loops = loops
        self.metrics = MetricsObserver()
        self._rng = rng
        self._number = 0

    async def start(self, nodes: int, *, fault_rate: float = 0.0) -> None:
        await self.loops.pool(seats=SEATS)
        for session in SESSIONS:
            key = KEYS.session(session)
            await self.loops.store.commit([Put(key, b"", lease_id_of(session))])
        for number in range(nodes):
            tally = Tally()
            tally.usage.subscribe(self.metrics._count_usage)
            rng, owner = random.Random(number), OneOwner(is_owner=number == 0)
            node = await self.loops.node(rng=rng, tally=tally, forwarder=owner)
            node.store.fault_rate = fault_rate

    @property
    def published(self) -> list[UsageEvent]:
        return [event for node in self.loops.nodes for event in node.tally.usage_events]

    async def work(self) -> None:
        """Ask, give back, give up, refuse, and let a session end; return when all is answered."""
        ears: list[Ear] = []
        for turn in range(REQUESTS):
            ears.append(self._one_request())
            for _ in range(self._rng.randrange(20)):
                await asyncio.sleep(0)
            if turn % 10 == 9:
                self.loops.clock.advance(timedelta(seconds=1))
                for node in self.loops.nodes:
                    node.loop.ring_changed()  # looks at its timer
            if turn == REQUESTS // 2:
                await self.loops.end_session("dave")
        for node in self.loops.nodes:
            node.store.fault_rate = 0.0
        for ear in ears:
            await eventually(lambda ear=ear: ear.received)
        await self._settle()

    def _one_request(self) -> Ear:
        rng, node = self._rng, self._rng.choice(self.loops.nodes)
        held = list(node.loop.state.grants.values())
        if held and rng.random() < 0.3:
            grant = rng.choice(held)
            return node.submit(Release(grant.grant_id, grant.session_id, grant.lease_id))
        if self._number and rng.random() < 0.2:
            number = rng.randrange(1, self._number + 1)
            return node.submit(release(number, SESSIONS[number % len(SESSIONS)]))
        self._number += 1
        session = SESSIONS[self._number % len(SESSIONS)]
        wait = rng.choice([None, timedelta(seconds=1), timedelta(seconds=2)])
        seats = rng.choice([1, 1, 2, SEATS + 1])
        may_wait = rng.random() < 0.7
        return node.submit(
            acquire(self._number, session, seats=seats, wait=wait, may_wait=may_wait)
        )

    async def _settle(self) -> None:
        """Wait until every node has seen the last decision."""
        loops = self.loops

        def same_view() -> bool:
            views = [(n.loop.state.guard, set(n.loop.state.grants)) for n in loops.nodes]
            return all(view == views[0] for view in views) and not _can_serve(loops.nodes[0])

        await eventually(same_view)
        for _ in range(20):
            await asyncio.sleep(0)

    def counts(self) -> Counter[UsageKind]:
        """What Prometheus would read of usage events, by kind."""
        found: Counter[UsageKind] = Counter()
        for labels, value in self._samples("seatkeeper_usage_events_total"):
            found[UsageKind(labels["kind"])] += int(value)
        return found

    def total(self, name: str) -> int:
        return int(sum(value for _, value in self._samples(name)))

    def _samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        text = generate_latest(self.metrics.registry).decode()
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]

    async def history(self) -> list[UsageEvent]:
        """What the store remembers, as events."""
        return usage_events(await self.changes(), KEYS, seen_at=self.loops.clock.now())

    async def changes(self) -> list[Change]:
        reading = asyncio.create_task(read_history(self.loops.store, KEYS.prefix))
        while not reading.done():
            await asyncio.sleep(0)
            self.loops.store.expire_due()
        return await reading


def _can_serve(node: NodeLoop) -> bool:
    return node.loop._work.look() is not None


def happenings(events: Iterable[UsageEvent]) -> Counter[Happening]:
    """The begins and ends among events."""
    return Counter((e.kind, e.grant_id, e.fence) for e in events if e.kind in CHANGES)


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("seed", range(6))
async def test_log_metrics_and_history_agree(
    seed: int, nodes: int, loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "seatkeeper.events")
    service = Service(loops, random.Random(f"{seed}/{nodes}"))
    await service.start(nodes)
    await service.work()

    lines = Counter(record.message for record in caplog.records)
    counts = service.counts()
    assert {kind: lines[kind.value] for kind in UsageKind if lines[kind.value]} == counts
    assert service.total("seatkeeper_grants_total") == counts[UsageKind.GRANTED]
    refused = counts[UsageKind.DENIED] + counts[UsageKind.GAVE_UP]
    assert service.total("seatkeeper_denials_total") == refused

    held = len(loops.nodes[0].loop.state.grants)
    ended = sum(counts[kind] for kind in ENDS)
    assert counts[UsageKind.GRANTED] == ended + held > 0

    history = await service.history()
    assert happenings(history) == happenings(service.published)
    assert counts[UsageKind.RELEASED]
    assert counts[UsageKind.DENIED]


@pytest.mark.parametrize("seed", range(6))
async def test_unmet_demand_is_in_the_history(seed: int, loops: Loops) -> None:
    """Who wanted a seat and got none is there, with the request's attribution."""
    service = Service(loops, random.Random(f"demand/{seed}"))
    await service.start(2)
    await service.work()

    def unmet(events: Iterable[UsageEvent]) -> Counter[tuple[object, ...]]:
        kinds = {UsageKind.DENIED, UsageKind.GAVE_UP}
        return Counter(
            (e.kind, e.grant_id, e.attribution, e.seats)
            for e in events
            if e.kind in kinds and e.reason == "NO_SEAT_FREE"
        )

    there = unmet(await service.history())
    assert there == unmet(service.published)
    assert {event[0] for event in there} >= {UsageKind.DENIED}


@pytest.mark.parametrize("seed", range(6))
async def test_lost_answers_publish_nothing_twice_and_nothing_untrue(
    seed: int, loops: Loops
) -> None:
    """A node that cannot know what became of a commit may miss an event; the history has it."""
    service = Service(loops, random.Random(f"faults/{seed}"))
    await service.start(1 + seed % 3, fault_rate=0.3)
    await service.work()

    history, published = happenings(await service.history()), happenings(service.published)
    assert published - history == Counter()
    if seed % 3 == 0:  # alone, a node sees the outcome of every commit of its own
        assert history == published
