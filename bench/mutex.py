"""Measure one seat that many want, against etcd's own lock recipe.

A pool of one seat is a lock. ``CLIENTS`` take it in turns, each with a connection and a session of
its own, without anything to do while they have it (``hold 0``) and with 5 ms of it. The recipe is that
of etcd's Go client, over the same gRPC stack and the same etcd, with a lease that is kept
(``bench.lock_recipe``): one that made a lease for every turn would be slower.

- ``mutex_over_recipe``: our cycles a second over the recipe's, without work: the smallest of all
  numbers of clients. ``cycles_per_s_<n>`` and ``recipe_cycles_per_s_<n>`` are what it is made of.
- ``mutex_handoff_over_recipe``: the median time from when one client gives the lock back to when the
  next has it, with 5 ms of work: ours over the recipe's, the largest of all numbers of clients.
  ``handoff_p50_ms_<n>`` and ``recipe_handoff_p50_ms_<n>``; ``_p99_`` beside them.

Rounds of both are interleaved; each figure is the median of its rounds, and a ratio is the median of
the ratios within a round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import perf_counter

from bench.lock_recipe import LockClient
from bench.report import median, notify, parser, percentile, progress, run
from bench.service import IN_PROCESS, Service, running_service
from seatkeeper.client import AsyncSeatClient

CLIENTS = (2, 8, 32, 64)
HOLD_SECONDS = 0.005
LOCK = "bench-mutex"
Hold = Callable[[], Awaitable[None]]
Turn = Callable[[Hold], Awaitable[None]]


@dataclass
class Turns:
    """What one round showed."""

    cycles_per_s: float = 0.0
    handoffs: list[float] = field(default_factory=list)
    """Seconds from each return to the next client's turn."""


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5, help="rounds of each kind")
    options.add_argument("--seconds", type=float, default=1.5, help="length of a round")
    options.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    arguments = options.parse_args()
    results: dict[str, float] = {}
    async with running_service() as service:
        async with AsyncSeatClient(service.addresses[0], config=IN_PROCESS) as admin:
            await admin.pools.create(LOCK, seats=1)
        for count in arguments.clients:
            results |= await measure(service, count, arguments.rounds, arguments.seconds)
    counts = arguments.clients
    results["mutex_over_recipe"] = min(results[f"over_recipe_{n}"] for n in counts)
    results["mutex_handoff_over_recipe"] = max(
        results[f"handoff_over_recipe_{n}"] for n in counts
    )
    notify(results, arguments.json)


async def measure(
    service: Service, count: int, rounds: int, seconds: float
) -> dict[str, float]:
    """Return the figures of one number of clients."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        ours = [
            seat_turn(await enter(AsyncSeatClient(service.addresses[0], config=IN_PROCESS)))
            for _ in range(count)
        ]
        etcd = service.etcd.endpoints[0].removeprefix("http://")
        recipe = [
            lock_turn(await enter(LockClient.connected(etcd)), LOCK) for _ in range(count)
        ]
        for turns in (ours, recipe):  # connections come up outside the measurement
            await take_turns(turns, seconds / 5, 0.0)
        found: dict[tuple[str, float], list[Turns]] = {}
        for number in range(rounds):
            for hold in (0.0, HOLD_SECONDS):
                for name, turns in (("ours", ours), ("recipe", recipe)):
                    found.setdefault((name, hold), []).append(
                        await take_turns(turns, seconds, hold)
                    )
            progress(f"{count} clients, round {number + 1} of {rounds}: {_shown(found)}")
    return figures(count, found)


async def take_turns(turns: Sequence[Turn], seconds: float, hold_seconds: float) -> Turns:
    """Have every client take the lock again and again; no more than one has it."""
    shown = Turns()
    started = perf_counter()
    ends = started + seconds
    cycles = holders = 0
    returned_at = 0.0

    async def hold() -> None:
        nonlocal cycles, holders, returned_at
        if returned_at:
            shown.handoffs.append(perf_counter() - returned_at)
        holders += 1
        assert holders == 1, "two have the lock"
        if hold_seconds:
            await asyncio.sleep(hold_seconds)
        holders -= 1
        cycles += 1
        returned_at = perf_counter()

    async def work(turn: Turn) -> None:
        while perf_counter() < ends:
            await turn(hold)

    await asyncio.gather(*map(work, turns))
    shown.cycles_per_s = cycles / (perf_counter() - started)
    return shown


def seat_turn(client: AsyncSeatClient) -> Turn:
    """Return one turn of ours."""

    async def turn(hold: Hold) -> None:
        grant = await client.acquire(LOCK)
        await hold()
        await grant.release()

    return turn


def lock_turn(client: LockClient, name: str) -> Turn:
    """Return one turn of the recipe's."""

    async def turn(hold: Hold) -> None:
        await client.lock(name)
        await hold()
        await client.unlock(name)

    return turn


def figures(count: int, found: dict[tuple[str, float], list[Turns]]) -> dict[str, float]:
    """Return what the rounds of one number of clients showed."""
    results: dict[str, float] = {}
    for name, prefix in (("ours", ""), ("recipe", "recipe_")):
        rates = [turns.cycles_per_s for turns in found[name, 0.0]]
        results[f"{prefix}cycles_per_s_{count}"] = median(rates)
        for percent in (50, 99):
            times = [percentile(turns.handoffs, percent) for turns in found[name, HOLD_SECONDS]]
            results[f"{prefix}handoff_p{percent}_ms_{count}"] = 1000 * median(times)
    pairs = zip(found["ours", 0.0], found["recipe", 0.0], strict=True)
    results[f"over_recipe_{count}"] = median(
        [ours.cycles_per_s / recipe.cycles_per_s for ours, recipe in pairs]
    )
    pairs = zip(found["ours", HOLD_SECONDS], found["recipe", HOLD_SECONDS], strict=True)
    results[f"handoff_over_recipe_{count}"] = median(
        [
            percentile(ours.handoffs, 50) / percentile(recipe.handoffs, 50)
            for ours, recipe in pairs
        ]
    )
    return results


def _shown(found: dict[tuple[str, float], list[Turns]]) -> str:
    return ", ".join(
        f"{name} {'' if hold else 'without work '}{turns[-1].cycles_per_s:,.0f}/s"
        for (name, hold), turns in found.items()
    )


if __name__ == "__main__":
    run(main)
