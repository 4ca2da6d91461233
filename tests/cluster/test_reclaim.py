"""Lent seats are called back: real nodes, real clients, by etcd's own history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Literal

import pytest
from tests.cluster.conftest import Cluster
from tests.processes import eventually

from seatkeeper.client import AsyncGrant, AsyncSeatClient, ClientConfig, HoldingState, SeatLost
from seatkeeper.client.admin.projects import parse_project
from seatkeeper.client.admin.reclaims import parse_reclaim

Keeper = Literal["helper", "process"]
NOTICE = 1.0
TTL = timedelta(seconds=3)
WITHIN = 60.0


def client(
    cluster: Cluster, project: str, node: int = 0, *, keeper: Keeper = "helper"
) -> AsyncSeatClient:
    config = ClientConfig(ttl=TTL, keeper=keeper)
    return AsyncSeatClient(cluster.addresses[node], project=project, config=config)


def believed(grant: AsyncGrant) -> bool:
    return grant.state is not HoldingState.LOST


@pytest.fixture
async def pool(cluster: Cluster) -> AsyncIterator[str]:
    name = await cluster.pool(seats=2)
    async with client(cluster, "admin") as admin:
        await admin.pools.update(
            name,
            projects=[parse_project("vision:guaranteed=1"), parse_project("nlp:guaranteed=1")],
            reclaim=parse_reclaim(f"notice={NOTICE:g},minimum_hold=0"),
        )
    yield name
    await cluster.checked(name)


@pytest.mark.parametrize("keeper", ["helper", "process"])
async def test_a_holder_learns_of_it_and_its_seat_goes_to_whom_it_is_due(
    cluster: Cluster, pool: str, keeper: Keeper
) -> None:
    states: list[HoldingState] = []
    async with (
        client(cluster, "vision", keeper=keeper) as lender,
        client(cluster, "nlp", 1, keeper=keeper) as asker,
    ):
        first = await lender.acquire(pool)
        second = await lender.acquire(pool, on_state=states.append)
        asked_at = time.monotonic()
        taking = asyncio.create_task(asker.acquire(pool, wait=WITHIN))
        async with asyncio.timeout(WITHIN):
            await eventually(lambda: HoldingState.RECLAIMING in states)
        assert second.state is HoldingState.RECLAIMING
        assert second.reclaim is not None
        assert "nlp" in second.reclaim.message
        due = await taking
        waited = time.monotonic() - asked_at
        assert not believed(second), "before another had it"
        assert waited >= NOTICE
        with pytest.raises(SeatLost, match="called back"):
            second.raise_if_lost()
        assert states[-1] is HoldingState.LOST
        assert first.state is HoldingState.SAFE, "within its guarantee"
        assert due.fence > second.fence


async def test_a_holder_that_gives_it_back_at_once_loses_nothing(
    cluster: Cluster, pool: str
) -> None:
    async with client(cluster, "vision") as lender, client(cluster, "nlp", 1) as asker:
        held = [await lender.acquire(pool), await lender.acquire(pool)]
        taking = asyncio.create_task(asker.acquire(pool, wait=WITHIN))
        async with asyncio.timeout(WITHIN):
            await eventually(lambda: any(each.state is not HoldingState.SAFE for each in held))
        (called,) = (grant for grant in held if grant.state is HoldingState.RECLAIMING)
        await called.release()
        await taking


async def test_nothing_is_taken_when_the_asker_leaves(cluster: Cluster, pool: str) -> None:
    states: list[HoldingState] = []
    async with client(cluster, "vision") as lender, client(cluster, "nlp", 1) as asker:
        held = [await lender.acquire(pool, on_state=states.append) for _ in range(2)]
        taking = asyncio.create_task(asker.acquire(pool, wait=WITHIN))
        async with asyncio.timeout(WITHIN):
            await eventually(lambda: HoldingState.RECLAIMING in states)
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            await eventually(lambda: all(each.state is HoldingState.SAFE for each in held))
        assert states == [HoldingState.RECLAIMING, HoldingState.SAFE]
