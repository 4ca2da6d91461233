"""Seats that a holder takes over on another machine: real nodes and clients, by etcd's history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.cluster.conftest import Cluster
from tests.cluster.test_reclaim import TTL, WITHIN, Keeper
from tests.cluster.test_stays import client
from tests.processes import eventually

from seatkeeper.client import AsyncGrant, AsyncSeatClient, ClientConfig, HoldingState, SeatLost

ROUNDS = 12


@asynccontextmanager
async def clients(cluster: Cluster, who: str) -> AsyncIterator[list[AsyncSeatClient]]:
    """One at each node, of one holder."""
    async with (
        client(cluster, who, 0) as a,
        client(cluster, who, 1) as b,
        client(cluster, who, 2) as c,
    ):
        yield [a, b, c]


@pytest.mark.parametrize("keeper", ["helper", "process"])
async def test_it_is_had_at_once_by_one_alone(cluster: Cluster, keeper: Keeper) -> None:
    pool = await cluster.pool(seats=1)
    async with (
        client(cluster, "a") as there,
        client(cluster, "a", 1, keeper=keeper) as here,
        client(cluster, "b", 2) as b,
    ):
        old = await there.acquire(pool, token=True)
        taking = asyncio.create_task(b.acquire(pool))
        new = await here.take_over(pool, old.grant_id, token=True)
        assert new.fence > old.fence
        assert new.token
        await eventually(lambda: old.state is HoldingState.LOST)
        with pytest.raises(SeatLost, match="taken the seats over"):
            old.raise_if_lost()
        assert not taking.done()
        (held,) = (await cluster.look(pool)).grants
        assert (held.grant_id, held.continues_fence) == (new.grant_id, old.fence)
        await new.release()
        await (await taking).release()
    assert (await cluster.checked(pool)).max_out == 1


async def test_of_many_that_want_the_same_one_has_it_and_nothing_is_held_twice(
    cluster: Cluster,
) -> None:
    pool = await cluster.pool(seats=2)
    async with clients(cluster, "a") as three, client(cluster, "b") as b:
        grant = await three[0].acquire(pool)
        other = await b.acquire(pool)
        for _ in range(ROUNDS):
            found = await asyncio.gather(
                *(each.take_over(pool, grant.grant_id) for each in three),
                return_exceptions=True,
            )
            (after,) = [each for each in found if isinstance(each, AsyncGrant)]
            assert after.fence > grant.fence
            grant = after
        await grant.release()
        await other.release()
        history = await cluster.checked(pool)
    assert history.max_out == 2
    assert not history.faults


async def test_it_survives_the_node_that_made_it(cluster: Cluster) -> None:
    pool = await cluster.pool(seats=1)
    extra = await cluster.another_node()
    nodes = [extra.address, *cluster.addresses]
    config = ClientConfig(ttl=TTL)
    async with (
        client(cluster, "a") as there,
        AsyncSeatClient(nodes, holder="a", project="cv", config=config) as here,
    ):
        old = await there.acquire(pool)
        new = await here.take_over(pool, old.grant_id)
        extra.kill()
        # Over another node: the same request finds the same grant, and takes over nothing.
        async with asyncio.timeout(WITHIN):
            assert await new.fetch_token()
            await eventually(lambda: new.state is HoldingState.SAFE)
        (held,) = (await cluster.look(pool)).grants
        assert (held.grant_id, held.fence) == (new.grant_id, new.fence)
        await new.release()
    assert (await cluster.checked(pool)).max_out == 1
