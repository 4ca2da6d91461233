"""A full database: puts are refused, deletions work, and no commit is called failed that was made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store import Delete, OutcomeUnknown, Put, StoreFull
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.etcd.calls import ALARM, COMPACT, DEFRAGMENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

QUOTA_BYTES = 4 * 1024 * 1024
VALUE = bytes(50_000)


@pytest.fixture
async def small_etcd(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> AsyncIterator[EtcdCluster]:
    options = replace(etcd_options, quota_bytes=QUOTA_BYTES)
    cluster = EtcdCluster(etcd_program, tmp_path, options=options)
    await cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture
async def store(small_etcd: EtcdCluster) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(EtcdConfig(endpoints=small_etcd.endpoints))
    yield store
    await store.close()


async def fill(store: EtcdStore) -> dict[str, str]:
    """Write until the store is full; return what became of each key."""
    outcomes: dict[str, str] = {}

    async def write(worker: int) -> None:
        for n in range(100):
            key = f"/{worker:02d}/{n:03d}"
            try:
                await store.commit([Put(key, VALUE)])
            except StoreFull:
                outcomes[key] = "refused"
                return
            except OutcomeUnknown:
                outcomes[key] = "unknown"
            else:
                outcomes[key] = "made"

    await asyncio.gather(*map(write, range(16)))
    return outcomes


async def test_when_it_is_full_deletions_work_and_an_operator_can_free_it(
    small_etcd: EtcdCluster,
    store: EtcdStore,
    etcd_call: Callable[..., Awaitable[pb.AlarmResponse]],
) -> None:
    await store.grant_lease(1, timedelta(seconds=60))
    await store.commit([Put("/leased", b"", lease_id=1)])
    assert await store.alarms() == frozenset()
    outcomes = await fill(store)
    assert "refused" in outcomes.values()

    with pytest.raises(StoreFull):
        await store.commit([Put("/more", VALUE), Delete("/leased")])
    assert await store.get("/leased") is not None
    assert await store.alarms() == {"NOSPACE"}
    assert (await store.health()).alarms == {"NOSPACE"}
    assert await store.keep_alive(1) == timedelta(seconds=60)
    await store.revoke_lease(1)
    assert await store.get("/leased") is None
    made = [key for key, outcome in outcomes.items() if outcome == "made"]
    for at in range(0, len(made), 100):
        done = await store.commit([Delete(key) for key in made[at : at + 100]])
    assert not set(made) & {entry.key for entry in (await store.list("/")).entries}

    # Freeing: compact, defragment, end the alarm.
    (endpoint,) = small_etcd.endpoints
    await etcd_call(
        endpoint, COMPACT, pb.CompactionRequest(revision=done.revision, physical=True)
    )
    await etcd_call(endpoint, DEFRAGMENT, pb.DefragmentRequest())
    for alarm in (await etcd_call(endpoint, ALARM, pb.AlarmRequest())).alarms:
        disarm = pb.AlarmRequest(
            action=pb.AlarmRequest.DEACTIVATE, alarm=alarm.alarm, member_id=alarm.member_id
        )
        await etcd_call(endpoint, ALARM, disarm)
    assert (await store.commit([Put("/more", VALUE)])).succeeded
    assert await store.alarms() == frozenset()


async def test_no_commit_is_called_failed_that_was_made(store: EtcdStore) -> None:
    """etcd applies the transaction that crosses its quota, and answers it with "full"."""
    outcomes = await fill(store)
    there = {entry.key for entry in (await store.list("/")).entries}
    assert {key for key, outcome in outcomes.items() if outcome == "made"} <= there
    assert not {key for key, outcome in outcomes.items() if outcome == "refused"} & there
