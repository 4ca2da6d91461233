"""Measure whether three nodes that all decide for one pool ever give out too many seats.

200 clients on three nodes share 20 seats for a minute, each holding a seat for a few milliseconds and
asking again. With ``--routing local`` every node decides for the pool, because each has clients that
it serves: the worst that a torn ring could do. With ``--routing owner`` two of them forward everything
to the third. Afterwards etcd's own history is replayed, revision by revision.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from time import perf_counter

from bench.report import notify, parser, progress, run
from bench.service import running_service
from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.oracle.history import FaultKind, read_history, replay
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

POOL = "crowd"
HOLD_SECONDS_MAX = 0.02
STAY = ClientConfig(follow_ring=False, keeper="process")
"""Clients stay where they are put."""


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=200)
    options.add_argument("--seats", type=int, default=20)
    options.add_argument("--nodes", type=int, default=3)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--routing", choices=("local", "owner"), default="local")
    arguments = options.parse_args()
    flags = ("--routing", arguments.routing)
    async with running_service(nodes=arguments.nodes, flags=flags) as service:
        cycles = [0] * arguments.clients
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    AsyncSeatClient(service.addresses[number % arguments.nodes], config=STAY)
                )
                for number in range(arguments.clients)
            ]
            await clients[0].pools.create(POOL, seats=arguments.seats)
            progress(f"{arguments.clients} clients for {arguments.seconds:.0f} s")
            ends = perf_counter() + arguments.seconds
            await asyncio.gather(
                *(take_turns(client, ends, cycles, n) for n, client in enumerate(clients))
            )
        store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
        history = replay(await read_history(store))[POOL]
        await store.close()
    notify(
        {
            "clients": arguments.clients,
            "nodes": arguments.nodes,
            "routing": arguments.routing,
            "seats": arguments.seats,
            "seconds": arguments.seconds,
            "cycles": sum(cycles),
            "cycles_of_the_least_served": min(cycles),
            "grants": history.grants,
            "tickets": history.tickets,
            "decisions": history.decisions,
            "max_out": history.max_out,
            "over_grants": history.count(FaultKind.OVER_GRANT),
            "fence_faults": history.count(FaultKind.FENCE),
            "order_inversions": history.count(FaultKind.ORDER),
            "granted_twice": history.count(FaultKind.GRANTED_TWICE),
            "left_behind": history.out + history.waiting,
        },
        arguments.json,
    )


async def take_turns(
    client: AsyncSeatClient, ends: float, cycles: list[int], number: int
) -> None:
    """Take a seat, hold it a moment, give it back, again and again until ``ends``."""
    while perf_counter() < ends:
        async with client.seat(POOL):
            await asyncio.sleep(random.uniform(0, HOLD_SECONDS_MAX))
        cycles[number] += 1


if __name__ == "__main__":
    run(main)
