"""Seats of several pools at once, of three nodes over a real etcd."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from tests.cluster.conftest import Cluster
from tests.processes import eventually

from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.oracle.gangs import check_gangs, count_gangs
from seatkeeper.oracle.history import read_history, replay
from seatkeeper.server.store import Change
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

TIME_LIMIT = 120.0
QUICK = ClientConfig(ttl=timedelta(seconds=4), keeper="process")


async def read(cluster: Cluster) -> list[Change]:
    store = EtcdStore(EtcdConfig(endpoints=cluster.service.etcd.endpoints))
    try:
        prefix, first = cluster.keys.prefix, cluster.first_revision
        return await read_history(store, prefix, from_revision=first)
    finally:
        await store.close()


async def is_right(cluster: Cluster, pools: list[str]) -> int:
    """Check the history of these pools; return how many gangs were granted in all."""
    changes, prefix = await read(cluster), cluster.keys.prefix
    assert list(check_gangs(changes, prefix)) == []
    histories = replay(changes, prefix)
    for pool in pools:
        assert histories[pool].is_correct, histories[pool].faults
    return count_gangs(changes, prefix)


async def test_gangs_over_hot_pools_do_not_wait_for_one_another(cluster: Cluster) -> None:
    """Each in an order of its own, through every node, and beside requests for one pool alone."""
    pools = [await cluster.pool(2) for _ in range(8)]
    rng = random.Random(8)
    done = asyncio.Event()

    async def take(client: AsyncSeatClient, times: int) -> None:
        for _ in range(times):
            some = rng.sample(pools, rng.choice([2, 3, 8]))
            async with client.gang(dict.fromkeys(some, 1), wait=TIME_LIMIT):
                await asyncio.sleep(0)

    async def keep_busy(client: AsyncSeatClient) -> None:
        while not done.is_set():
            async with client.seat(rng.choice(pools), wait=TIME_LIMIT):
                await asyncio.sleep(0.01)

    before = await is_right(cluster, pools)
    async with AsyncSeatClient(cluster.addresses, config=QUICK) as beside:
        clients = [AsyncSeatClient(address, config=QUICK) for address in cluster.addresses]
        busy = [asyncio.create_task(keep_busy(beside)) for _ in range(4)]
        async with asyncio.timeout(TIME_LIMIT):
            await asyncio.gather(*(take(client, 6) for client in clients * 2))
        done.set()
        await asyncio.gather(*busy, *(client.close() for client in clients))
    assert await is_right(cluster, pools) - before == 6 * 6


async def test_the_node_that_grants_them_may_die(cluster: Cluster) -> None:
    """Another that follows the first pool goes on, and what waits is granted once."""
    extra = await cluster.another_node()
    async with (
        AsyncSeatClient([extra.address, *cluster.addresses], config=QUICK) as client,
        AsyncSeatClient(cluster.addresses, config=QUICK) as other,
    ):
        pools = [await cluster.pool(1) for _ in range(30)]
        # The owner of the first, by name, grants them.
        *others, second = sorted(pools)
        owners = {pool: (await other.pools.get(pool)).owner for pool in others}
        first = next(pool for pool, owner in owners.items() if owner == extra.name)
        grant = await other.acquire(second, wait=TIME_LIMIT)
        waiting = asyncio.create_task(
            client.gang({first: 1, second: 1}, wait=TIME_LIMIT).take()
        )

        async def is_queued() -> bool:
            return (await other.pools.get(first)).queued == 1

        await eventually(is_queued)
        extra.kill()
        await grant.release()
        grants = await waiting
        assert grants.keys() == {first, second}
        for each in grants.values():
            await each.release()
    await is_right(cluster, pools)
