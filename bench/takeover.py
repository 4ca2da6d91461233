"""Measure what it takes to take over a large pool.

Two nodes serve a pool of ``--grants`` seats, of which all but one are held. Its owner is killed, and at
that moment a client of the other node, which has never followed the pool, asks for a seat of it.

- ``first_acquire_s``: until it has the seat. That node reads the whole pool first, and the time in
  which it finds that the owner does not answer is part of it.
- ``growth``: that time over the time with half as many grants, in the same run.
- ``loop_blocked_ms_max``: the longest that a further client waited meanwhile for an answer that the
  node has at hand (its version), asked for every few milliseconds. ``loop_blocked_ms_before`` is
  the same before the kill.

The grants are written to etcd as a node would have, since taking 100,000 seats takes longer than this.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from time import perf_counter

from bench.report import median, notify, parser, progress, run
from bench.service import ServerProcess, Service, running_service
from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.core.ids import new_id
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.domain import Grant, Guard
from seatkeeper.server.domain.attribution import Attribution
from seatkeeper.server.store import Put, Store, records
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.system_clock import SystemClock

POOL = "large"
STAY = ClientConfig(follow_ring=False, keeper="process")
PUTS_PER_TRANSACTION = 100
LEASE_SECONDS = 3600.0
LEASE_ID = 7
PROBE_PAUSE = 0.004
PROBE_SECONDS = 2.0
"""How long is looked before anything happens."""


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--grants", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    rounds: list[dict[str, float]] = []
    for number in range(arguments.rounds):
        half = await takeover(arguments.grants // 2)
        whole = await takeover(arguments.grants)
        growth = whole["first_acquire_s"] / half["first_acquire_s"]
        rounds.append(
            whole | {"half_first_acquire_s": half["first_acquire_s"], "growth": growth}
        )
        progress(f"round {number + 1} of {arguments.rounds}: {rounds[-1]}")
    figures = {key: median([each[key] for each in rounds]) for key in rounds[0]}
    notify({"grants": arguments.grants, "rounds": arguments.rounds, **figures}, arguments.json)


async def takeover(grants: int) -> dict[str, float]:
    """Do it once, with an etcd and nodes of its own."""
    async with running_service(nodes=2) as service:
        async with AsyncSeatClient(service.addresses, config=STAY) as admin:
            await admin.pools.create(POOL, seats=grants)
            store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
            await fill(store, grants - 1)  # a pool has 100,000 seats at most
            await store.close()
            owner, other = await nodes_of(service, admin)
        async with (
            AsyncSeatClient(other.address, config=STAY) as client,
            AsyncSeatClient(other.address, config=STAY) as watcher,
        ):
            await client.session()
            before = await longest_wait(
                watcher, asyncio.create_task(asyncio.sleep(PROBE_SECONDS))
            )
            owner.kill()
            killed_at = perf_counter()
            asking = asyncio.create_task(first_acquire(client))
            blocked = await longest_wait(watcher, asking)
            taken_at = await asking
    return {
        "first_acquire_s": taken_at - killed_at,
        "loop_blocked_ms_before": 1000 * before,
        "loop_blocked_ms_max": 1000 * blocked,
    }


async def first_acquire(client: AsyncSeatClient) -> float:
    """Take a seat and give it back; return when it was there."""
    async with client.seat(POOL):
        return perf_counter()


async def longest_wait(client: AsyncSeatClient, until: asyncio.Task[object]) -> float:
    """Return the longest that a node took to say its version until a task was done."""
    longest = 0.0
    while not until.done():
        asked_at = perf_counter()
        await client.cluster.version()
        longest = max(longest, perf_counter() - asked_at)
        await asyncio.wait({until}, timeout=PROBE_PAUSE)
    return longest


async def nodes_of(
    service: Service, admin: AsyncSeatClient
) -> tuple[ServerProcess, ServerProcess]:
    """Return the owner of the pool, once it has given a seat of it, and the other node."""
    owner = (await admin.pools.get(POOL)).owner
    [owning] = [node for node in service.nodes if owner in {node.name, node.address}]
    [other] = [node for node in service.nodes if node is not owning]
    async with AsyncSeatClient(owning.address, config=STAY) as client, client.seat(POOL):
        pass
    return owning, other


async def fill(store: Store, count: int) -> None:
    """Write so many grants of one seat, and a guard that has given out their fences."""
    keys, now = Keys(NodeConfig.model_fields["prefix"].default), SystemClock().now()
    await store.grant_lease(LEASE_ID, timedelta(seconds=LEASE_SECONDS))
    session_id, whose = new_id(), Attribution("holder", "project")
    fences = await move_guard(store, keys, count)
    grants = [
        Grant(new_id(), session_id, LEASE_ID, whose, 1, fence, now, now) for fence in fences
    ]
    for begun in range(0, count, PUTS_PER_TRANSACTION):
        some = grants[begun : begun + PUTS_PER_TRANSACTION]
        await store.commit(
            [
                Put(keys.grant(POOL, each.grant_id), records.encode_grant(each), LEASE_ID)
                for each in some
            ]
        )


async def move_guard(store: Store, keys: Keys, count: int) -> range:
    """Use so many fences of the pool; return them."""
    found = [
        entry
        for entry in (await store.list(keys.seats(POOL))).entries
        if entry.key == keys.guard(POOL)
    ]
    guard = records.decode_guard(found[0].value)[0] if found else Guard()
    moved = replace(guard, fence=guard.fence + count)
    await store.commit([Put(keys.guard(POOL), records.encode_guard(moved, 0, b""))])
    return range(guard.fence + 1, moved.fence + 1)


if __name__ == "__main__":
    run(main)
