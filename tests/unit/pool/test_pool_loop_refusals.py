"""Who is refused by a pool's loop, at what cost, and what a throng or a full store changes."""

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
from tests.unit.loops import Loops, granted, heard, refusals

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
    refused = ears[3].heard[0]
    assert isinstance(refused, Denied)
    assert refused.retry_after is not None
    node.store.gate.set()
    await heard(ears[1])
    assert granted(ears[1]) == [uuid7(2)]


async def test_more_tickets_than_may_wait_in_the_queue_are_refused(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node(limits=Limits(queue_max=2))
    ears = [node.submit(acquire(number)) for number in range(1, 5)]
    await heard(ears[3])

    assert refusals(ears[3]) == [Refusal.OVERLOADED]
    assert (await loops.judged()).tickets == 2


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
    denied = [ear.heard[0] for ear in late]
    pauses = {news.retry_after for news in denied if isinstance(news, Denied)}
    assert len(pauses) > 1, "not all at one moment"
    node.store.gate.set()
    node.submit(release(1))
    await heard(ears[1])


async def test_a_full_queue_does_not_refuse_who_a_free_seat_can_serve_at_once(
    loops: Loops,
) -> None:
    await loops.pool(seats=2)
    node = await loops.node(limits=Limits(queue_max=1))
    await heard(node.submit(acquire(1)))
    large = node.submit(acquire(2, "bert", seats=2))
    await eventually(lambda: node.loop.state.tickets)
    urgent, usual = node.submit(acquire(3, "cora", priority=1)), node.submit(acquire(4, "dave"))
    await heard(urgent)
    await heard(usual)

    assert granted(urgent) == [uuid7(3)]
    assert refusals(usual) == [Refusal.OVERLOADED]
    assert large.answers == []


async def test_a_long_queue_is_told_its_places_in_turns(
    loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers_module, "POSITIONS_MAX", 2)
    await loops.pool(seats=1)
    node = await loops.node()
    ears = [node.submit(acquire(number)) for number in range(1, 8)]
    waiting = ears[1:]
    await eventually(lambda: all(ear.heard for ear in waiting))
    places = [
        news.position for ear in waiting for news in ear.heard if isinstance(news, Position)
    ]
    assert places == [1, 2, 3, 4, 5, 6]
    told = node.loop.subscribers.review_positions(node.loop.state, node.loop.forecast())
    assert not told, "nothing has changed"


async def test_in_a_throng_a_release_waits_for_others_and_without_one_it_does_not(
    loops: Loops,
) -> None:
    await loops.pool(seats=2)
    node = await loops.node(pause=timedelta(milliseconds=100))
    ears = [node.submit(acquire(number)) for number in range(1, 16)]
    await eventually(lambda: len(node.loop.state.tickets) == 13)
    before = len(node.store.commits)
    node.submit(release(1))
    for _ in range(20):  # the first is long under way, if it waits for nobody
        await asyncio.sleep(0)
    node.submit(release(2))
    await heard(ears[3])
    assert len(node.store.commits) == before + 1

    for number in range(5, 16):  # until few wait
        node.submit(release(number))
    await eventually(lambda: not node.loop.state.tickets)
    calm = len(node.store.commits)
    node.submit(release(3))
    await eventually(lambda: len(node.store.commits) > calm)
    node.submit(release(4))
    await eventually(lambda: not node.loop.state.grants)
    assert len(node.store.commits) == calm + 2


async def test_a_full_store_takes_seats_back_and_says_why_it_grants_none(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await heard(node.submit(acquire(1)))
    waiter = node.submit(acquire(2))
    await eventually(lambda: node.loop.state.tickets)
    node.store.is_full = True
    given, unknown, asked = (
        node.submit(command) for command in (release(1), release(9), acquire(3, "bert"))
    )
    for ear in (given, unknown, asked):
        await heard(ear)
    assert given.answers == [Released(uuid7(1))]
    for ear in (unknown, asked):
        assert refusals(ear) == [Refusal.UNAVAILABLE]
        (news,) = ear.answers
        assert isinstance(news, Denied)
        assert "full" in news.message
    assert waiter.answers == []
    node.store.is_full = False
    await heard(waiter)
    assert granted(waiter) == [uuid7(2)]
    late = node.submit(acquire(1))
    await heard(late)
    assert refusals(late) == [Refusal.FINISHED]


async def test_a_pool_that_does_not_exist_has_no_seats(loops: Loops) -> None:
    node = await loops.node()
    ear = node.submit(acquire(1))
    await heard(ear)
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
    await heard(ear)

    assert granted(ear) == [uuid7(1)]
