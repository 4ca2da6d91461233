"""Pools of a file on three nodes over a real etcd."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from seatkeeper.client import AsyncSeatClient, ClientConfig, PoolsChanged
from seatkeeper.client.pools_file import plan, read_pools, write_pools
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from tests.cluster.conftest import Cluster

POOLS = 500


def changes(pools: list[pb.Pool], prefix: str, seats: int) -> list[pb.PoolChange]:
    """What makes all pools of a prefix have so many seats, as they were seen."""
    seen = {pool.spec.name: pool.revision for pool in pools}
    names = [f"{prefix}-{n}" for n in range(POOLS)]
    return [
        pb.PoolChange(
            name=name,
            seen_revision=seen.get(name, 0),
            spec=pb.PoolSpec(name=name, seats=seats),
        )
        for name in names
    ]


def client_of(address: str) -> AsyncSeatClient:
    """Return a client with time for 500 pools at once, however busy the machine is."""
    return AsyncSeatClient(address, config=ClientConfig(call_timeout=timedelta(seconds=60)))


async def test_five_hundred_pools_at_once_on_every_node(cluster: Cluster) -> None:
    """Made, then changed, each at one revision; a node that was not asked serves them."""
    first, second, third = cluster.addresses
    async with client_of(first) as one, client_of(second) as other:
        began = time.monotonic()
        made = await one.pools.apply(changes([], "bulk", 2), reason="made by a test")
        assert made
        there = [
            pool for pool in await other.pools.list() if pool.spec.name.startswith("bulk-")
        ]
        assert {pool.revision for pool in there} == {made}
        assert len(there) == POOLS

        changed = await other.pools.apply(changes(there, "bulk", 3))
        print(f"two applies of {POOLS} pools and a list: {time.monotonic() - began:.2f} s")
        assert changed > made
        text = write_pools(pool.spec for pool in await one.pools.list())
        live = await one.pools.list()
        found = read_pools(text.encode())
        assert not plan(found.pools, live).changes_anything
    async with client_of(third) as client, client.seat("bulk-499", project="cv", wait=5):
        assert (await client.pools.get("bulk-499")).free == 2
    history = await cluster.checked("bulk-499")
    assert history.is_correct


async def test_of_two_administrators_one_wins_and_the_other_is_notified(
    cluster: Cluster,
) -> None:
    """Through two nodes at once, again and again: all pools are always one administrator's."""
    first, second, _ = cluster.addresses
    async with client_of(first) as one, client_of(second) as other:
        live: list[pb.Pool] = []
        for seats in (1, 3, 5):
            outcomes = await asyncio.gather(
                one.pools.apply(changes(live, "raced", seats)),
                other.pools.apply(changes(live, "raced", seats + 1)),
                return_exceptions=True,
            )
            (won,) = (each for each in outcomes if isinstance(each, int))
            (lost,) = (each for each in outcomes if isinstance(each, BaseException))
            assert isinstance(lost, PoolsChanged)
            assert lost.pools
            assert set(lost.pools) <= {f"raced-{n}" for n in range(POOLS)}
            live = [
                pool for pool in await one.pools.list() if pool.spec.name.startswith("raced-")
            ]
            assert {pool.revision for pool in live} == {won}
            winner = seats + (outcomes[0] is lost)
            assert {pool.spec.seats for pool in live} == {winner}
            assert len(live) == POOLS


async def test_pools_beside_that_change_do_not_stop_it(cluster: Cluster) -> None:
    """Others change a pool of their own all the time meanwhile."""
    beside = await cluster.pool(1)
    async with client_of(cluster.addresses[0]) as client:

        async def keep_changing() -> None:
            for seats in range(1, 1000):
                await client.pools.update(beside, seats=1 + seats % 5)

        task = asyncio.create_task(keep_changing())
        try:
            for _ in range(3):
                name = f"quiet-{time.monotonic_ns()}"
                spec = pb.PoolSpec(name=name, seats=1)
                assert await client.pools.apply([pb.PoolChange(name=name, spec=spec)])
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
