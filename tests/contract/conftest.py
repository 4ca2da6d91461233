"""The two stores behind one handle, so that a test of the contract cannot distinguish them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest

from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store import Change, MemoryStore, Store, WatchBatch
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.etcd.calls import COMPACT, Method, Req, Resp

DEADLINE_SECONDS = 10.0
POLL_SECONDS = 0.01


@dataclass
class Subject:
    """A store under test, and what the world does to it."""

    store: Store
    pass_time: Callable[[timedelta], None]
    """Time goes by. With etcd it does so by itself."""
    compact: Callable[[int], Awaitable[None]]
    """An operator throws the history before a revision away."""
    prefix: str = field(default_factory=lambda: f"/{secrets.token_hex(6)}/")
    """Keys of this test start with it."""

    def new_lease_id(self) -> int:
        """Return an id that no other test uses."""
        return secrets.randbits(62) + 1

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition, which must become true before the deadline."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not await condition():
            assert time.monotonic() < deadline, "the condition did not become true in time"
            await asyncio.sleep(POLL_SECONDS)

    async def changes(
        self, watch: AsyncGenerator[WatchBatch, None], count: int
    ) -> list[tuple[Change, ...]]:
        """Return the next batches with changes, until they hold ``count`` of them."""
        batches: list[tuple[Change, ...]] = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            while sum(map(len, batches)) < count:
                batch = await anext(watch)
                if batch.changes:
                    batches.append(batch.changes)
        return batches


async def call_etcd(endpoint: str, method: Method[Req, Resp], request: Req) -> Resp:
    """Call etcd past the store, as an operator's tool does."""
    async with grpc.aio.insecure_channel(endpoint) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[Req, Resp] = channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return await call(request, timeout=DEADLINE_SECONDS)


@pytest.fixture
async def cluster(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> AsyncIterator[EtcdCluster]:
    """Three members, to be broken."""
    cluster = EtcdCluster(etcd_program, tmp_path, members=3, options=etcd_options)
    await cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture(name="etcd_call")
def etcd_call_fixture() -> Callable[..., Awaitable[object]]:
    """``call_etcd``, for tests that play the operator."""
    return call_etcd


@pytest.fixture(params=["memory", "etcd"])
def shared_etcd(request: pytest.FixtureRequest) -> EtcdCluster | None:
    """The etcd to test, or None for the memory store. Not async: it starts etcd on a loop."""
    return request.getfixturevalue("etcd") if request.param == "etcd" else None


@pytest.fixture
async def subject(shared_etcd: EtcdCluster | None) -> AsyncIterator[Subject]:
    """A store that keeps the contract."""
    subject = _etcd_subject(shared_etcd) if shared_etcd else _memory_subject()
    yield subject
    await subject.store.close()


def _memory_subject() -> Subject:
    now = 1000.0
    store = MemoryStore(now=lambda: now)

    def pass_time(duration: timedelta) -> None:
        nonlocal now
        now += duration.total_seconds()
        store.expire_due()

    async def compact(revision: int) -> None:
        store.compact(revision)

    return Subject(store, pass_time, compact)


def _etcd_subject(etcd: EtcdCluster) -> Subject:
    async def compact(revision: int) -> None:
        request = pb.CompactionRequest(revision=revision, physical=True)
        await call_etcd(etcd.endpoints[0], COMPACT, request)

    store = EtcdStore(EtcdConfig(endpoints=etcd.endpoints))
    return Subject(store, lambda duration: None, compact)
