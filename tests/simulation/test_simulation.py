"""The simulation itself: that a seed replays exactly, and that what is said of it is so."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest
from tests.simulation import simulation
from tests.simulation.lots import lots_of
from tests.simulation.network import Network, Pipe
from tests.simulation.world import StuckError, World


@pytest.mark.parametrize("seed", [6, 19])
def test_a_seed_keeps_every_promise_and_has_one_outcome(seed: int) -> None:
    first, second = simulation.simulate(seed), simulation.simulate(seed)
    assert first == second
    assert (first.seed, first.violations) == (seed, [])
    assert first.operations > 0


def test_bursts_of_rules_and_overdrafts_are_among_what_is_simulated() -> None:
    """Seeds are looked through whose first pool may have both."""
    drawn = ((seed, lots_of(seed)(1)) for seed in range(1_000))
    seeds = [seed for seed, lots in drawn if lots.rule and any(o.overdraft for o in lots.lots)]
    bursts = overdrawn = 0
    for seed in seeds[:40]:
        outcome = simulation.simulate(seed)
        assert outcome.violations == []
        bursts, overdrawn = bursts + outcome.lots[0], overdrawn + outcome.lots[1]
        if bursts and overdrawn:
            return
    raise AssertionError(f"{bursts} bursts by a rule, {overdrawn} grants of an overdraft")


def test_a_seed_leaves_logging_and_chance_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        assert logging.root.manager.disable == logging.CRITICAL
        random.random()
        raise ZeroDivisionError

    monkeypatch.setattr(simulation, "_simulate", fail)
    before = logging.root.manager.disable, random.getstate()
    with pytest.raises(ZeroDivisionError):
        simulation.simulate(6)
    assert (logging.root.manager.disable, random.getstate()) == before


def test_time_goes_by_at_once_and_only_when_all_is_quiet() -> None:
    world = World(1)
    reported: list[tuple[str, float]] = []

    async def work(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        reported.append((name, world.now))

    for name, seconds in (("late", 3600.0), ("early", 0.5)):
        world.process(name).start(work(name, seconds))
    world.run(7200.0)
    assert reported == [("early", 0.5), ("late", 3600.0)]
    assert world.now == 7200.0


def test_a_paused_process_does_what_was_due_when_it_resumes() -> None:
    world = World(1)
    reported: list[float] = []
    process = world.process("paused")

    async def work() -> None:
        await asyncio.sleep(1.0)
        reported.append(world.now)

    process.start(work())
    world.run(0.5)
    process.pause()
    world.call_at(5.0, process.resume)
    world.run(10.0)
    assert reported == [5.0]


def test_a_killed_process_does_nothing_more() -> None:
    world = World(1)
    reported: list[float] = []
    process = world.process("killed")

    async def work() -> None:
        try:
            await asyncio.sleep(1.0)
        finally:
            reported.append(world.now)

    process.start(work())
    world.call_at(0.5, process.kill)
    world.run(10.0)
    assert reported == []


def test_work_without_end_at_one_moment_is_noticed() -> None:
    world = World(1)

    async def work() -> None:
        while True:
            await asyncio.sleep(0)

    world.process("busy").start(work())
    with pytest.raises(StuckError):
        world.run(1.0)


def test_what_is_sent_while_the_way_is_cut_arrives_in_order_when_it_is_whole() -> None:
    world = World(1)
    network = Network(world, world.rng)
    source, target = world.process("a"), world.process("b")
    pipe = Pipe(network, source, target)
    arrived: list[tuple[int, float]] = []
    network.cut("a", "b")
    for number in range(5):
        pipe.send(lambda number=number: arrived.append((number, world.now)))  # type: ignore[misc]  # mypy infers no type for a default of a lambda
    world.call_at(2.0, lambda: network.recover("a", "b"))
    world.run(10.0)
    assert [number for number, _ in arrived] == [0, 1, 2, 3, 4]
    assert all(at >= 2.0 for _, at in arrived)
    assert not network.is_cut("a", "b")


def test_messages_on_one_pipe_never_overtake_each_other() -> None:
    world = World(1)
    network = Network(world, world.rng)
    pipe = Pipe(network, world.process("a"), world.process("b"))
    arrived: list[int] = []
    for number in range(200):
        pipe.send(lambda number=number: arrived.append(number))  # type: ignore[misc]  # mypy infers no type for a default of a lambda
    world.run(60.0)
    assert arrived == list(range(200))


def test_an_uncaught_error_is_not_lost() -> None:
    world = World(1)

    async def work() -> None:
        raise ValueError("a bug")

    task = world.process("wrong").start(work())
    world.run(1.0)
    del task
    assert any("a bug" in error for error in world.errors)
