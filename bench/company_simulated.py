"""A company's day in the simulation: the real nodes and the real clients, in virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.cluster import SimCluster
from tests.simulation.simulation import undisturbed
from tests.simulation.world import World

from bench.company_clients import END_SECONDS_MAX, DayClients, DayRecord
from bench.company_day import Day, Death
from bench.report import progress
from seatkeeper.client import AsyncSeatClient, ClientConfig

STARTING_SECONDS = 3.0
OPENING_SECONDS_MAX = 30.0
PROGRESS_STEPS = 10


class DayNotOverError(Exception):
    """A simulated day did not end."""


@dataclass(frozen=True)
class SimulatedDay:
    """What came of a day in simulation."""

    record: DayRecord
    errors: tuple[str, ...]
    """Uncaught ones."""
    took: float
    """Seconds of real time."""


def simulated_day(
    day: Day, speedup: float, nodes: int, deaths: Sequence[Death], seed: int
) -> SimulatedDay:
    """Play ``day``, which is compressed by ``speedup`` already. Raises ``DayNotOverError``.

    Must not be called in a thread whose event loop runs.
    """
    began = time.monotonic()
    with undisturbed(seed):
        record, errors = _simulated(day, speedup, World(seed), nodes, deaths)
    return SimulatedDay(record, tuple(errors), time.monotonic() - began)


def _simulated(
    day: Day, speedup: float, world: World, nodes: int, deaths: Sequence[Death]
) -> tuple[DayRecord, list[str]]:
    with SimCluster(world, nodes_count=nodes) as cluster:
        for pool in day.pools:
            cluster.pool(pool.name, pool.seats)
        world.run(STARTING_SECONDS)
        process = world.process("clients")

        def make_client(holder: str, config: ClientConfig) -> AsyncSeatClient:
            return cluster.client(process, config, holder=holder)

        clients = DayClients(day, speedup, make_client)
        finish(world, process.start(clients.open()), OPENING_SECONDS_MAX)
        for death in deaths:
            node = cluster.nodes[death.node]
            world.call_in(death.at, node.kill)
            world.call_in(death.back_at, node.start)
        for step in range(1, PROGRESS_STEPS):
            world.call_in(
                step * day.seconds / PROGRESS_STEPS,
                lambda: progress(f"  {clients.record.done} done"),
            )
        finish(world, process.start(clients.play()), day.seconds + 2 * END_SECONDS_MAX)
        errors = list(world.errors)
        finish(world, process.start(clients.close()), OPENING_SECONDS_MAX)
    return clients.record, errors


def finish(world: World, task: asyncio.Task[None], seconds_max: float) -> None:
    """Let time go by until a task is done."""
    world.run(world.now + seconds_max, done=task.done)
    if not task.done():
        raise DayNotOverError(f"not done after {seconds_max:.0f} simulated seconds")
    task.result()
