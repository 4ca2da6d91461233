"""One pool's loop on one node and on several, with a store whose answers go missing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest
from tests.unit.faults import UNKNOWN, Fault
from tests.unit.kit import (
    KEYS,
    POOL,
    acquire,
    create_pool,
    eventually,
    open_lease,
    release,
    uuid7,
)
from tests.unit.loops import SESSIONS, Loops, NodeLoop, granted, kinds, received, refusals

from seatkeeper.server.domain import Grant, Refusal, Released
from seatkeeper.server.events.usage import UsageKind
from seatkeeper.server.pool.ownership import REPORTED_AT_ONCE
from seatkeeper.server.pool.subscribers import COPIES_MAX, Position, SeatsGranted, SeatsLost
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Delete, WatchBatch, records
from seatkeeper.server.system_clock import SystemClock


async def delivered_to(node: NodeLoop) -> None:
    """Wait until the watch has delivered to a node all that there is."""
    revision = (await node.store.list(KEYS.seats(POOL))).revision
    await eventually(lambda: node.loop._mirror._complete >= revision)


# The normal course ----------------------------------------------------------------------------


async def test_a_seat_goes_to_the_first_and_then_to_the_next(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    first, second = node.submit(acquire(1)), node.submit(acquire(2, "bert"))
    await received(first)
    await eventually(lambda: second.received)
    [place] = second.received
    assert isinstance(place, Position)
    assert place.position == 1

    node.submit(release(1), first)
    await received(second)

    assert kinds(first) == [SeatsGranted, Released]
    assert granted(second) == [uuid7(2)]
    judgement = await loops.checked()
    assert (judgement.grants, judgement.max_out, judgement.out) == (2, 1, 1)


async def test_commands_that_arrive_together_are_committed_together(loops: Loops) -> None:
    await loops.pool(seats=100)
    node = await loops.node()
    ears = [node.submit(acquire(number)) for number in range(1, 101)]
    for ear in ears:
        await received(ear)

    assert (await loops.checked()).decisions == 1


async def test_a_release_serves_the_next_ticket_in_one_transaction(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    holder = node.submit(acquire(1))
    await received(holder)
    waiter = node.submit(acquire(2, "bert"))
    await eventually(lambda: waiter.received)
    before = len(node.store.commits)
    node.submit(release(1), holder)
    await received(waiter)

    writes = node.store.commits[before]
    assert Delete(KEYS.grant(POOL, uuid7(1))) in writes
    assert KEYS.grant(POOL, uuid7(2)) in {write.key for write in writes}


async def test_a_busy_pool_answers_more_commands_than_fit_into_a_transaction(
    loops: Loops,
) -> None:
    await loops.pool(seats=300)
    node = await loops.node()
    ears = [node.submit(acquire(number)) for number in range(1, 401)]
    for ear in ears[:300]:
        await received(ear)
    more = [node.submit(release(number)) for number in range(1, 101)]
    for ear in (*more, *ears[300:]):
        await received(ear)

    judgement = await loops.checked()
    assert (judgement.grants, judgement.max_out) == (400, 300)


async def test_places_in_the_queue_move_up(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    ears = [node.submit(acquire(number)) for number in (1, 2, 3)]
    await eventually(lambda: ears[2].received)
    node.submit(release(1))
    await received(ears[1])
    await eventually(lambda: len(ears[2].received) == 2)

    assert [update.position for update in ears[2].received if isinstance(update, Position)] == [
        2,
        1,
    ]


# Time ---------------------------------------------------------------------------------------------


async def test_a_ticket_gives_up_in_time_though_nothing_else_happens(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node(clock=SystemClock())
    await received(node.submit(acquire(1)))
    ear = node.submit(acquire(2, "bert", wait=timedelta(seconds=0.08)))
    await received(ear)

    assert refusals(ear) == [Refusal.NO_SEAT_FREE]
    assert (await loops.checked()).waiting == 0


async def test_a_request_that_gave_up_is_not_granted_by_a_late_duplicate(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    ear = node.submit(acquire(2, "bert", wait=timedelta(seconds=1)))
    await eventually(lambda: ear.received)
    loops.clock.advance(timedelta(seconds=2))
    await received(node.submit(release(1)))
    await received(ear)
    again = node.submit(acquire(2, "bert", wait=timedelta(seconds=9)))
    await received(again)

    assert refusals(ear) == [Refusal.NO_SEAT_FREE]
    assert refusals(again) == [Refusal.FINISHED]


async def test_commands_that_cannot_be_committed_are_answered_after_a_while(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    node.store.is_down = True
    ear = node.submit(acquire(1))
    await eventually(lambda: node.loop._backoff.pause > 0.01)
    assert ear.received == []
    loops.clock.advance(timedelta(seconds=11))
    await received(ear)

    assert refusals(ear) == [Refusal.UNAVAILABLE]


async def test_commands_are_answered_after_a_while_though_the_pool_was_never_read(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node(is_down=True)
    ear = node.submit(acquire(1))
    loops.clock.advance(timedelta(seconds=11))
    await received(ear)

    assert refusals(ear) == [Refusal.UNAVAILABLE]


async def test_a_loop_that_has_not_read_its_pool_yet_is_not_idle(loops: Loops) -> None:
    """Else it could be put away under somebody who waits for that."""
    await loops.pool(seats=1)
    node = await loops.node(is_down=True)
    assert not node.loop.idle
    node.store.is_down = False
    await node.loop.listed()
    assert node.loop.idle


async def test_a_loop_that_stops_answers_everything(loops: Loops) -> None:
    await loops.pool(seats=5)
    node = await loops.node()
    node.store.gate.clear()
    under_way = node.submit(acquire(1))
    await eventually(lambda: node.store.commits)
    collected = node.submit(acquire(2))
    await node.loop.stop()

    assert refusals(under_way) == refusals(collected) == [Refusal.UNAVAILABLE]


async def test_a_loop_that_stops_leaves_tickets_and_grants_where_they_are(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    first, second = node.submit(acquire(1)), node.submit(acquire(2, "bert"))
    await received(first)
    await eventually(lambda: second.received)
    await node.loop.stop()

    assert second.answers == []
    judgement = await loops.checked()
    assert (judgement.out, judgement.waiting) == (1, 1)


# Capacity -----------------------------------------------------------------------------------------


async def test_raising_the_capacity_serves_those_who_wait(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    ears = [node.submit(acquire(number)) for number in (1, 2, 3, 4)]
    await received(ears[0])
    await loops.pool(seats=3)
    for ear in ears[:3]:
        await received(ear)

    assert ears[3].answers == []
    assert (await loops.checked()).max_out == 3


async def test_lowering_the_capacity_takes_nothing_and_grants_nothing_until_it_fits(
    loops: Loops,
) -> None:
    await loops.pool(seats=3)
    node = await loops.node()
    ears = [node.submit(acquire(number)) for number in (1, 2, 3, 4)]
    await received(ears[2])
    await loops.pool(seats=1)
    for number in (1, 2):
        await received(node.submit(release(number), ears[number - 1]), 2)
    assert ears[3].answers == []
    await received(node.submit(release(3), ears[2]), 2)
    await received(ears[3])

    assert [kinds(ear) for ear in ears[:3]] == 3 * [[SeatsGranted, Released]]
    assert (await loops.checked()).out == 1


async def test_a_capacity_that_was_lowered_unseen_is_kept_by_the_commit(loops: Loops) -> None:
    """The commit compares the specification's revision, so an old view cannot over-grant."""
    await loops.pool(seats=2)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    node.store.gate.clear()
    ear = node.submit(acquire(2))
    await eventually(lambda: len(node.store.commits) == 2)
    await loops.pool(seats=1)
    node.store.gate.set()
    await eventually(lambda: ear.received)

    assert isinstance(ear.received[0], Position)
    assert (await loops.checked()).max_out == 1


