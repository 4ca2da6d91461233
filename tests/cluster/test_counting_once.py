"""Several processes of one holder share a seat, on a real etcd: by lease, and as nodes are killed."""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import AsyncExitStack
from datetime import timedelta

from tests.cluster.conftest import Cluster
from tests.processes import eventually

from seatkeeper.client import AsyncSeatClient, NoSeatFree
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import pool_service_pb2, seat_pb2, seat_service_pb2

TTL = timedelta(seconds=2)
PROCESSES = 9
ROUNDS = 6


async def sharing(cluster: Cluster, seats: int = 1) -> str:
    pool = await cluster.pool(seats=seats)
    async with AsyncSeatClient(cluster.addresses[0]) as client:
        await client.pools.update(pool, count_once=["holder"])
    return pool


async def taken_and_left(client: AsyncSeatClient, pool: str) -> str:
    """Take a seat as a process that is killed at once: nothing renews its session."""
    credentials = seat_service_pb2.SessionCredentials(
        session_id=new_id(), secret=secrets.token_bytes(16)
    )
    await client.seats.open_session(credentials, holder="anna", ttl=TTL)
    acquire = seat_pb2.Acquire(pool=pool, grant_id=new_id(), seats=1)
    return (await client.seats.acquire(credentials, acquire)).grant_id


async def test_the_first_of_them_dies_and_the_others_go_on_holding_the_seat(
    cluster: Cluster,
) -> None:
    pool = await sharing(cluster)
    async with AsyncExitStack() as stack:

        async def client(node: int, holder: str) -> AsyncSeatClient:
            made = AsyncSeatClient(cluster.addresses[node], holder=holder)
            return await stack.enter_async_context(made)

        first = await taken_and_left(await client(0, "anna"), pool)
        waiting = asyncio.create_task((await client(2, "bert")).acquire(pool, wait=60))

        async def is_queued() -> bool:
            return (await cluster.look(pool)).queued == 1

        await eventually(is_queued, "the other waits")
        second = await (await client(1, "anna")).acquire(pool, wait=0)
        third = await (await client(2, "anna")).acquire(pool, wait=0)
        shown = await cluster.look(pool, cluster.addresses[1])
        assert (shown.held, shown.free, len(shown.grants)) == (1, 0, 3)
        assert len({grant.fence for grant in shown.grants}) == 3
        assert {dict_of(grant) for grant in shown.grants} == {("default", "anna")}

        async def is_gone() -> bool:
            return first not in {each.grant_id for each in (await cluster.look(pool)).grants}

        await eventually(is_gone, "its lease has ended")
        shown = await cluster.look(pool, cluster.addresses[2])
        assert (shown.held, shown.queued) == (1, 1)
        await second.release()
        assert (await cluster.look(pool)).held == 1
        await third.release()
        await (await waiting).release()
    history = await cluster.checked(pool)
    assert (history.max_out, history.out, history.grants) == (1, 0, 4)


def dict_of(grant: pool_service_pb2.HeldGrant) -> tuple[str, str]:
    said = {each.attribute: each.value for each in grant.counts_once}
    return said["project"], said["holder"]


async def test_many_come_and_go_at_all_nodes_and_a_node_is_killed(cluster: Cluster) -> None:
    pool = await sharing(cluster, seats=2)
    extra = await cluster.another_node()
    rng = random.Random(1)
    nodes = [*cluster.addresses, extra.address]
    granted = 0

    async def process(number: int) -> None:
        nonlocal granted
        own = random.Random(rng.random())
        addresses = [nodes[number % len(nodes)], *cluster.addresses]
        async with AsyncSeatClient(addresses, holder=f"holder-{number % 3}") as client:
            for _ in range(ROUNDS):
                try:
                    grant = await client.acquire(pool, seats=own.choice([1, 1, 2]), wait=30)
                except NoSeatFree:
                    continue
                granted += 1
                await asyncio.sleep(own.random() / 5)
                await grant.release()

    async def killing() -> None:
        await asyncio.sleep(0.3)
        extra.kill()

    await asyncio.gather(killing(), *map(process, range(PROCESSES)))

    async def is_empty() -> bool:
        return (await cluster.look(pool)).held == 0

    await eventually(is_empty, "what the killed node left has ended")
    history = await cluster.checked(pool)
    assert granted > PROCESSES
    assert history.max_out <= 2
