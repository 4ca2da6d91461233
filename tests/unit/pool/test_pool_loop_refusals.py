"""What a pool's loop refuses, at what cost, and what contention or a full store changes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.unit.kit import (
    acquire,
    eventually,
    release,
    uuid7,
)
from tests.unit.loops import Loops, granted, received, refusals

from seatkeeper.server.domain import Denied, Limits, Refusal, Released
from seatkeeper.server.pool import subscribers as subscribers_module
from seatkeeper.server.pool.subscribers import Position


async def test_more_commands_than_may_wait_to_be_decided_are_refused(loops: Loops) -> None:
    await loops.pool(seats=9)
    node = await loops.node(commands_max=2)
    node.store.gate.clear()
    ears = [node.submit(acquire(number)) for number in range(1, 5)]

    assert [refusals(ear) for ear in ears] == [
        [],
        [],
        [Refusal.OVERLOADED],
        [Refusal.OVERLOADED],
    ]
    refused = ears[3].received[0]
    assert isinstance(refused, Denied)
    assert refused.retry_after is not None
    node.store.gate.set()
    await received(ears[1])
    assert granted(ears[1]) == [uuid7(2)]


async def test_more_tickets_than_may_wait_in_the_queue_are_refused(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node(limits=Limits(queue_max=2))
    ears = [node.submit(acquire(number)) for number in range(1, 5)]
    await received(ears[3])

    assert refusals(ears[3]) == [Refusal.OVERLOADED]
    assert (await loops.checked()).tickets == 2


async def test_who_is_kept_out_of_a_full_queue_costs_the_store_nothing(loops: Loops) -> None:
    """The gate lets no transaction through, and all of them are answered."""
    await loops.pool(seats=1)
    node = await loops.node(limits=Limits(queue_max=2))
    ears = [node.submit(acquire(number)) for number in (1, 2, 3)]
    await eventually(lambda: len(node.loop.state.tickets) == 2)
    node.store.gate.clear()
    late = [node.submit(acquire(number)) for number in range(4, 40)]
    again = node.submit(acquire(3), ears[2])
    assert all(refusals(ear) == [Refusal.OVERLOADED] for ear in late)
    assert refusals(again) == [], "it has its place"
    denied = [ear.received[0] for ear in late]
    pauses = {update.retry_after for update in denied if isinstance(update, Denied)}
    assert len(pauses) > 1, "not all at one moment"
    node.store.gate.set()
    node.submit(release(1))
    await received(ears[1])


async def test_a_full_queue_does_not_refuse_who_a_free_seat_can_serve_at_once(
    loops: Loops,
) -> None:
    await loops.pool(seats=2)
    node = await loops.node(limits=Limits(queue_max=1))
    await received(node.submit(acquire(1)))
    large = node.submit(acquire(2, "bert", seats=2))
    await eventually(lambda: node.loop.state.tickets)
    urgent, usual = node.submit(acquire(3, "cora", priority=1)), node.submit(acquire(4, "dave"))
    await received(urgent)
    await received(usual)

    assert granted(urgent) == [uuid7(3)]
    assert refusals(usual) == [Refusal.OVERLOADED]
    assert large.answers == []


async def test_a_long_queue_gets_its_places_in_turns(
    loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers_module, "POSITIONS_MAX", 2)
    await loops.pool(seats=1)
    node = await loops.node()
    ears = [node.submit(acquire(number)) for number in range(1, 8)]
    waiting = ears[1:]
    await eventually(lambda: all(ear.received for ear in waiting))
    places = [
        update.position
        for ear in waiting
        for update in ear.received
        if isinstance(update, Position)
    ]
    assert places == [1, 2, 3, 4, 5, 6]
    reported = node.loop.subscribers.review_positions(node.loop.state, node.loop.forecast())
    assert not reported, "nothing has changed"


async def test_under_contention_a_release_waits_for_others_and_otherwise_it_does_not(
    loops: Loops,
) -> None:
    await loops.pool(seats=8)
    node = await loops.node(pause=timedelta(seconds=100))
    ears = [node.submit(acquire(number)) for number in range(1, 50)]
    await eventually(lambda: len(node.loop.state.tickets) == 41)
    before = len(node.store.commits)
    node.submit(release(1))
    for _ in range(20):  # the first is long under way, if it does not wait for others
        await asyncio.sleep(0)
    assert len(node.store.commits) == before
    node.submit(release(2))  # a quarter of the seats: worth a decision
    await received(ears[9])
    assert len(node.store.commits) == before + 1

    for number in range(9, 50):  # until few wait
        node.submit(release(number))
    await eventually(lambda: not node.loop.state.tickets)
    calm = len(node.store.commits)
    node.submit(release(3))
    await eventually(lambda: len(node.store.commits) > calm)
    node.submit(release(4))
    await eventually(lambda: uuid7(4) not in node.loop.state.grants)
    assert len(node.store.commits) == calm + 2


@pytest.mark.parametrize("seats", [1, 4])
async def test_of_few_seats_no_release_waits_for_another(loops: Loops, seats: int) -> None:
    """However many want them: there would be nothing more to serve."""
    await loops.pool(seats=seats)
    node = await loops.node(pause=timedelta(seconds=100))
    ears = [node.submit(acquire(number)) for number in range(1, 10 * seats)]
    await eventually(lambda: len(node.loop.state.tickets) == 9 * seats - 1)
    node.submit(release(1))

    await received(ears[seats])


async def test_a_full_store_takes_seats_back_and_says_why_it_grants_none(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    waiter = node.submit(acquire(2))
    await eventually(lambda: node.loop.state.tickets)
    node.store.is_full = True
    given, unknown, asked = (
        node.submit(command) for command in (release(1), release(9), acquire(3, "bert"))
    )
    for ear in (given, unknown, asked):
        await received(ear)
    assert given.answers == [Released(uuid7(1))]
    for ear in (unknown, asked):
        assert refusals(ear) == [Refusal.UNAVAILABLE]
        (update,) = ear.answers
        assert isinstance(update, Denied)
        assert "full" in update.message
    assert waiter.answers == []
    node.store.is_full = False
    await received(waiter)
    assert granted(waiter) == [uuid7(2)]
    late = node.submit(acquire(1))
    await received(late)
    assert refusals(late) == [Refusal.FINISHED]


async def test_a_pool_that_does_not_exist_has_no_seats(loops: Loops) -> None:
    node = await loops.node()
    ear = node.submit(acquire(1))
    await received(ear)
    assert refusals(ear) == [Refusal.POOL_NOT_FOUND]


async def test_a_pool_that_was_created_a_moment_ago_is_found_by_the_commit(
    loops: Loops,
) -> None:
    node = await loops.node()
    node.store.gate.clear()
    ear = node.submit(acquire(1))
    await eventually(lambda: node.store.commits)
    await loops.pool(seats=1)
    node.store.gate.set()
    await received(ear)

    assert granted(ear) == [uuid7(1)]
