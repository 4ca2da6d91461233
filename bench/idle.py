"""Measure what pools cost while nothing happens in them.

A node follows ``--pools`` pools: in each of them a session holds a seat all the time. Then:

- ``idle_cpu_pct`` is the node's share of one core, ``etcd_idle_cpu_pct`` etcd's, while nothing is
  asked.
  ``empty_cpu_pct`` and ``etcd_empty_cpu_pct`` are the same before there were any pools.
- ``busy_beside_idle`` is the node's time for an acquire or a release in one more pool beside all these,
  over its time for one before there were any: ``busy_us`` and ``busy_us_before``. What the node uses
  while nothing is asked is part of neither.

The renewals of the one session are part of it; they cost the same for one seat as for many.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from bench.report import notify, parser, progress, run
from bench.scale import etcd_cpu, node_cpu
from bench.service import IN_PROCESS, Service, running_service
from seatkeeper.client import AsyncSeatClient

IN_FLIGHT = 16
AT_ONCE = 100
"""Pools made, and seats taken, at a time."""
SETTLE_SECONDS = 3.0


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--pools", type=int, default=3000)
    options.add_argument(
        "--seconds", type=float, default=30.0, help="of rest; of work, a third"
    )
    arguments = options.parse_args()
    async with (
        running_service() as service,
        AsyncSeatClient(service.addresses[0], config=IN_PROCESS) as client,
    ):
        await client.pools.create("busy", seats=IN_FLIGHT)
        await work(client, 1.0)  # all comes up outside the measurement
        empty = await rest(service, arguments.seconds)
        busy_us_before = await cost_of_work(service, client, arguments.seconds / 3, empty[0])
        await hold_one_of_each(client, arguments.pools)
        idle = await rest(service, arguments.seconds)
        busy_us = await cost_of_work(service, client, arguments.seconds / 3, idle[0])
    result = {
        "pools": arguments.pools,
        "empty_cpu_pct": 100 * empty[0],
        "etcd_empty_cpu_pct": 100 * empty[1],
        "idle_cpu_pct": 100 * idle[0],
        "etcd_idle_cpu_pct": 100 * idle[1],
        "busy_us_before": busy_us_before,
        "busy_us": busy_us,
        "busy_beside_idle": busy_us / busy_us_before,
    }
    notify(result, arguments.json)


async def rest(service: Service, seconds: float) -> tuple[float, float]:
    """Ask for nothing; return the shares of a core that the node and etcd use meanwhile."""
    await asyncio.sleep(SETTLE_SECONDS)
    node, etcd, began = node_cpu(service), etcd_cpu(service), perf_counter()
    await asyncio.sleep(seconds)
    elapsed = perf_counter() - began
    return (node_cpu(service) - node) / elapsed, (etcd_cpu(service) - etcd) / elapsed


async def cost_of_work(
    service: Service, client: AsyncSeatClient, seconds: float, at_rest: float
) -> float:
    """Return the node's microseconds for an operation, over what it uses at rest."""
    node, began = node_cpu(service), perf_counter()
    operations = await work(client, seconds)
    used = node_cpu(service) - node - at_rest * (perf_counter() - began)
    return 1e6 * used / operations


async def work(client: AsyncSeatClient, seconds: float) -> int:
    """Take seats of the busy pool and give them back; return how many operations that was."""
    ends, operations = perf_counter() + seconds, 0

    async def cycle() -> None:
        nonlocal operations
        while perf_counter() < ends:
            grant = await client.acquire("busy")
            await grant.release()
            operations += 2

    await asyncio.gather(*(cycle() for _ in range(IN_FLIGHT)))
    return operations


async def hold_one_of_each(client: AsyncSeatClient, pools: int) -> None:
    """Make so many pools, and hold a seat of each."""
    for begun in range(0, pools, AT_ONCE):
        names = [f"idle-{number}" for number in range(begun, min(begun + AT_ONCE, pools))]
        await asyncio.gather(*(client.pools.create(name, seats=1) for name in names))
        await asyncio.gather(*(client.acquire(name) for name in names))
        progress(f"{begun + len(names)} of {pools} pools are held")


if __name__ == "__main__":
    run(main)
