"""Compare many pools over several nodes with one pool on one node, in one run on one machine.

The same number of requests is under way in both: 64 workers take a seat and give it back at once. In
the first, all use one pool on one node, through one session. In the second they are spread over eight
pools, each with a client of its own at the node that owns the pool. Rounds are interleaved.

``*_cpu_us`` is processor time per operation, of the client's process, the nodes and etcd: on a machine
that all of them share, their sum is what bounds the rate. An operation is one acquire or one release.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.grants import rate_of, session_cycle
from bench.report import median, notify, parser, progress, run
from bench.scale import etcd_cpu, node_cpu
from bench.service import Service, running_service
from seatkeeper.client import AsyncSeatClient, ClientConfig

STAY = ClientConfig(follow_ring=False, keeper="process")
SEATS = 64


@dataclass(frozen=True)
class Rate:
    """One round."""

    ops_per_s: float
    client_cpu_us: float
    nodes_cpu_us: float
    etcd_cpu_us: float


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--pools", type=int, default=8)
    options.add_argument("--nodes", type=int, default=3)
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--seconds", type=float, default=3.0, help="of each round")
    arguments = options.parse_args()
    async with (
        running_service(nodes=1) as one,
        running_service(nodes=arguments.nodes) as several,
        AsyncExitStack() as stack,
    ):
        narrow = await clients_of(one, ["only"], stack)
        names = [f"pool-{number}" for number in range(arguments.pools)]
        wide = await clients_of(several, names, stack)
        result = await compare(one, narrow, several, wide, arguments)
    notify(result, arguments.json)


async def clients_of(
    service: Service, pools: Sequence[str], stack: AsyncExitStack
) -> dict[str, AsyncSeatClient]:
    """Create pools; return a client for each, at the node that owns it."""
    clients = {}
    async with AsyncSeatClient(service.addresses, config=STAY) as admin:
        for pool in pools:
            await admin.pools.create(pool, seats=SEATS)
        addresses = {node.node_id: node.address for node in await admin.cluster.nodes()}
        for pool in pools:
            owner = (await admin.pools.get(pool)).owner
            client = AsyncSeatClient(addresses[owner], config=STAY)
            clients[pool] = await stack.enter_async_context(client)
    return clients


async def compare(
    one: Service,
    narrow: dict[str, AsyncSeatClient],
    several: Service,
    wide: dict[str, AsyncSeatClient],
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """Measure both, in turns; return the medians."""
    narrow_rates, wide_rates = [], []
    for number in range(arguments.rounds):
        narrow_rates.append(await measured(one, narrow, arguments.seconds))
        wide_rates.append(await measured(several, wide, arguments.seconds))
        progress(
            f"round {number + 1}: {narrow_rates[-1].ops_per_s:.0f}/s on one node, "
            f"{wide_rates[-1].ops_per_s:.0f}/s on {arguments.nodes}"
        )
    result: dict[str, object] = {"pools": arguments.pools, "nodes": arguments.nodes}
    for name, rates in (("one", narrow_rates), ("spread", wide_rates)):
        for field in ("ops_per_s", "client_cpu_us", "nodes_cpu_us", "etcd_cpu_us"):
            result[f"{name}_{field}"] = median([getattr(rate, field) for rate in rates])
    result["spread_over_one"] = median(
        [
            wide.ops_per_s / thin.ops_per_s
            for wide, thin in zip(wide_rates, narrow_rates, strict=True)
        ]
    )
    return result


async def measured(
    service: Service, clients: dict[str, AsyncSeatClient], seconds: float
) -> Rate:
    """Measure one round."""
    places = list(clients.items())

    async def cycle(worker: int) -> None:
        pool, client = places[worker % len(places)]
        await session_cycle(client, pool)

    before = (time.process_time(), node_cpu(service), etcd_cpu(service), time.monotonic())
    cycles_per_s = await rate_of(cycle, seconds)
    after = (time.process_time(), node_cpu(service), etcd_cpu(service), time.monotonic())
    client, nodes, etcd, took = (b - a for a, b in zip(before, after, strict=True))
    operations = 2 * cycles_per_s * took
    return Rate(
        2 * cycles_per_s,
        1e6 * client / operations,
        1e6 * nodes / operations,
        1e6 * etcd / operations,
    )


if __name__ == "__main__":
    run(main)
