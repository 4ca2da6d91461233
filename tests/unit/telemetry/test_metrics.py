"""What a scrape shows: what is followed now, and everything that was refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.faults import FaultyStore
from tests.unit.kit import NOW, POOL, a_grant, eventually
from tests.unit.services import Services, Stream, refused, running_services

from seatkeeper.server.config import NodeConfig
from seatkeeper.server.domain import Instant
from seatkeeper.server.events.usage import UsageEvent, UsageKind, grant_begins
from seatkeeper.server.node import Node
from seatkeeper.server.pool import router as seats
from seatkeeper.server.store import MemoryStore
from seatkeeper.server.telemetry.metrics import MetricsObserver
from seatkeeper.v1 import pool_service_pb2 as pools_pb
from seatkeeper.v1.pool_service_pb2_grpc import PoolServiceStub

GAUGES = (
    *("seatkeeper_pool_held", "seatkeeper_pool_queued", "seatkeeper_pool_capacity"),
    "seatkeeper_pool_drained",
)
Samples = dict[tuple[str, str], float]


def scraped(observer: MetricsObserver) -> Samples:
    """What Prometheus would read: values by name and by what the labels say."""
    text = generate_latest(observer.registry).decode()
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of_pool(observer: MetricsObserver, pool: str = POOL) -> list[str]:
    return [name for name, label in scraped(observer) if label == pool and name in GAUGES]


@pytest.fixture
def observer() -> MetricsObserver:
    return MetricsObserver()


@asynccontextmanager
async def services(folder: Path, observer: MetricsObserver) -> AsyncIterator[Services]:
    async with running_services(folder, tally=observer) as running:
        yield running


async def test_a_pool_that_is_used_shows_how_full_it_is(
    tmp_path: Path, observer: MetricsObserver
) -> None:
    async with services(tmp_path, observer) as node:
        await node.pool(seats=3)
        await node.acquire(await node.session(), 1, seats=2)
        seen = scraped(observer)
    assert [seen[name, POOL] for name in GAUGES] == [2, 0, 3, 0]
    assert seen["seatkeeper_nodes", ""] == 1
    assert seen["seatkeeper_store_followed", ""] == 1
    assert ("process_open_fds", "") in seen
    assert any(name == "seatkeeper_build_info" for name, _ in seen)


async def test_what_an_advisory_pool_grants_beyond_is_counted_by_rule_and_logged(
    tmp_path: Path, observer: MetricsObserver
) -> None:
    events: list[UsageEvent] = []
    observer.usage.subscribe(events.append)
    async with services(tmp_path, observer) as node:
        wanted = pools_pb.PoolSpec(name=POOL, seats=1)
        wanted.policy.counting.advisory = True
        await node.pools.CreatePool(pools_pb.CreatePoolRequest(spec=wanted))
        who = await node.session()
        for number, wants in enumerate((1, 1, 5), 1):
            await node.acquire(who, number, seats=wants)
        seen = scraped(observer)
        assert seen["seatkeeper_advisory_grants_total", f"{POOL},seats"] == 1
        assert seen["seatkeeper_advisory_grants_total", f"{POOL},capacity"] == 1
        assert seen["seatkeeper_grants_total", POOL] == 3
    marked = [(each.reason, each.hint) for each in events if each.kind is UsageKind.GRANTED]
    assert marked == [
        ("", ""),
        ("seats", "it wants 1 seat, and 1 of 1 were held"),
        ("capacity", "5 seats asked of a pool of 1"),
    ]


async def test_no_gauge_outlives_its_pool(tmp_path: Path, observer: MetricsObserver) -> None:
    async with services(tmp_path, observer) as node:
        await node.pool(seats=1)
        who = await node.session()
        await node.acquire(who, 1)
        await node.release(who, 1)
        assert of_pool(observer)
        await node.pools.DeletePool(pools_pb.DeletePoolRequest(name=POOL), timeout=10)
        await eventually(lambda: not of_pool(observer))
        assert not [name for name, label in scraped(observer) if POOL in label.split(",")]


async def test_no_gauge_outlives_the_use_of_its_pool(
    tmp_path: Path, observer: MetricsObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "IDLE_SWEEP", timedelta(milliseconds=20))
    async with services(tmp_path, observer) as node:
        await node.pool(seats=1)
        who = await node.session()
        await node.acquire(who, 1)
        await node.release(who, 1)
        await eventually(lambda: not of_pool(observer))
        assert scraped(observer)["seatkeeper_grants_total", POOL] == 1


async def test_a_node_that_has_stopped_shows_no_gauge(
    tmp_path: Path, observer: MetricsObserver
) -> None:
    async with services(tmp_path, observer) as node:
        await node.pool(seats=1)
        await node.acquire(await node.session(), 1)
    assert not of_pool(observer)
    assert ("seatkeeper_nodes", "") not in scraped(observer)
    assert ("seatkeeper_session_streams", "") not in scraped(observer)


async def test_without_its_store_a_node_shows_no_old_gauge(
    observer: MetricsObserver,
) -> None:
    memory = MemoryStore()
    store = FaultyStore(memory)
    config = NodeConfig(node_id="node-1", listen="127.0.0.1:0", store="memory", stop_grace=0)
    node = await Node.start(config, store=store, tally=observer)
    try:
        async with grpc.aio.insecure_channel(node.address) as channel:
            spec = pools_pb.PoolSpec(name=POOL, seats=1)
            stub = PoolServiceStub(channel)
            await stub.CreatePool(pools_pb.CreatePoolRequest(spec=spec), timeout=10)
            watch = stub.WatchPool(pools_pb.WatchPoolRequest(name=POOL), timeout=30)
            await watch.read()
            assert of_pool(observer)
            assert await node.why_not_ready() == ""
            store.is_down = True
            memory.end_watches("down")
            await eventually(lambda: not of_pool(observer))
            await eventually(lambda: scraped(observer)["seatkeeper_store_followed", ""] == 0)
            assert ("seatkeeper_nodes", "") not in scraped(observer)
            assert "store" in await node.why_not_ready()
            store.is_down = False
            await eventually(lambda: of_pool(observer))
            watch.cancel()
    finally:
        store.is_down = False
        await node.stop()
    assert await node.why_not_ready() == "draining"


async def test_every_refusal_is_counted_under_a_name_of_ours(
    tmp_path: Path, observer: MetricsObserver
) -> None:
    async with services(tmp_path, observer) as node:
        await node.pool(seats=1)
        who = await node.session()
        await node.acquire(who, 1)
        soon = timedelta(milliseconds=50)
        waiting = asyncio.create_task(refused(node.acquire(who, 2, wait=soon)))
        await eventually(lambda: scraped(observer)["seatkeeper_pool_queued", POOL] == 1)
        node.clock.advance(soon)
        await waiting
        await refused(node.acquire(who, 3, wait=timedelta(0)))
        await refused(node.acquire(who, 4, seats=2))
        await refused(node.acquire(who, 5, pool="made-up-by-a-client"))
        await refused(node.acquire(who, 6, pool="Not A Name"))
        await refused(node.acquire(who.impostor, 7))
        await refused(node.acquire(node.stranger(), 8))
        stream = Stream(node)
        await stream.resume(who)
        await stream.acquire(9, pool="another-made-up")
        await stream.acquire(10, seats=0)
        for _ in range(2):
            await stream.event("denied")
        await stream.break_off()
        seen = scraped(observer)
    denials = {
        label: value
        for (name, label), value in seen.items()
        if name == "seatkeeper_denials_total"
    }
    assert denials == {
        f"{POOL},NO_SEAT_FREE": 2,
        f"{POOL},TOO_MANY_SEATS": 1,
        ",POOL_NOT_FOUND": 2,
        ",INVALID_ARGUMENT": 2,
        ",NOT_YOURS": 1,
        ",SESSION_LOST": 1,
    }
    assert seen["seatkeeper_calls_failed_total", "SeatService/Acquire,PERMISSION_DENIED"] == 1


async def test_strangers_among_the_nodes_are_counted(
    tmp_path: Path, observer: MetricsObserver
) -> None:
    from seatkeeper.internal.v1 import peer_service_pb2
    from seatkeeper.internal.v1.peer_service_pb2_grpc import PeerServiceStub

    async with services(tmp_path, observer) as node:
        async with grpc.aio.insecure_channel(node.node.address) as channel:
            stub = PeerServiceStub(channel)
            await refused(stub.Ping(peer_service_pb2.PingRequest(), timeout=10))
        # A call is counted when it has ended, which its caller may know first.
        denied = ("seatkeeper_denials_total", ",UNAUTHENTICATED")
        await eventually(lambda: scraped(observer).get(denied) == 1)


async def test_waits_of_a_week_have_a_bucket(observer: MetricsObserver) -> None:
    week = 7 * 24 * 3600
    late = Instant(NOW + week * 1000 - 1)
    observer.usage.publish(grant_begins(POOL, replace(a_grant(1), granted_at=late)))
    seen = scraped(observer)
    assert seen["seatkeeper_grant_wait_seconds_bucket", f"{float(week)},{POOL}"] == 1
    assert seen["seatkeeper_grant_wait_seconds_bucket", f"{4 * 24 * 3600.0},{POOL}"] == 0


async def test_streams_are_those_that_are_open(
    tmp_path: Path, observer: MetricsObserver
) -> None:
    async with services(tmp_path, observer) as node:
        stream = Stream(node)
        await stream.open(node.stranger())
        assert scraped(observer)["seatkeeper_session_streams", ""] == 1
        await stream.break_off()
        await eventually(lambda: scraped(observer)["seatkeeper_session_streams", ""] == 0)
