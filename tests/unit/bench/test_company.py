"""A company's day: what is in it, who plays it, and the same day in the simulation."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import accumulate

import pytest
from bench.company_clients import Beliefs, DayClients, compressed_config
from bench.company_day import (
    HOLD_SECONDS,
    HOLD_SECONDS_MAX,
    HOUR,
    POD_SEATS,
    PODS,
    Ask,
    Day,
    Pool,
    deaths,
    ideal,
    working_day,
)
from bench.company_simulated import DayNotOverError, finish, simulated_day
from tests.simulation.world import World

from seatkeeper.client import AsyncSeatClient, ClientConfig, HoldingState, ServiceUnavailable

SMALL = working_day(3, transactions=300, hours=1).compressed(360)


@functools.cache
def the_day() -> Day:
    """Return a whole one; not made at import, which each worker does that runs tests."""
    return working_day(1)


# The day ------------------------------------------------------------------------------------------


def test_a_day_is_a_function_of_its_seed() -> None:
    assert working_day(1) == the_day()
    assert working_day(2) != the_day()


def test_a_day_has_the_pools_the_projects_and_the_transactions_that_were_asked_for() -> None:
    assert len(the_day().pools) == len(the_day().seats) == 40
    assert len(set(the_day().projects.values())) == 8
    assert len(the_day().asks) == 50_000
    assert [ask.at for ask in the_day().asks] == sorted(ask.at for ask in the_day().asks)


def test_a_machine_works_for_one_project() -> None:
    projects = defaultdict(set)
    for ask in the_day().asks:
        projects[ask.session].add(the_day().projects[ask.pool])
    assert all(len(found) == 1 for found in projects.values())
    assert len(the_day().machines) == 96


def test_a_hundred_pods_ask_for_twenty_seats_of_one_pool_at_the_start() -> None:
    pods = [ask for ask in the_day().asks if ask.session.startswith("pod-")]
    assert len(pods) == len({ask.session for ask in pods}) == PODS
    [pool] = {ask.pool for ask in pods}
    assert the_day().seats[pool] == POD_SEATS
    assert max(ask.at for ask in pods) < 60
    assert not set(the_day().machines) & {ask.session for ask in pods}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_eight_hundred_builds_are_held_at_once_and_all_are_served_the_same_day(
    seed: int,
) -> None:
    day = working_day(seed)
    served = ideal(day)
    ends = [ask.at + wait + ask.hold for ask, wait in zip(day.asks, served.waits, strict=True)]
    assert served.held_max >= 820
    assert max(ends) < 10 * HOUR
    queued = sum(wait > 0 for wait in served.waits) / len(served.waits)
    assert 0.25 < queued < 0.6, "or waits would say nothing, or the day would be one queue"


def test_what_is_held_at_the_peak_is_what_littles_law_says() -> None:
    """The rate of the busiest hour times the mean hold."""
    per_hour = Counter(int(ask.at // HOUR) for ask in the_day().asks)
    hour, count = per_hour.most_common(1)[0]
    hold = sum(ask.hold for ask in the_day().asks) / len(the_day().asks)
    assert hold == pytest.approx(HOLD_SECONDS, rel=0.05)
    changes = []
    for ask, wait in zip(the_day().asks, ideal(the_day()).waits, strict=True):
        changes += [(ask.at + wait, 1), (ask.at + wait + ask.hold, -1)]
    changes.sort()
    held = accumulate(change for _, change in changes)
    begin, end = hour * HOUR + HOLD_SECONDS_MAX, (hour + 1) * HOUR
    then = [number for (at, _), number in zip(changes, held, strict=True) if begin <= at < end]
    assert sum(then) / len(then) == pytest.approx(count / HOUR * hold, rel=0.1)


def test_the_ideal_service_serves_in_order_and_lets_no_seat_rest() -> None:
    asks = tuple(Ask(at, "m", "p", 10.0) for at in (0.0, 1.0, 2.0, 30.0))
    served = ideal(Day(40.0, (Pool("p", "x", 2),), asks))
    assert served.waits == [0.0, 0.0, 8.0, 0.0]
    assert served.held_max == 2


def test_a_compressed_day_is_the_same_day_faster() -> None:
    fast = the_day().compressed(50)
    assert fast.seconds == 720
    assert [ask.session for ask in fast.asks] == [ask.session for ask in the_day().asks]
    assert [50 * wait for wait in ideal(fast).waits] == pytest.approx(
        ideal(the_day()).waits, abs=1e-6
    )


def test_a_part_of_a_day_has_what_happens_in_it() -> None:
    part = the_day().part(HOUR, 2 * HOUR)
    within = [ask for ask in the_day().asks if HOUR <= ask.at < 2 * HOUR]
    assert [ask.at + HOUR for ask in part.asks] == pytest.approx([ask.at for ask in within])
    assert [replace(ask, at=0.0) for ask in part.asks] == [
        replace(ask, at=0.0) for ask in within
    ]
    assert (part.seconds, part.pools) == (HOUR, the_day().pools)


def test_a_node_dies_in_each_quarter_and_comes_back_before_the_next() -> None:
    dying = deaths(1, 12, 800.0, 12.0)
    assert [death.at for death in dying] == [100.0, 300.0, 500.0, 700.0]
    assert [death.back_at for death in dying] == [112.0, 312.0, 512.0, 712.0]
    assert len({death.node for death in dying}) == 4
    assert all(death.node < 2 for death in deaths(1, 2, 800.0, 12.0))
    assert not deaths(1, 1, 800.0, 12.0)


# Its clients --------------------------------------------------------------------------------------


def test_a_seat_believed_in_beyond_those_of_the_pool_is_counted() -> None:
    beliefs = Beliefs({"a": 1, "b": 2})
    beliefs.take("a")
    beliefs.take("b")
    assert (beliefs.over, beliefs.held_max) == (0, 2)
    beliefs.take("a")
    assert (beliefs.over, beliefs.held_max) == (1, 3)
    beliefs.give_back("a")
    beliefs.give_back("a")
    beliefs.take("a")
    assert (beliefs.over, beliefs.held_max) == (1, 3)


def test_what_paces_a_client_is_compressed_and_what_finds_a_dead_node_is_not() -> None:
    usual, fast = ClientConfig(), compressed_config(50)
    assert fast.ttl is not None
    assert fast.ttl.total_seconds() == 6.0
    assert fast.backoff.longest * 50 == usual.backoff.longest
    assert fast.renewal == usual.renewal
    assert fast.attempt_timeout == usual.attempt_timeout
    slowest = compressed_config(1e6).ttl
    assert slowest is not None
    assert slowest.total_seconds() == 2.0


class FakeGrant:
    """A grant of a service that takes no time."""

    def __init__(self, release: Callable[[], Awaitable[None]]) -> None:
        self.release = release


class FakeClient(AsyncSeatClient):
    """Answers as it is set to."""

    def __init__(self, answer: Callable[..., Awaitable[FakeGrant]]) -> None:
        self.answer = answer

    async def session(self) -> None:  # type: ignore[override]  # nothing reads what it returns
        pass

    async def acquire(self, pool: str, **terms: object) -> FakeGrant:  # type: ignore[override]  # as little of a client as is used
        return await self.answer(**terms)

    async def close(self) -> None:
        pass


def played(answer: Callable[..., Awaitable[FakeGrant]]) -> DayClients:
    """Let two builds of one machine ask a client that answers so."""
    day = Day(0.02, (Pool("p", "x", 1),), (Ask(0.0, "m", "p", 0.0), Ask(0.0, "m", "p", 0.0)))
    clients = DayClients(day, 1.0, lambda holder, config: FakeClient(answer))

    async def play() -> None:
        await clients.open()
        await clients.play()
        await clients.close()

    asyncio.run(play())
    return clients


async def at_once() -> None:
    """Take no time."""


def test_a_request_that_fails_for_its_caller_is_a_failed_call() -> None:
    async def refuse(**terms: object) -> FakeGrant:
        raise ServiceUnavailable("no node")

    record = played(refuse).record
    assert record.failures == {"acquire: ServiceUnavailable: no node": 2}
    assert (record.done, record.waits) == (0, [])


def test_a_seat_that_is_lost_is_a_failed_call_and_believed_in_no_more() -> None:
    async def lose(on_state: Callable[[HoldingState], None], **terms: object) -> FakeGrant:
        async def lost_by_now() -> None:
            on_state(HoldingState.LOST)

        on_state(HoldingState.LOST)
        return FakeGrant(lost_by_now)

    record = played(lose).record
    assert record.failures == {"grant: lost": 2}
    assert record.done == 0
    assert (record.beliefs.held_now, record.beliefs.over) == (0, 0)


def test_two_holders_of_one_seat_are_an_over_grant() -> None:
    async def grant(**terms: object) -> FakeGrant:
        return FakeGrant(at_once)

    record = played(grant).record
    assert record.done == 2
    assert record.beliefs.over == 1


def test_a_bug_in_a_build_is_not_lost() -> None:
    async def break_down(**terms: object) -> FakeGrant:
        raise ZeroDivisionError("a bug")

    assert played(break_down).record.failures == {"build: ZeroDivisionError: a bug": 2}


# The same in the simulation -----------------------------------------------------------------------


def test_a_day_in_simulation_is_served_whole_although_nodes_die() -> None:
    dying = deaths(1, 2, SMALL.seconds, 1.0)
    simulated = simulated_day(SMALL, 360, 2, dying, seed=1)
    record = simulated.record
    assert (record.done, len(record.waits)) == (300, 300)
    assert not record.failures
    assert not simulated.errors
    assert record.beliefs.over == 0
    expected = ideal(SMALL)
    assert sum(record.waits) > sum(expected.waits)
    assert abs(record.beliefs.held_max - expected.held_max) <= 5


def test_a_day_that_does_not_end_is_given_up() -> None:
    world = World(1)
    task = world.process("clients").start(asyncio.sleep(100.0))
    with pytest.raises(DayNotOverError, match="not done after 10 simulated seconds"):
        finish(world, task, 10.0)
    finish(world, task, 100.0)
