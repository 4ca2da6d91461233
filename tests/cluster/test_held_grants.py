"""Grants that are revoked, held for too long or idle: real nodes, real clients, etcd's history."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from tests.cluster.conftest import Cluster
from tests.cluster.test_reclaim import TTL, WITHIN, Keeper, believed, client
from tests.processes import eventually

from seatkeeper.client import AsyncGrant, HoldingState, SeatLost
from seatkeeper.client.admin.holds import parse_hold
from seatkeeper.core.errors import InUse

NOTICE = timedelta(seconds=1)
WHY = "the release needs it"


def lease_of(grant: AsyncGrant) -> float:
    """Return until when its holder may believe in it, which each renewal moves on."""
    times = grant.lease_times()
    assert times is not None, "it is lost"
    return times[0]


@pytest.mark.parametrize("keeper", ["helper", "process"])
async def test_a_grant_of_a_plain_pool_is_revoked(cluster: Cluster, keeper: Keeper) -> None:
    pool = await cluster.pool(seats=1)
    states: list[HoldingState] = []
    async with (
        client(cluster, "vision", keeper=keeper) as holder,
        client(cluster, "nlp", 1, keeper=keeper) as asker,
    ):
        grant = await holder.acquire(pool, on_state=states.append)
        first = lease_of(grant)
        async with asyncio.timeout(WITHIN):  # it was renewed since, as any other
            await eventually(lambda: lease_of(grant) > first)
        taking = asyncio.create_task(asker.acquire(pool, wait=WITHIN))
        asked_at = time.monotonic()
        await asker.pools.revoke(pool, grant.grant_id, notice=NOTICE, reason=WHY)
        async with asyncio.timeout(WITHIN):
            await eventually(lambda: HoldingState.RECLAIMING in states)
        assert grant.reclaim is not None
        assert WHY in grant.reclaim.message
        due = await taking
        assert not believed(grant), "before another had it"
        assert time.monotonic() - asked_at >= NOTICE.total_seconds()
        with pytest.raises(SeatLost, match=WHY):
            grant.raise_if_lost()
        assert due.fence > grant.fence
    await cluster.checked(pool)


@pytest.mark.parametrize("keeper", ["helper", "process"])
async def test_a_revoke_that_is_withdrawn_leaves_the_grant(
    cluster: Cluster, keeper: Keeper
) -> None:
    pool = await cluster.pool(seats=1)
    states: list[HoldingState] = []
    async with client(cluster, "vision", keeper=keeper) as holder:
        grant = await holder.acquire(pool, on_state=states.append)
        notice = timedelta(seconds=30)
        await holder.pools.revoke(pool, grant.grant_id, notice=notice, reason=WHY)
        async with asyncio.timeout(WITHIN):
            await eventually(lambda: HoldingState.RECLAIMING in states)
            await holder.pools.withdraw_revoke(pool, grant.grant_id, reason="not needed")
            await eventually(lambda: states[-1] is HoldingState.SAFE)
            then = lease_of(grant)
            await eventually(lambda: lease_of(grant) > then + 1.5 * TTL.total_seconds())
        assert believed(grant)
        await grant.release()
    await cluster.checked(pool)


async def test_a_client_that_does_not_know_it_is_not_revoked(cluster: Cluster) -> None:
    from seatkeeper.core.ids import new_id
    from seatkeeper.v1 import seat_pb2
    from seatkeeper.v1 import seat_service_pb2 as pb

    pool = await cluster.pool(seats=1)
    async with client(cluster, "vision") as user:
        credentials = pb.SessionCredentials(session_id=new_id(), secret=b"x" * 16)
        await user.seats.open_session(credentials, holder="old")
        asked = seat_pb2.Acquire(pool=pool, grant_id=new_id(), seats=1)
        granted = await user.seats.acquire(credentials, asked)
        with pytest.raises(InUse, match="--now"):
            await user.pools.revoke(pool, granted.grant_id, notice=NOTICE, reason=WHY)
        await user.pools.release_now(pool, granted.grant_id, reason=WHY)
        await user.seats.close_session(credentials)


@pytest.mark.parametrize("keeper", ["helper", "process"])
async def test_what_is_held_for_too_long_ends_and_an_extension_puts_it_off(
    cluster: Cluster, keeper: Keeper
) -> None:
    pool = await cluster.pool(seats=2)
    states: list[HoldingState] = []
    async with client(cluster, "vision", keeper=keeper) as holder:
        await holder.pools.update(pool, hold=parse_hold("longest=6s,warning=1s"))
        first = await holder.acquire(pool, on_state=states.append)
        second = await holder.acquire(pool)
        assert first.longest_hold == timedelta(seconds=6)
        await holder.pools.extend(
            pool, second.grant_id, by=timedelta(hours=1), reason="nearly done"
        )
        began = time.monotonic()
        async with asyncio.timeout(WITHIN):
            await eventually(lambda: not believed(first))
        assert HoldingState.RECLAIMING in states
        assert time.monotonic() - began >= 1
        assert second.state is HoldingState.SAFE
    await cluster.checked(pool)


@pytest.mark.parametrize("keeper", ["helper", "process"])
async def test_an_idle_holder_is_called_back_unless_it_works_again(
    cluster: Cluster, keeper: Keeper
) -> None:
    pool = await cluster.pool(seats=3)
    states: list[HoldingState] = []
    async with client(cluster, "vision", keeper=keeper) as holder:
        await holder.pools.update(pool, hold=parse_hold("idle=2s,warning=4s"))
        silent = await holder.acquire(pool)
        idle = await holder.acquire(pool)
        busy = await holder.acquire(pool, on_state=states.append)
        idle.report_activity()
        busy.report_activity()
        async with asyncio.timeout(WITHIN):
            await eventually(lambda: HoldingState.RECLAIMING in states)
            busy.report_activity()
            await eventually(lambda: states[-1] is HoldingState.SAFE)
            while believed(idle):
                busy.report_activity()
                await asyncio.sleep(0.2)
        assert believed(busy)
        assert silent.state is HoldingState.SAFE, "it reports nothing"
    await cluster.checked(pool)
