"""When those who wait are turned away: not before their time, and then, whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from tests.unit.kit import FakeClock, acquire, eventually, release
from tests.unit.loops import Loops, NodeLoop, received, refusals

from seatkeeper.server.domain import Command, Refusal
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.routing.peers import Decided
from seatkeeper.server.system_clock import SystemClock


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


class ToOwner:
    """Passes what one node is asked on to another."""

    def __init__(self, owner: NodeLoop) -> None:
        self._owner = owner

    def owner(self, pool: str) -> str:
        return "owner"

    def owner_elsewhere(self, pool: str) -> str:
        return "owner"

    async def decide(
        self, node_id: str, pool: str, commands: Sequence[Command], peers: Sequence[str] = ()
    ) -> Decided:
        passed = [Forwarded() for _ in commands]
        for command, listener in zip(commands, passed, strict=True):
            self._owner.loop.submit(command, listener)
        decided = await asyncio.gather(*(listener.outcome for listener in passed))
        revision = max(revision for _, revision in decided)
        return Decided([outcome for outcome, _ in decided], revision)


async def queued(node: NodeLoop) -> None:
    await eventually(lambda: node.loop.state.tickets)


async def turned_away(node: NodeLoop) -> None:
    await eventually(lambda: not node.loop.state.tickets)


async def test_a_wait_begins_when_the_request_comes_however_slow_the_store_is(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    node.store.is_down = True
    ear = node.submit(acquire(2, "bert", wait=seconds(5)))
    await eventually(lambda: node.loop._backoff.pause > 0.01)
    loops.clock.advance(seconds(4))
    node.store.is_down = False
    await queued(node)
    assert ear.answers == []
    loops.clock.advance(seconds(1))
    node.loop._wake.set()  # the timers here do not know of this clock
    await received(ear)

    assert refusals(ear) == [Refusal.NO_SEAT_FREE]


async def test_so_it_does_where_another_node_decides_slowly(loops: Loops) -> None:
    await loops.pool(seats=1)
    clock = FakeClock()  # that of the owner stands still
    owner, node = await loops.node(), await loops.node(clock=clock)
    node.loop._ownership.forwarder = ToOwner(owner)
    await received(node.submit(acquire(1)))
    owner.store.gate.clear()
    commits = len(owner.store.commits)
    ear = node.submit(acquire(2, "bert", wait=seconds(5)))
    await eventually(lambda: len(owner.store.commits) > commits)
    clock.advance(seconds(4))
    owner.store.gate.set()
    await queued(node)
    clock.advance(seconds(1.5))
    node.loop._wake.set()  # the timers here do not know of this clock
    await received(ear)

    assert refusals(ear) == [Refusal.NO_SEAT_FREE]


async def test_at_a_node_that_started_lately_what_is_left_of_a_wait_counts(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    first = await loops.node()
    await received(first.submit(acquire(1)))
    first.submit(acquire(2, "bert", wait=seconds(60)))
    await queued(first)
    await first.loop.stop()
    loops.clock.advance(seconds(59))
    second = await loops.node()
    ear = second.submit(acquire(2, "bert", wait=seconds(1)))
    await eventually(lambda: ear.received)
    assert ear.answers == []
    loops.clock.advance(seconds(1))
    second.loop._wake.set()
    await received(ear)

    assert refusals(ear) == [Refusal.NO_SEAT_FREE]


async def test_a_wait_that_is_given_later_ends_with_no_seat_free(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    node.submit(acquire(2, "bert"))
    await queued(node)
    ear = node.submit(acquire(2, "bert", wait=seconds(0.05)))
    await eventually(lambda: ear.received)
    loops.clock.advance(seconds(1))
    await received(ear)

    assert refusals(ear) == [Refusal.NO_SEAT_FREE]


async def test_a_node_without_the_client_denies_where_the_others_are_gone(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    asked = await loops.node(clock=SystemClock())
    other_node = await loops.node(clock=SystemClock())
    await received(asked.submit(acquire(1)))
    asked.submit(acquire(2, "bert", wait=seconds(0.2)))
    await queued(other_node)
    await asked.loop.stop()
    await turned_away(other_node)

    assert (await loops.checked()).waiting == 0


async def test_a_busy_node_turns_away_itself_where_the_owner_does_not(loops: Loops) -> None:
    await loops.pool(seats=1)
    owner = await loops.node()  # its clock stands still
    node = await loops.node(clock=SystemClock())
    node.loop._ownership.forwarder = ToOwner(owner)
    await received(node.submit(acquire(1)))
    ear = node.submit(acquire(2, "bert", wait=seconds(0.2)))
    await queued(node)
    number = 100
    while not ear.answers:
        number += 1
        node.submit(acquire(number, "cora", may_wait=False))
        await asyncio.sleep(0)
        assert number < 200_000

    assert refusals(ear) == [Refusal.NO_SEAT_FREE]


async def test_a_node_goes_on_measuring_though_it_has_no_client(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    ear = node.submit(acquire(1))
    await received(ear)
    waiter = node.submit(acquire(2, "bert", wait=seconds(5)))
    await queued(node)
    node.loop.subscribers.detach(acquire(1).grant_id, ear)
    node.loop.subscribers.detach(acquire(2).grant_id, waiter)
    assert len(node.loop.subscribers) == 0
    assert not node.loop.idle
    loops.clock.advance(seconds(5))
    await received(node.submit(release(9)))
    await turned_away(node)

    assert node.loop.idle


async def test_a_full_store_denies_requests_whose_wait_is_over(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node(clock=SystemClock())
    await received(node.submit(acquire(1)))
    node.store.is_full = True
    late = node.submit(acquire(3, "cora", wait=seconds(0.1)))
    await received(late)
    node.store.is_full = False
    ear = node.submit(acquire(2, "bert", wait=seconds(0.2)))
    await queued(node)
    node.store.is_full = True
    await received(ear)

    assert refusals(late) == [Refusal.UNAVAILABLE]
    assert refusals(ear) == [Refusal.NO_SEAT_FREE]
