"""Seats of one of several pools, and seats kept free for gangs, of three nodes over a real etcd."""

from __future__ import annotations

import asyncio
import random

from tests.cluster.conftest import Cluster
from tests.cluster.test_gangs import QUICK, TIME_LIMIT, read
from tests.processes import eventually

from seatkeeper.client import AsyncSeatClient
from seatkeeper.client.admin.projects import parse_overtaking
from seatkeeper.oracle.alternatives import check_alternatives, count_alternatives
from seatkeeper.oracle.gangs import check_gangs
from seatkeeper.oracle.history import replay
from seatkeeper.oracle.kept_free import check_kept_free, count_kept_free


async def is_right(cluster: Cluster, pools: list[str]) -> tuple[int, int]:
    """Check the history; return how many grants were of alternatives, and how often seats were kept."""
    changes, prefix = await read(cluster), cluster.keys.prefix
    assert list(check_alternatives(changes, prefix)) == []
    assert list(check_gangs(changes, prefix)) == []
    assert list(check_kept_free(changes, prefix)) == []
    histories = replay(changes, prefix)
    for pool in pools:
        assert histories[pool].is_correct, histories[pool].faults
    return count_alternatives(changes, prefix), count_kept_free(changes, prefix)


async def test_of_hot_pools_each_gets_one_seat_and_leaves_the_other_queues(
    cluster: Cluster,
) -> None:
    """In orders of their own, through every node, and beside requests for one pool alone."""
    pools = [await cluster.pool(1) for _ in range(5)]
    rng = random.Random(5)
    done = asyncio.Event()

    async def take(client: AsyncSeatClient, times: int) -> None:
        for _ in range(times):
            some = rng.sample(pools, rng.choice([2, 3, 4]))
            after = dict(zip(some, [0.0, *sorted(rng.choices([0.0, 0.2], k=3))], strict=False))
            async with client.one_of(after, wait=TIME_LIMIT) as grant:
                assert grant.pool in some
                await asyncio.sleep(0.01)

    async def keep_busy(client: AsyncSeatClient) -> None:
        while not done.is_set():
            async with client.seat(rng.choice(pools), wait=TIME_LIMIT):
                await asyncio.sleep(0.01)

    before, _ = await is_right(cluster, pools)
    async with AsyncSeatClient(cluster.addresses, config=QUICK) as beside:
        clients = [AsyncSeatClient(address, config=QUICK) for address in cluster.addresses]
        busy = [asyncio.create_task(keep_busy(beside)) for _ in range(3)]
        async with asyncio.timeout(TIME_LIMIT):
            await asyncio.gather(*(take(client, 6) for client in clients * 2))
        done.set()
        await asyncio.gather(*busy)
        found = [await beside.pools.get(pool) for pool in pools]
        assert [(pool.held, pool.queued) for pool in found] == [(0, 0)] * 5
        await asyncio.gather(*(client.close() for client in clients))
    after_all, _ = await is_right(cluster, pools)
    assert after_all - before == 6 * 6


async def test_the_node_that_grants_them_may_die(cluster: Cluster) -> None:
    """Another that follows the first pool goes on, and one is granted."""
    extra = await cluster.another_node()
    async with (
        AsyncSeatClient([extra.address, *cluster.addresses], config=QUICK) as client,
        AsyncSeatClient(cluster.addresses, config=QUICK) as other,
    ):
        pools = [await cluster.pool(1) for _ in range(30)]
        *others, second = pools
        owners = {pool: (await other.pools.get(pool)).owner for pool in others}
        first = next(pool for pool, owner in owners.items() if owner == extra.name)
        held = await other.acquire(first, wait=TIME_LIMIT)
        grant = await other.acquire(second, wait=TIME_LIMIT)
        waiting = asyncio.create_task(client.one_of([first, second], wait=TIME_LIMIT).take())

        async def is_queued() -> bool:
            return [(await other.pools.get(pool)).queued for pool in (first, second)] == [1, 1]

        await eventually(is_queued)
        extra.kill()
        await grant.release()
        grants = await waiting
        assert grants.keys() == {second}
        await grants[second].release()
        await held.release()
    await is_right(cluster, pools)


async def test_a_gang_over_pools_that_are_never_idle_together_is_served(
    cluster: Cluster,
) -> None:
    """Each of the seats is always asked for by two, so that without a bound it might never be."""
    pools = [await cluster.pool(1) for _ in range(2)]
    done = asyncio.Event()

    async def keep_busy(client: AsyncSeatClient, pool: str) -> None:
        while not done.is_set():
            async with client.seat(pool, wait=TIME_LIMIT):
                await asyncio.sleep(0.4)

    async with AsyncSeatClient(cluster.addresses, config=QUICK) as client:
        for pool in pools:
            rule = parse_overtaking("seats=0,within=2,hold_back=30")
            await client.pools.update(pool, overtaking=rule)
        busy = [asyncio.create_task(keep_busy(client, pool)) for pool in pools * 3]

        async def is_busy() -> bool:
            queued = [(await client.pools.get(pool)).queued for pool in pools]
            return all(queued)

        await eventually(is_busy)
        _, before = await is_right(cluster, pools)
        async with asyncio.timeout(TIME_LIMIT):
            async with client.gang(dict.fromkeys(pools, 1), wait=TIME_LIMIT) as grants:
                assert grants.keys() == set(pools)
        done.set()
        await asyncio.gather(*busy, return_exceptions=True)
        _, kept = await is_right(cluster, pools)
        assert kept - before in {0, 2}  # none, where it was lucky