# Sessions that end -------------------------------------------------------------------------------


async def test_the_living_are_served_in_the_same_round_as_the_dead_are_refused(
    loops: Loops,
) -> None:
    await loops.pool(seats=5)
    node = await loops.node()
    await loops.end_session("bert")
    dead = node.submit(acquire(1, "bert"))
    living = [node.submit(acquire(2)), node.submit(acquire(3, "cora"))]
    for ear in (dead, *living):
        await received(ear)

    assert refusals(dead) == [Refusal.SESSION_LOST]
    assert [granted(ear) for ear in living] == [[uuid7(2)], [uuid7(3)]]
    assert len(node.store.commits) == 2, "once with the dead, once without"
    assert node.tally.dead == 1


async def test_sessions_that_keep_ending_delay_the_others_and_leave_no_outcome_unknown(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    await open_lease(loops.store, "emil")
    node = await loops.node()
    node.store.gate.clear()
    dead = [node.submit(acquire(number, name)) for number, name in enumerate(SESSIONS, start=1)]
    living = node.submit(acquire(9, "emil"))
    for tries, session in enumerate(SESSIONS, start=1):
        await eventually(lambda tries=tries: len(node.store.commits) == tries)
        await loops.end_session(session)
        node.store.gate.set()
        node.store.gate.clear()
    await eventually(lambda: node.tally.store_failures)

    assert node.tally.store_failures == ["LeaseNotFound"], (
        "the outcome is known: nothing changed"
    )
    assert node.tally.unknown == 0
    node.store.gate.set()
    for ear in (*dead, living):
        await received(ear)
    assert [refusals(ear) for ear in dead] == [[Refusal.SESSION_LOST]] * len(SESSIONS)
    assert granted(living) == [uuid7(9)]


async def test_a_waiter_whose_session_has_ended_is_skipped(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    dead, living = node.submit(acquire(2, "bert")), node.submit(acquire(3, "cora"))
    await eventually(lambda: living.received)
    await loops.end_session("bert")
    node.submit(release(1))
    for ear in (dead, living):
        await received(ear)

    assert kinds(dead) == [SeatsLost]
    assert granted(living) == [uuid7(3)]


async def test_a_holder_whose_session_ends_is_notified_and_its_seat_is_granted_again(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    holder, waiter = node.submit(acquire(1)), node.submit(acquire(2, "bert"))
    await received(holder)
    await eventually(lambda: waiter.received)
    await loops.end_session("anna")
    await received(waiter)
    await received(holder, 2)

    assert kinds(holder) == [SeatsGranted, SeatsLost]
    assert granted(waiter) == [uuid7(2)]


async def test_a_release_of_a_session_that_has_ended_succeeds(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await loops.end_session("anna")
    ear = node.submit(release(1))
    await received(ear)
    assert kinds(ear) == [Released]


async def test_a_grant_that_ended_while_it_was_being_looked_up_is_reported_as_lost(
    loops: Loops,
) -> None:
    """A request repeated just as the session ends must not wait for an answer forever."""
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    node.store.gate.clear()
    again = node.submit(acquire(1))
    await eventually(lambda: len(node.store.commits) == 2)
    await loops.end_session("anna")
    await eventually(lambda: not node.loop.state.grants)
    node.store.gate.set()
    await received(again)

    assert kinds(again) == [SeatsLost]


async def test_asking_again_and_releasing_in_one_batch_answers_both(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    node.store.gate.clear()
    blocker = node.submit(acquire(9, "bert"))
    await eventually(lambda: len(node.store.commits) == 2)
    asked, released = node.submit(acquire(1)), node.submit(release(1))
    node.store.gate.set()
    for ear in (asked, released, blocker):
        await received(ear)

    assert kinds(asked) == kinds(released) == [Released]


# Answers that go missing --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*UNKNOWN, Fault.UNAVAILABLE], ids=lambda fault: fault.name)
async def test_a_request_takes_one_seat_whatever_became_of_the_first_try(
    fault: Fault, loops: Loops
) -> None:
    await loops.pool(seats=2)
    node = await loops.node()
    node.store.faults.append(fault)
    ear = node.submit(acquire(1))
    await received(ear)

    assert granted(ear) == [uuid7(1)]
    judgement = await loops.checked()
    assert (judgement.grants, judgement.out) == (1, 1)
    assert node.store.injected == [fault]


@pytest.mark.parametrize("fault", UNKNOWN, ids=lambda fault: fault.name)
async def test_a_release_is_answered_when_it_is_sure_whatever_became_of_the_first_try(
    fault: Fault, loops: Loops
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    waiter = node.submit(acquire(2, "bert"))
    await eventually(lambda: waiter.received)
    node.store.faults.append(fault)
    ear = node.submit(release(1))
    await received(ear)
    await received(waiter)

    assert kinds(ear) == [Released]
    assert granted(waiter) == [uuid7(2)]
    assert (await loops.checked()).grants == 2


async def test_after_an_unknown_outcome_no_client_is_answered_before_the_guard_has_moved(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    before = node.loop._mirror.guard_revision
    node.store.faults.append(Fault.REQUEST_LOST)
    await received(node.submit(acquire(1)))

    assert node.loop._mirror.guard_revision > before
    assert [write.key for write in node.store.commits[-1]] == [KEYS.guard(POOL)]


async def test_a_lost_transaction_cannot_take_effect_after_an_answer(loops: Loops) -> None:
    """Two tries are lost and one of them arrives late: it finds the guard moved."""
    await loops.pool(seats=1)
    node = await loops.node()
    node.store.faults += [
        Fault.APPLIED_AFTER_THE_NEXT_COMMIT,
        Fault.APPLIED_AFTER_THE_NEXT_READ,
        Fault.ANSWER_LOST,
    ]
    ear = node.submit(acquire(1))
    await received(ear)
    await received(node.submit(release(1)))
    second = node.submit(acquire(2))
    await received(second)

    assert granted(second) == [uuid7(2)]
    judgement = await loops.checked()
    assert (judgement.grants, judgement.out) == (2, 1)


async def test_a_decision_is_believed_when_the_watch_delivers_it_first(loops: Loops) -> None:
    await loops.pool(seats=2)
    node = await loops.node()
    node.store.answers.clear()
    first = node.submit(acquire(1))
    await received(first)
    second = node.submit(acquire(2))
    await received(second)
    node.store.answers.set()

    assert granted(first) + granted(second) == [uuid7(1), uuid7(2)]
    assert (await loops.checked()).grants == 2


async def test_an_answer_that_is_lost_after_the_watch_delivered_changes_nothing(
    loops: Loops,
) -> None:
    await loops.pool(seats=2)
    node = await loops.node()
    node.store.answers.clear()
    node.store.faults.append(Fault.ANSWER_LOST)
    ear = node.submit(acquire(1))
    await received(ear)
    node.store.answers.set()
    await received(node.submit(release(1)))

    assert kinds(ear) == [SeatsGranted, Released]
    assert node.tally.unknown == 0


@pytest.mark.parametrize("answers_first", [True, False], ids=["answer first", "watch first"])
async def test_an_own_commit_is_not_decoded_when_the_watch_shows_it(
    answers_first: bool, loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    decode = records.decode_grant

    def noted(grant_id: str, value: bytes) -> Grant:
        decoded.append(grant_id)
        return decode(grant_id, value)

    monkeypatch.setattr(records, "decode_grant", noted)
    await loops.pool(seats=3)
    node = await loops.node()
    if not answers_first:
        node.store.answers.clear()
    for number in (1, 2, 3):
        await received(node.submit(acquire(number)))
        await delivered_to(node)
    assert decoded == []

    other = await loops.node()
    assert len(other.loop.state.grants) == 3
    assert decoded == [uuid7(1), uuid7(2), uuid7(3)]


async def test_a_pool_is_in_use_while_a_request_of_it_is_committed(loops: Loops) -> None:
    """Else it could be put away in that moment, and the request be answered "not known"."""
    await loops.pool(seats=1)
    node = await loops.node()
    await eventually(lambda: node.loop.idle)
    node.store.gate.clear()
    tried = len(node.store.commits)

    ear = node.submit(acquire(1, "bert"))
    await eventually(lambda: len(node.store.commits) > tried)
    assert not node.loop.idle
    node.store.gate.set()
    await received(ear)
    await received(node.submit(release(1, "bert")))

    await eventually(lambda: node.loop.idle)


async def test_many_seats_that_end_at_once_are_all_reported(loops: Loops) -> None:
    count = 2 * REPORTED_AT_ONCE + 1
    await loops.pool(seats=count)
    node = await loops.node()
    for ear in [node.submit(acquire(number, "bert")) for number in range(1, count + 1)]:
        await received(ear)

    await loops.end_session("bert")

    def expired() -> list[str]:
        ended = [each for each in node.tally.usage_events if each.kind is UsageKind.EXPIRED]
        return [each.grant_id for each in ended]

    await eventually(lambda: len(expired()) >= count)
    assert sorted(expired()) == sorted(uuid7(number) for number in range(1, count + 1))


async def test_what_happened_before_an_own_commit_is_applied_before_it(loops: Loops) -> None:
    """The session of a grant ends, and then the grant is given back; one batch shows both."""
    await loops.pool(seats=9)
    node = await loops.node()
    for number in (1, 2, 3):
        await received(node.submit(acquire(number, "bert")))
    for number in (1, 3):  # from now on a release of the second writes no watermark
        await received(node.submit(release(number, "bert")))
    await delivered_to(node)
    node.store.watching.clear()
    node.store.answers.clear()
    node.store.gate.clear()
    tried = len(node.store.commits)
    ear = node.submit(release(2, "bert"))
    await eventually(lambda: len(node.store.commits) > tried)
    first = (await loops.store.list("")).revision + 1
    await loops.end_session("bert")
    ended = (await loops.store.list("")).revision
    node.store.gate.set()
    async with aclosing(loops.store.watch(KEYS.seats(POOL), from_revision=first)) as watch:
        batches = [await anext(watch)]
        while batches[-1].revision <= ended:
            batches.append(await anext(watch))
    node.loop.apply(WatchBatch(sum((b.changes for b in batches), ()), batches[-1].revision))
    await received(ear)

    def kinds_of_usage() -> list[UsageKind]:
        return [each.kind for each in node.tally.usage_events if each.grant_id == uuid7(2)]

    await eventually(lambda: len(kinds_of_usage()) > 1)
    assert kinds_of_usage() == [UsageKind.GRANTED, UsageKind.EXPIRED]
    node.store.watching.set()
    node.store.answers.set()
    assert (await loops.checked()).out == 0


@pytest.mark.parametrize("answers_first", [True, False], ids=["answer first", "watch first"])
async def test_a_loop_that_stops_answers_each_command_once_in_whatever_moment(
    answers_first: bool,
    loops: Loops,
) -> None:
    await loops.pool(seats=100)
    for turns in range(25):
        node = await loops.node()
        if not answers_first:
            node.store.answers.clear()
        ears = [node.submit(acquire(10 * turns + place)) for place in (1, 2)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await node.loop.stop()
        node.store.answers.set()

        assert [len(ear.answers) for ear in ears] == [1, 1], f"stopped after {turns} turns"


# Several nodes --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
async def test_nodes_that_decide_at_once_never_grant_one_seat_twice(
    count: int, loops: Loops
) -> None:
    await loops.pool(seats=3)
    nodes = [await loops.node() for _ in range(count)]
    asked = [(number, nodes[number % count]) for number in range(1, 61)]
    ears = {number: node.submit(acquire(number)) for number, node in asked}
    served: set[int] = set()
    while len(served) < len(ears):
        await eventually(lambda: any(ears[n].answers for n in ears if n not in served))
        for number, ear in ears.items():
            if number not in served and ear.answers:
                served.add(number)
                assert granted(ear) == [uuid7(number)]
                nodes[(number + 1) % count].submit(release(number))

    assert sum(node.tally.conflicts for node in nodes) > 0, "they never met"
    await eventually(lambda: all(not node.loop.state.grants for node in nodes))
    judgement = await loops.checked()
    assert (judgement.grants, judgement.max_out, judgement.out) == (60, 3, 0)


async def test_a_waiter_is_notified_of_a_grant_that_another_node_decided(loops: Loops) -> None:
    await loops.pool(seats=1)
    here, there = await loops.node(), await loops.node()
    await received(there.submit(acquire(1)))
    waiter = here.submit(acquire(2, "bert"))
    await eventually(lambda: waiter.received)
    here.store.gate.clear()  # this node cannot decide anything
    await eventually(lambda: there.loop.state.tickets)
    await received(there.submit(release(1)))
    await received(waiter)

    assert granted(waiter) == [uuid7(2)]


async def test_a_waiter_is_served_though_its_node_is_gone(loops: Loops) -> None:
    await loops.pool(seats=1)
    here, there = await loops.node(), await loops.node()
    await received(there.submit(acquire(1)))
    waiter = here.submit(acquire(2, "bert"))
    await eventually(lambda: waiter.received)
    await here.loop.stop()
    await loops.end_session("anna")
    await eventually(lambda: uuid7(2) in there.loop.state.grants)

    resumed = there.submit(acquire(2, "bert"))
    await received(resumed)
    assert granted(resumed) == [uuid7(2)]
    assert (await loops.checked()).grants == 2


async def test_a_late_duplicate_through_another_node_takes_no_effect(loops: Loops) -> None:
    await loops.pool(seats=5)
    here, there = await loops.node(), await loops.node()
    await received(here.submit(acquire(1)))
    await received(here.submit(release(1)))
    late = there.submit(acquire(1))
    await received(late)

    assert refusals(late) == [Refusal.FINISHED]
    assert (await loops.checked()).grants == 1


async def test_a_late_duplicate_through_a_node_that_has_just_begun_takes_no_effect(
    loops: Loops,
) -> None:
    await loops.pool(seats=5)
    here = await loops.node()
    await received(here.submit(acquire(1)))
    await received(here.submit(acquire(2)))
    await received(here.submit(release(2)))
    await received(here.submit(release(1)))
    late = (await loops.node()).submit(acquire(1))
    await received(late)

    assert refusals(late) == [Refusal.FINISHED]


async def test_a_refusal_is_true_on_every_node(loops: Loops) -> None:
    """Sent through two nodes, of which one has just begun and knows little, it takes no seat."""
    await loops.pool(seats=5)
    there = await loops.node()
    for number in (1, 3):
        await received(there.submit(acquire(number)))
        await received(there.submit(release(number)))
    here = await loops.node()
    refused = here.submit(acquire(2))
    await received(refused)
    late = there.submit(acquire(2))
    await received(late)

    assert refusals(refused) == refusals(late) == [Refusal.FINISHED]


async def test_a_release_through_a_node_that_has_just_begun_is_true_on_every_node(
    loops: Loops,
) -> None:
    await loops.pool(seats=5)
    there = await loops.node()
    await received(there.submit(acquire(2)))
    await received(there.submit(release(2)))
    here = await loops.node()
    await received(here.submit(release(1)))
    late = there.submit(acquire(1))
    await received(late)

    assert refusals(late) == [Refusal.FINISHED]


async def test_an_acquire_that_arrives_after_its_release_takes_no_effect(loops: Loops) -> None:
    await loops.pool(seats=5)
    here, there = await loops.node(), await loops.node()
    await received(here.submit(release(1)))
    late = there.submit(acquire(1))
    await received(late)

    assert refusals(late) == [Refusal.FINISHED]
    assert (await loops.checked()).grants == 0


async def test_every_copy_of_a_request_is_answered(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    first = node.submit(acquire(2, "bert"))
    await eventually(lambda: first.received)
    second = node.submit(acquire(2, "bert"))
    await eventually(lambda: second.received)
    await received(node.submit(release(1)))
    await received(first)
    await received(second)

    assert granted(first) == granted(second) == [uuid7(2)]


async def test_of_very_many_copies_of_a_request_the_oldest_are_dropped(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    copies = [node.submit(acquire(2, "bert")) for _ in range(COPIES_MAX + 2)]
    for copy in copies[:2]:
        await received(copy)
    assert [refusals(copy) for copy in copies[:2]] == 2 * [[Refusal.UNAVAILABLE]]
    await received(node.submit(release(1)))
    for copy in copies[2:]:
        await received(copy)
    assert all(granted(copy) == [uuid7(2)] for copy in copies[2:])


async def test_a_watch_that_breaks_is_begun_again_and_misses_nothing(loops: Loops) -> None:
    await loops.pool(seats=1)
    here, there = await loops.node(), await loops.node()
    await received(there.submit(acquire(1)))
    waiter = here.submit(acquire(2, "bert"))
    await eventually(lambda: waiter.received)
    loops.store.end_watches("cut")
    await received(there.submit(release(1)))
    await received(waiter)

    assert granted(waiter) == [uuid7(2)]


async def test_a_node_that_cannot_watch_reads_the_pool_after_a_conflict(loops: Loops) -> None:
    await loops.pool(seats=2)
    here, there = await loops.node(), await loops.node()
    here.loop._tasks[0].cancel()  # it follows no more
    await received(there.submit(acquire(1)))
    ear = here.submit(acquire(2, "bert"))
    await received(ear)

    assert granted(ear) == [uuid7(2)]
    assert here.tally.conflicts == 1


async def test_followers_are_notified_of_changes_made_elsewhere(loops: Loops) -> None:
    await loops.pool(seats=1)
    here, there = await loops.node(), await loops.node()
    assert here.loop.idle
    with here.loop.following() as changed:
        assert not here.loop.idle
        changed.clear()
        there.submit(acquire(1))
        async with asyncio.timeout(5):
            await changed.wait()
        await eventually(lambda: here.loop.state.held == 1)
    assert here.loop.idle


async def test_the_listener_of_a_grant_may_get_ready_while_it_is_committed(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    node.store.gate.clear()
    ear, stranger = node.submit(acquire(1)), node.submit(acquire(1, "bert"))
    await eventually(lambda: ear.expected)
    assert ear.answers == []
    node.store.gate.set()
    await received(ear)
    await received(stranger)

    assert ear.answers == [SeatsGranted(ear.expected[0])]
    assert stranger.expected == []
    assert refusals(stranger) == [Refusal.NOT_YOURS]


async def test_lease_ids_that_follow_from_names_are_valid_and_their_own() -> None:
    ids = {lease_id_of(uuid7(number)) for number in range(1000)}
    assert len(ids) == 1000
    assert all(0 < lease_id < 2**63 for lease_id in ids)


async def test_nothing_is_written_for_a_question_that_changes_nothing(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    before = (await loops.store.list("")).revision
    for _ in range(3):
        await received(node.submit(acquire(1)))
    assert (await loops.store.list("")).revision == before
    assert node.store.commits[-1] == []


async def test_a_pool_that_is_deleted_and_created_again_goes_on_with_its_fence(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    await received(node.submit(release(1)))
    await loops.store.commit([Delete(KEYS.pool(POOL))])
    gone = node.submit(acquire(2))
    await received(gone)
    await create_pool(loops.store, 1)
    ear = node.submit(acquire(3))
    await received(ear)

    assert refusals(gone) == [Refusal.POOL_NOT_FOUND]
    [reported] = ear.answers
    assert isinstance(reported, SeatsGranted)
    assert reported.grant.fence == 2
