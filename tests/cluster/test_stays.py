"""Seats that are kept after a release or a loss: real nodes, real clients, by etcd's own history."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from tests.cluster.conftest import Cluster
from tests.cluster.holder import holder
from tests.cluster.test_reclaim import TTL, WITHIN, Keeper
from tests.processes import eventually

from seatkeeper.client import AsyncSeatClient, ClientConfig, HoldingState, UsageError
from seatkeeper.client.admin.stays import parse_stay
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

WINDOW = 3.0
LATE = 2.0
"""What the service may take beyond ttl and window."""


def client(
    cluster: Cluster, who: str, node: int = 0, *, keeper: Keeper = "process"
) -> AsyncSeatClient:
    config = ClientConfig(ttl=TTL, keeper=keeper)
    return AsyncSeatClient(cluster.addresses[node], holder=who, project="cv", config=config)


async def a_pool(cluster: Cluster, rule: str) -> str:
    name = await cluster.pool(seats=1)
    async with client(cluster, "admin") as admin:
        await admin.pools.update(name, stay=parse_stay(rule))
    return name


async def seen(cluster: Cluster, pool: str, node: int = 0) -> None:
    """Wait until somebody waits for the pool."""
    while not (await cluster.look(pool, cluster.addresses[node])).queued:  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.05)


async def lose(cluster: Cluster, pool: str, grant_id: str) -> None:
    """End the lease of the session that holds a grant, as if it was not renewed."""
    store = EtcdStore(EtcdConfig(endpoints=cluster.service.etcd.endpoints))
    try:
        entry = await store.get(cluster.keys.grant(pool, grant_id))
        assert entry is not None
        await store.revoke_lease(state_pb2.GrantRecord.FromString(entry.value).lease_id)
    finally:
        await store.close()


async def test_the_seat_of_a_killed_holder_is_free_after_the_delay_and_not_before(
    cluster: Cluster,
) -> None:
    pool, ttl = await a_pool(cluster, f"lock_delay={WINDOW:g}"), 3.0
    async with holder(cluster.addresses[0], pool, ttl) as process, client(cluster, "b", 1) as b:
        taking = asyncio.create_task(b.acquire(pool, wait=WITHIN))
        async with asyncio.timeout(WITHIN):
            await seen(cluster, pool)
        process.kill()
        killed_at = time.monotonic()
        async with asyncio.timeout(WITHIN):
            while not (await cluster.look(pool, cluster.addresses[2])).kept:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
            lost_at = time.monotonic()
            shown = (await cluster.look(pool)).grants[0].kept
            while not shown.HasField("until"):
                shown = (await cluster.look(pool)).grants[0].kept
            assert shown.rule == "lock_delay"
            (waits,) = (await cluster.look(pool)).tickets
            why = await b.pools.explain(pool, waits.grant_id)
            assert why.reason.rule == "stay"
            grant = await taking
        now = time.monotonic()
        assert now - lost_at >= WINDOW - 0.5, "it was looked for every 50 ms"
        assert now - killed_at <= ttl + LATE + WINDOW
        assert grant.state is HoldingState.SAFE
    assert (await cluster.checked(pool)).max_out == 1


async def test_a_released_seat_is_kept_for_its_holder(cluster: Cluster) -> None:
    pool = await a_pool(cluster, "linger=60")
    async with client(cluster, "a") as a, client(cluster, "b", 1) as b:
        grant = await a.acquire(pool)
        taking = asyncio.create_task(b.acquire(pool, wait=WITHIN))
        async with asyncio.timeout(WITHIN):
            await seen(cluster, pool)
        await grant.release()
        async with client(cluster, "a", 2) as again:
            back = await again.acquire(pool, wait=0)
            assert back.fence == grant.fence + 1
            assert (await cluster.look(pool)).held == 1
            await back.release()
        (kept,) = (await cluster.look(pool)).grants
        assert kept.kept.rule == "linger"
        assert not taking.done()
        await a.pools.release_now(pool, kept.grant_id, reason="they went home")
        await taking
    assert (await cluster.checked(pool)).max_out == 1


@pytest.mark.parametrize("keeper", ["helper", "process"])
async def test_a_lost_grant_is_taken_again_with_a_new_fence(
    cluster: Cluster, keeper: Keeper
) -> None:
    pool = await a_pool(cluster, "resurrection=60")
    async with client(cluster, "a", keeper=keeper) as a, client(cluster, "b", 1) as b:
        grant = await a.acquire(pool)
        with pytest.raises(UsageError, match="not lost"):
            await a.take_again(grant)
        taking = asyncio.create_task(b.acquire(pool, wait=WITHIN))
        async with asyncio.timeout(WITHIN):
            await seen(cluster, pool)
            await lose(cluster, pool, grant.grant_id)
            await eventually(lambda: grant.state is HoldingState.LOST)
            back = await a.take_again(grant)
        assert back.grant_id == grant.grant_id
        assert back.fence > grant.fence
        assert back.state is HoldingState.SAFE
        assert grant.state is HoldingState.LOST
        assert not taking.done()
        (held,) = (await cluster.look(pool)).grants
        assert held.continues_fence == grant.fence
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
    assert (await cluster.checked(pool)).max_out == 1


async def test_one_that_is_kept_no_more_is_asked_for_as_any_other(cluster: Cluster) -> None:
    pool = await a_pool(cluster, "linger=1")
    async with client(cluster, "a") as a:
        grant = await a.acquire(pool)
        await lose(cluster, pool, grant.grant_id)
        async with asyncio.timeout(WITHIN):
            await eventually(lambda: grant.state is HoldingState.LOST)
            back = await a.take_again(grant, wait=timedelta(seconds=WITHIN))
        assert back.fence > grant.fence
    await cluster.checked(pool)
