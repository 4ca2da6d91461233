"""Measure how fast a seat goes from one holder to the next.

100 clients, each with a session and a stream of its own, share 20 seats; each holds a seat for 50 ms
and asks again at once, so that 80 always wait. A handoff is the time from the moment a holder gives its
seat back (it calls ``release``) to the moment the next client has it (its ``acquire`` returns), both as
the clients see it: releases and grants of a pool are paired in order, which is the pairing with the
least sum. ``seat_idle_pct`` is the seat-time not held, of the seat-time of the run, by the
same clock; while it runs somebody always waits.

``raw_txn_*`` is one guarded etcd transaction at a time, before and after, on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import perf_counter

from bench.grants import raw
from bench.report import notify, parser, percentile, progress, run
from bench.service import IN_PROCESS, Service, running_service
from seatkeeper.client import AsyncSeatClient
from seatkeeper.oracle.history import read_history, replay
from seatkeeper.server.store import Store
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

POOL = "handoff"


@dataclass
class Timeline:
    """When seats were taken and given back, by one clock, each in order."""

    taken: list[float] = field(default_factory=list)
    given: list[float] = field(default_factory=list)
    held_before: int = 0
    """Seats held when it begins."""
    began: float = 0.0
    ended: float = 0.0

    def between(self, began: float, ended: float) -> Timeline:
        """Return the part of it from ``began`` to ``ended``."""

        def within(moments: Sequence[float]) -> list[float]:
            return [moment for moment in moments if began <= moment < ended]

        before = sum(m < began for m in self.taken) - sum(m < began for m in self.given)
        return Timeline(within(self.taken), within(self.given), before, began, ended)

    def handoffs(self, seats: int) -> list[float]:
        """Return the time between each seat given back and its being taken again."""
        free_before = seats - self.held_before
        return [
            taken - given
            for given, taken in zip(self.given, self.taken[free_before:], strict=False)
        ]

    def idle_percent(self, seats: int) -> float:
        """Return the seat-time not held, of all seat-time, in percent."""
        steps = sorted([(m, +1) for m in self.taken] + [(m, -1) for m in self.given])
        held, at, idle = self.held_before, self.began, 0.0
        for moment, step in [*steps, (self.ended, 0)]:
            idle += (seats - held) * (moment - at)
            held, at = held + step, moment
        return 100 * idle / (seats * (self.ended - self.began))


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=100)
    options.add_argument("--seats", type=int, default=20)
    options.add_argument("--hold-ms", type=float, default=50.0)
    options.add_argument("--seconds", type=float, default=15.0)
    arguments = options.parse_args()
    async with running_service() as service:
        store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
        raw_seconds = await raw_latencies(store)
        timeline = await take_turns_all(service, arguments)
        raw_seconds += await raw_latencies(store)
        history = replay(await read_history(store))[POOL]
        await store.close()
    handoffs = timeline.handoffs(arguments.seats)
    raw_p50, p50 = percentile(raw_seconds, 50), percentile(handoffs, 50)
    notify(
        {
            "clients": arguments.clients,
            "seats": arguments.seats,
            "hold_ms": arguments.hold_ms,
            "handoffs": len(handoffs),
            "raw_txn_p50_ms": 1000 * raw_p50,
            "raw_txn_p99_ms": 1000 * percentile(raw_seconds, 99),
            "handoff_p50_ms": 1000 * p50,
            "handoff_p99_ms": 1000 * percentile(handoffs, 99),
            "handoff_p50_over_raw_p50": p50 / raw_p50,
            "seat_idle_pct": timeline.idle_percent(arguments.seats),
            "max_out": history.max_out,
            "faults": sum(history.fault_counts.values()),
        },
        arguments.json,
    )


async def raw_latencies(store: Store, samples: int = 500) -> list[float]:
    """Return how long guarded transactions take, one at a time."""
    seconds = []
    for _ in range(samples):
        started = perf_counter()
        await raw(store, 0)
        seconds.append(perf_counter() - started)
    return seconds


async def take_turns_all(service: Service, arguments: argparse.Namespace) -> Timeline:
    """Let the clients take seats in turns; return the time during which all of them did."""
    timeline = Timeline()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncSeatClient(service.addresses, config=IN_PROCESS)
            )
            for _ in range(arguments.clients)
        ]
        await clients[0].pools.create(POOL, seats=arguments.seats)
        ends = perf_counter() + arguments.seconds
        progress(f"{arguments.clients} clients for {arguments.seconds:.0f} s")
        hold = arguments.hold_ms / 1000
        await asyncio.gather(*(take_turns(client, hold, ends, timeline) for client in clients))
    # The start, while clients still connect, and the end, when no client waits any more, do not count.
    return timeline.between(ends - arguments.seconds * 0.8, ends - 2 * hold)


async def take_turns(
    client: AsyncSeatClient, hold: float, ends: float, timeline: Timeline
) -> None:
    """Take a seat, hold it, give it back, again and again until ``ends``."""
    while perf_counter() < ends:
        grant = await client.acquire(POOL)
        timeline.taken.append(perf_counter())
        await asyncio.sleep(hold)
        timeline.given.append(perf_counter())
        await grant.release()


if __name__ == "__main__":
    run(main)
