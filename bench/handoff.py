"""Measure how fast a seat goes from one holder to the next.

100 clients, each with a session and a stream of its own, share 20 seats; each holds a seat for 50 ms
and asks again at once, so that 80 always wait. A handoff is the time from the moment a holder gives its
seat back (it calls ``release``) to the moment the next client has it (its ``acquire`` returns), both as
the clients see it: releases and grants of a pool are paired in order, which is the pairing with the
least sum. ``seat_idle_pct`` is the seat-time not held, of the seat-time of the run, by the
same clock; while it runs somebody always waits.

Holds are drawn evenly from half to one and a half times the 50 ms. ``constant_`` is the same with holds
of 50 ms each, which keep in step: many seats are given back at a moment and served one by one.

``raw_txn_*`` is one guarded etcd transaction at a time, before and after each round, on the same
machine. Every figure is the median of its rounds', ``*_over_*`` of the ratios within a round.

``part_*_p50_ms`` are the parts of a handoff (``bench.handoff_parts``), from a further round with a node
that notes the time of what it does, and is slower for it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from bench.grants import raw
from bench.handoff_parts import parts
from bench.report import median, notify, parser, percentile, progress, run
from bench.service import IN_PROCESS, Service, running_service
from bench.traced_node import running_traced_node
from seatkeeper.client import AlreadyExists, AsyncSeatClient
from seatkeeper.oracle.history import read_history, replay
from seatkeeper.server.store import Store
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

RANDOM, CONSTANT, TRACED = "random", "constant", "traced"
HOLDS = (RANDOM, CONSTANT)
"""Kinds of rounds; each has a pool of its name."""


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


@dataclass
class Turns:
    """When each grant was taken and given back, by its id, in order."""

    taken: dict[str, float] = field(default_factory=dict)
    given: dict[str, float] = field(default_factory=dict)

    @property
    def timeline(self) -> Timeline:
        """All of it, without the ids."""
        return Timeline(list(self.taken.values()), list(self.given.values()))


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=100)
    options.add_argument("--seats", type=int, default=20)
    options.add_argument("--hold-ms", type=float, default=50.0)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--seconds", type=float, default=6.0, help="length of each kind in a round"
    )
    arguments = options.parse_args()
    async with running_service() as service:
        store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
        rounds = [
            await one_round(service.addresses, store, arguments)
            for _ in range(arguments.rounds)
        ]
        parts_of = await traced_round(service, arguments)
        histories = replay(await read_history(store))
        await store.close()
    notify(
        {
            "clients": arguments.clients,
            "seats": arguments.seats,
            "hold_ms": arguments.hold_ms,
            **{key: median([each[key] for each in rounds]) for key in rounds[0]},
            **parts_of,
            "max_out": max(histories[kind].max_out for kind in HOLDS),
            "faults": sum(sum(each.fault_counts.values()) for each in histories.values()),
        },
        arguments.json,
    )


async def one_round(
    addresses: Sequence[str], store: Store, arguments: argparse.Namespace
) -> dict[str, float]:
    """Measure everything once; return the figures."""
    raw_seconds = await raw_latencies(store)
    timelines = {
        kind: await take_turns_all(addresses, kind, arguments, Turns()) for kind in HOLDS
    }
    raw_seconds += await raw_latencies(store)
    raw_p50 = percentile(raw_seconds, 50)
    figures = {
        "raw_txn_p50_ms": 1000 * raw_p50,
        "raw_txn_p99_ms": 1000 * percentile(raw_seconds, 99),
    }
    for kind, timeline in timelines.items():
        handoffs = timeline.handoffs(arguments.seats)
        p50, p99 = percentile(handoffs, 50), percentile(handoffs, 99)
        prefix = "" if kind == RANDOM else f"{kind}_"
        figures |= {
            f"{prefix}handoffs": len(handoffs),
            f"{prefix}handoff_p50_ms": 1000 * p50,
            f"{prefix}handoff_p99_ms": 1000 * p99,
            f"{prefix}handoff_p50_over_raw_p50": p50 / raw_p50,
            f"{prefix}handoff_p99_over_raw_p50": p99 / raw_p50,
            f"{prefix}seat_idle_pct": timeline.idle_percent(arguments.seats),
        }
    return figures


async def traced_round(service: Service, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure once with a node that notes what it does; return how long each part takes."""
    turns = Turns()
    async with running_traced_node(service) as node:
        await take_turns_all([node.address], TRACED, arguments, turns)
    found = parts(node.trace, turns.given, turns.taken, arguments.seats)
    known = {part: seconds for part, seconds in found.items() if seconds}
    return {
        f"part_{part}_p50_ms": 1000 * percentile(seconds, 50) for part, seconds in known.items()
    }


async def raw_latencies(store: Store, samples: int = 500) -> list[float]:
    """Return how long guarded transactions take, one at a time."""
    seconds = []
    for _ in range(samples):
        started = perf_counter()
        await raw(store, 0)
        seconds.append(perf_counter() - started)
    return seconds


async def take_turns_all(
    addresses: Sequence[str], kind: str, arguments: argparse.Namespace, turns: Turns
) -> Timeline:
    """Let the clients take seats of the pool ``kind`` in turns; return when all of them did."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncSeatClient(addresses, config=IN_PROCESS))
            for _ in range(arguments.clients)
        ]
        with suppress(AlreadyExists):  # in every round but the first
            await clients[0].pools.create(kind, seats=arguments.seats)
        ends = perf_counter() + arguments.seconds
        progress(f"{kind}: {arguments.clients} clients for {arguments.seconds:.0f} s")
        hold = arguments.hold_ms / 1000
        lengths = partial(random.uniform, hold / 2, hold * 3 / 2) if kind != CONSTANT else None
        await asyncio.gather(
            *(
                take_turns(each, kind, lengths or (lambda: hold), ends, turns)
                for each in clients
            )
        )
    # The start, while clients still connect, and the end, when no client waits any more, do not count.
    return turns.timeline.between(ends - arguments.seconds * 0.8, ends - 2 * hold)


async def take_turns(
    client: AsyncSeatClient, pool: str, hold: Callable[[], float], ends: float, turns: Turns
) -> None:
    """Take a seat, hold it, give it back, again and again until ``ends``."""
    while perf_counter() < ends:
        grant = await client.acquire(pool)
        turns.taken[grant.grant_id] = perf_counter()
        await asyncio.sleep(hold())
        turns.given[grant.grant_id] = perf_counter()
        await grant.release()


if __name__ == "__main__":
    run(main)
