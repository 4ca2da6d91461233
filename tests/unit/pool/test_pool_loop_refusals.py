"""What a pool's loop refuses, at what cost, and what contention or a full store changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import pytest
from tests.unit.kit import (
    Ear,
    acquire,
    eventually,
    release,
    uuid7,
)
from tests.unit.loops import Loops, NodeLoop, granted, received, refusals
from tests.unit.pool.test_pool_loop_waits import ToOwner

from seatkeeper.server.domain import Command, Denied, Limits, Refusal, Released
from seatkeeper.server.pool import subscribers as subscribers_module
from seatkeeper.server.pool.subscribers import Position
from seatkeeper.server.routing.peers import Decided


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
    for number in (1, 2, 3):
        node.submit(release(number))
        for _ in range(20):  # it is long under way, if it does not wait for others
            await asyncio.sleep(0)
        assert len(node.store.commits) == before
    node.submit(release(4))  # half of the seats: worth a decision
    await received(ears[9])
    assert len(node.store.commits) == before + 1

    for number in range(9, 50):  # until few wait
        node.submit(release(number))
    await eventually(lambda: not node.loop.state.tickets)
    calm = len(node.store.commits)
    node.submit(release(5))
    await eventually(lambda: len(node.store.commits) > calm)
    node.submit(release(6))
    await eventually(lambda: uuid7(6) not in node.loop.state.grants)
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


# Releases ----------------------------------------------------------------------------------------


async def crowded(loops: Loops, *, seats: int = 3) -> NodeLoop:
    """Start a node with a grant, a ticket, and as many commands as may wait: its store is silent."""
    await loops.pool(seats=seats)
    node = await loops.node(commands_max=2)
    await received(node.submit(acquire(1, seats=seats)))
    node.submit(acquire(2))
    await eventually(lambda: node.loop.state.tickets)
    node.store.gate.clear()
    node.submit(acquire(3))
    await eventually(lambda: len(node.loop._inbox) == 0)
    for number in (4, 5):
        node.submit(acquire(number))
    return node


@pytest.mark.parametrize("number", [1, 2, 5], ids=["grant", "ticket", "not decided yet"])
async def test_a_release_of_what_there_is_is_accepted_however_many_commands_wait(
    loops: Loops, number: int
) -> None:
    node = await crowded(loops)
    full = node.submit(acquire(6))
    ear = node.submit(release(number))
    assert refusals(full) == [Refusal.OVERLOADED]
    assert ear.answers == []
    node.store.gate.set()
    await received(ear)
    assert ear.answers == [Released(uuid7(number))]


async def test_releases_that_do_not_fit_are_put_off_and_not_refused(loops: Loops) -> None:
    """A client takes UNAVAILABLE for undecided, also an older one; OVERLOADED it takes for done."""
    node = await crowded(loops)
    of_nothing, of_anothers = node.submit(release(9)), node.submit(release(1, "bert"))
    first, again = node.submit(release(1)), node.submit(release(1), Ear())
    for ear in (of_nothing, of_anothers, again):
        (denied,) = ear.answers
        assert isinstance(denied, Denied)
        assert denied.reason is Refusal.UNAVAILABLE
        assert denied.retry_after is not None
        assert "again" in denied.message
    assert first.answers == []
    assert len(node.loop._inbox) == 3


async def test_a_seat_that_was_put_off_can_be_released_when_there_is_room(loops: Loops) -> None:
    """What counts as on its way is what is on its way: not what was answered."""
    node = await crowded(loops)
    node.submit(release(1))
    node.store.gate.set()
    await eventually(lambda: uuid7(1) not in node.loop.state.grants)
    await eventually(lambda: uuid7(2) in node.loop.state.grants)
    node.store.gate.clear()
    for number in (7, 8, 9):
        node.submit(acquire(number))
    ear = node.submit(release(2))
    node.store.gate.set()
    await received(ear)
    assert ear.answers == [Released(uuid7(2))]


async def test_a_release_that_has_waited_too_long_is_accepted_again(loops: Loops) -> None:
    node = await crowded(loops)
    late = node.submit(release(1))
    loops.clock.advance(timedelta(seconds=11))
    node.store.gate.set()
    await received(late)
    assert refusals(late) == [Refusal.UNAVAILABLE]
    node.store.gate.clear()
    for number in (7, 8, 9):
        node.submit(acquire(number))
    ear = node.submit(release(1))
    node.store.gate.set()
    await received(ear)
    assert ear.answers == [Released(uuid7(1))]


async def test_an_owner_that_refuses_a_release_for_load_does_not_decide_it(
    loops: Loops,
) -> None:
    """A version before this one does so. The node that forwarded it decides itself."""
    await loops.pool(seats=1)
    owner, other = await loops.node(), await loops.node()
    await received(other.submit(acquire(1)))

    class Overloaded(ToOwner):
        async def decide(
            self,
            node_id: str,
            pool: str,
            commands: Sequence[Command],
            peers: Sequence[str] = (),
        ) -> Decided:
            return Decided(
                [Denied(c.grant_id, Refusal.OVERLOADED, "full") for c in commands], 0
            )

    other.loop._ownership.forwarder = Overloaded(owner)
    ear = other.submit(release(1))
    await received(ear)
    assert ear.answers == [Released(uuid7(1))]
    refused = other.submit(acquire(2))
    await received(refused)
    assert refusals(refused) == [Refusal.OVERLOADED], "but a request that is refused is refused"


# When to come back ---------------------------------------------------------------------------------


def retry_seconds(ears: Sequence[Ear]) -> list[float]:
    """When those who were refused are to come back."""
    denied = [update for ear in ears for update in ear.answers]
    return [
        update.retry_after.total_seconds()
        for update in denied
        if isinstance(update, Denied) and update.retry_after is not None
    ]


async def by_the_decision(loops: Loops) -> list[Ear]:
    """The queue is full, and only the decision can know."""
    node = await loops.node(limits=Limits(queue_max=1))
    return [node.submit(acquire(number)) for number in range(1, 13)][2:]


async def for_want_of_a_seat(loops: Loops) -> list[Ear]:
    node = await loops.node()
    await received(node.submit(acquire(1)))
    return [node.submit(acquire(number, may_wait=False)) for number in range(2, 12)]


async def when_their_wait_is_over(loops: Loops) -> list[Ear]:
    node = await loops.node()
    await received(node.submit(acquire(1)))
    ears = [node.submit(acquire(n, wait=timedelta(seconds=1))) for n in range(2, 12)]
    await eventually(lambda: len(node.loop.state.tickets) == 10)
    loops.clock.advance(timedelta(seconds=2))
    node.loop._wake.set()
    return ears


async def by_an_owner_elsewhere(loops: Loops) -> list[Ear]:
    owner, other = await loops.node(), await loops.node()
    await received(owner.submit(acquire(1)))
    other.loop._ownership.forwarder = ToOwner(owner)
    return [other.submit(acquire(number, may_wait=False)) for number in range(2, 12)]


async def by_an_overloaded_owner(loops: Loops) -> list[Ear]:
    owner, other = await loops.node(commands_max=0), await loops.node()
    other.loop._ownership.forwarder = ToOwner(owner)
    return [other.submit(acquire(number)) for number in range(2, 12)]


async def by_a_full_store(loops: Loops) -> list[Ear]:
    node = await loops.node()
    node.store.is_full = True
    return [node.submit(acquire(number)) for number in range(2, 12)]


async def of_unknown_outcome(loops: Loops) -> list[Ear]:
    node = await loops.node()
    node.store.is_down = True
    ears = [node.submit(acquire(number)) for number in range(2, 12)]
    loops.clock.advance(timedelta(seconds=11))
    return ears


@pytest.mark.parametrize(
    "refused",
    [
        by_the_decision,
        for_want_of_a_seat,
        when_their_wait_is_over,
        by_an_owner_elsewhere,
        by_an_overloaded_owner,
        by_a_full_store,
        of_unknown_outcome,
    ],
)
async def test_those_who_are_refused_together_do_not_come_back_together(
    loops: Loops, refused: Callable[[Loops], Awaitable[list[Ear]]]
) -> None:
    await loops.pool(seats=1)
    ears = await refused(loops)
    for ear in ears:
        await received(ear)
    pauses = retry_seconds(ears)
    assert len(pauses) == 10
    assert len(set(pauses)) == 10
    assert 1.0 <= min(pauses) < max(pauses) <= 3.0


async def test_a_full_queue_says_the_same_wherever_it_is_noticed(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node(limits=Limits(queue_max=1))
    ears = [node.submit(acquire(number)) for number in (1, 2, 3)]
    await received(ears[2])
    ears.append(node.submit(acquire(4)))
    texts = {
        update.message for ear in ears for update in ear.answers if isinstance(update, Denied)
    }
    assert texts == {"the queue is full (1 tickets); try again later"}
