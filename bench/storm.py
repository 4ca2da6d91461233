"""Measure what a thousand clients that arrive within one second do to the service, and to others.

Each of the clients has a session of its own, arrives at a moment of its own within one second, waits
for one of 20 seats, holds it for 20 ms, and gives it back. All must be served, in the order in which
they were accepted; a request that is kept out of a full queue must get a retry time. Beside them, a
client that has nothing to do with that pool goes on renewing its session, and what its renewals take
is compared with what they took before.

``decisions`` are the transactions that etcd saw for the pool, from its own history.
``decisions_over_one_for_16`` compares it with one transaction for every 16 grants and tickets.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic

from bench.probe import running_probe
from bench.report import notify, parser, percentile, progress, run
from bench.service import IN_PROCESS, Service, running_service
from seatkeeper.client import AsyncSeatClient, Overloaded
from seatkeeper.oracle.history import FaultKind, read_history, replay
from seatkeeper.oracle.stored import guard_key
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

POOL = "storm"
CALM_SECONDS = 3.0
PROBE_START_SECONDS = 2.0
CONNECT_AT_ONCE = 50


@dataclass
class Tally:
    """What the clients saw."""

    waits: list[float] = field(default_factory=list)
    """Seconds from arriving to holding a seat."""
    refusals: int = 0
    refusals_without_a_time: int = 0


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=1000)
    options.add_argument("--seats", type=int, default=20)
    options.add_argument("--hold-ms", type=float, default=20.0)
    options.add_argument("--nodes", type=int, default=3)
    arguments = options.parse_args()
    async with running_service(nodes=arguments.nodes) as service:
        result = await storm(service, arguments)
    notify(result, arguments.json)


async def storm(service: Service, arguments: argparse.Namespace) -> dict[str, object]:
    """Let the clients come; return what became of them."""
    tally = Tally()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncSeatClient(service.addresses, config=IN_PROCESS)
            )
            for _ in range(arguments.clients)
        ]
        await clients[0].pools.create(POOL, seats=arguments.seats)
        progress(f"{arguments.clients} clients connect")
        # Sessions first: what is measured is a storm of requests.
        for at in range(0, len(clients), CONNECT_AT_ONCE):
            some = clients[at : at + CONNECT_AT_ONCE]
            await asyncio.gather(*(client.session() for client in some))
        probe = await stack.enter_async_context(running_probe(service.addresses))
        await asyncio.sleep(PROBE_START_SECONDS + CALM_SECONDS)
        progress("they ask")
        began = monotonic()
        hold = arguments.hold_ms / 1000
        await asyncio.gather(*(arrive(client, hold, tally) for client in clients))
        ended = monotonic()
    idle, stormy = probe.between(began - CALM_SECONDS, began), probe.between(began, ended)
    store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
    changes = await read_history(store)
    await store.close()
    history = replay(changes)[POOL]
    decisions = sum(change.key == guard_key(POOL) for change in changes)
    asked = history.grants + history.tickets
    return {
        "clients": arguments.clients,
        "seats": arguments.seats,
        "served": len(tally.waits),
        "took_s": ended - began,
        "wait_p50_s": percentile(tally.waits, 50),
        "wait_max_s": max(tally.waits),
        "refusals": tally.refusals,
        "refusals_without_a_time": tally.refusals_without_a_time,
        "renewal_idle_p99_ms": 1000 * percentile(idle, 99),
        "renewal_storm_p99_ms": 1000 * percentile(stormy, 99),
        "renewal_p99_over_idle": percentile(stormy, 99) / percentile(idle, 99),
        "grants": history.grants,
        "tickets": history.tickets,
        "decisions": decisions,
        "decisions_over_one_for_16": decisions / (asked / 16),
        "max_out": history.max_out,
        "order_inversions": history.fault_counts.get(FaultKind.ORDER, 0),
        "faults": sum(history.fault_counts.values()),
    }


async def arrive(client: AsyncSeatClient, hold: float, tally: Tally) -> None:
    """Come within a second, wait for a seat, hold it, give it back."""
    await asyncio.sleep(random.random())
    asked = monotonic()
    try:
        grant = await client.acquire(POOL)
    except Overloaded as refused:  # after the client has come back again and again
        tally.refusals += 1
        tally.refusals_without_a_time += refused.retry_after is None
        return
    tally.waits.append(monotonic() - asked)
    await asyncio.sleep(hold)
    await grant.release()


if __name__ == "__main__":
    run(main)
