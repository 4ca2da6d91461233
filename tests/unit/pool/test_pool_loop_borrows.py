"""Borrowed seats as several nodes' loops have them: lent, freed once, and in trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tests.unit.faults import UNKNOWN, Fault
from tests.unit.kit import KEYS, NOW, POOL, FakeClock, acquire, eventually, release, uuid7
from tests.unit.loops import Loops, NodeLoop, granted, received, refusals

from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.server.domain import (
    BorrowCommand,
    BorrowGrant,
    Denied,
    Noted,
    Outcome,
    PoolPolicy,
    PoolSpec,
    Refusal,
    Released,
    ReturnGrant,
)
from seatkeeper.server.events.usage import UsageKind
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.store import Put, records

DAY, SKEW = timedelta(days=1), timedelta(minutes=10)
LEND = BorrowGrant(uuid7(1), "anna", 1, DAY, b"k" * 32, "thumb")
GIVE_BACK = ReturnGrant(uuid7(1), "", 1)


@pytest.fixture
async def loops() -> AsyncIterator[Loops]:
    loops = Loops()
    yield loops
    await loops.close()


async def lending(loops: Loops, seats: int = 1, skew: timedelta = SKEW) -> None:
    await loops.pool(seats)
    policy = PoolPolicy(borrow=BorrowRule(longest=30 * DAY, skew=skew))
    spec = records.encode_spec(PoolSpec(POOL, seats, policy=policy))
    await loops.store.commit([Put(KEYS.pool(POOL), spec)])


async def said(node: NodeLoop, command: BorrowCommand) -> Outcome:
    listener = Forwarded()
    node.loop.submit(command, listener)
    return (await listener.outcome)[0]


async def lent(loops: Loops, node: NodeLoop) -> None:
    await received(node.submit(acquire(1)))
    assert isinstance(await said(node, LEND), Noted)
    await loops.end_session("anna")


async def test_of_several_nodes_one_frees_it_and_the_next_has_it(loops: Loops) -> None:
    await lending(loops)
    nodes = [await loops.node() for _ in range(3)]
    await lent(loops, nodes[0])
    bert = nodes[1].submit(acquire(2, "bert"))
    await eventually(lambda: all(uuid7(2) in node.loop.state.tickets for node in nodes))
    assert all(node.loop.state.borrowed_seats == 1 for node in nodes)
    loops.clock.advance(DAY + SKEW)
    for node in nodes:
        node.loop.ring_changed()  # as any change of the view: each looks at once
    await received(bert)
    assert granted(bert) == [uuid7(2)]
    ends = [
        event.kind
        for node in nodes
        for event in node.tally.usage_events
        if event.grant_id == uuid7(1) and event.kind is not UsageKind.GRANTED
    ]
    assert ends == [UsageKind.RELEASED]
    await loops.checked()


async def test_the_loop_wakes_at_the_day_although_nothing_happens(loops: Loops) -> None:
    await lending(loops, skew=timedelta(0))
    node = await loops.node()
    await received(node.submit(acquire(1)))
    short = BorrowGrant(uuid7(1), "anna", 1, timedelta(seconds=2), b"k" * 32, "thumb")
    assert isinstance(await said(node, short), Noted)
    await loops.end_session("anna")
    await eventually(lambda: not node.loop.state.completed.spans("anna"), "it is quiet")
    loops.clock.advance(timedelta(seconds=2))
    await eventually(lambda: not node.loop.state.grants, within=8)
    await loops.checked()


async def test_a_slower_clock_frees_nothing_and_brings_nothing_back(loops: Loops) -> None:
    await lending(loops)
    ahead = FakeClock(unix_millis=NOW + int((DAY + SKEW).total_seconds() * 1000))
    slow, fast = await loops.node(), await loops.node(clock=ahead)
    await lent(loops, slow)
    await eventually(lambda: uuid7(1) not in slow.loop.state.grants)
    assert not slow.loop.state.borrowed
    assert fast.loop.state.held == 0
    assert await said(slow, GIVE_BACK) == Released(uuid7(1))
    again = await said(slow, LEND)
    assert isinstance(again, Denied)
    assert again.reason is Refusal.FINISHED


@pytest.mark.parametrize("command", [LEND, GIVE_BACK])
@pytest.mark.parametrize("fault", UNKNOWN)
async def test_an_outcome_that_was_unknown_is_found_and_answered_as_done(
    loops: Loops, fault: Fault, command: BorrowCommand
) -> None:
    await lending(loops)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    if command is GIVE_BACK:
        assert isinstance(await said(node, LEND), Noted)
    node.store.faults.append(fault)
    outcome = await said(node, command)
    assert isinstance(outcome, Noted | Released)
    await loops.end_session("anna")
    held = bool((await loops.store.list(KEYS.grant(POOL, ""))).entries)
    assert held is (command is LEND)
    await loops.checked()


async def test_a_session_that_has_ended_unseen_has_lent_nothing(loops: Loops) -> None:
    """The watermark is of its lease, so the transaction is refused as a whole."""
    await lending(loops)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    node.store.watching.clear()
    await loops.end_session("anna")
    assert uuid7(1) in node.loop.state.grants, "the view does not know yet"
    outcome = await said(node, LEND)
    assert isinstance(outcome, Denied)
    assert outcome.reason is Refusal.FINISHED
    assert not (await loops.store.list(KEYS.grant(POOL, ""))).entries
    node.store.watching.set()
    await loops.checked()


async def test_in_a_full_store_nothing_is_lent_or_freed_until_there_is_room(
    loops: Loops,
) -> None:
    await lending(loops, seats=2)
    node = await loops.node()
    await lent(loops, node)
    await received(node.submit(acquire(2, "bert")))
    node.store.is_full = True
    other = BorrowGrant(uuid7(2), "bert", 2, DAY, b"o" * 32, "other")
    for command in (other, GIVE_BACK):
        outcome = await said(node, command)
        assert isinstance(outcome, Denied)
        assert outcome.reason is Refusal.UNAVAILABLE
    loops.clock.advance(DAY + SKEW)
    await received(given := node.submit(release(2, "bert")))
    assert refusals(given) == [], "releases are served"
    assert uuid7(1) in node.loop.state.grants
    node.store.is_full = False
    await eventually(lambda: not node.loop.state.grants, within=15)
    await loops.checked()


async def test_a_pool_is_followed_as_long_as_a_seat_is_borrowed(loops: Loops) -> None:
    await lending(loops)
    node = await loops.node()
    await lent(loops, node)
    assert not node.loop.idle
    assert await said(node, GIVE_BACK) == Released(uuid7(1))
    await eventually(lambda: node.loop.idle)
