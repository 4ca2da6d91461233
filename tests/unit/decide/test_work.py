"""Requests that name the same work: one holds seats at a time, and the others wait for its end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.decide.test_decide import answers, decided, granted_ids, only, pool
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, changed, release, uuid7

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Acquire,
    Denied,
    Grant,
    Granted,
    Instant,
    Limits,
    PoolSpec,
    PoolState,
    Queued,
    Refusal,
    Release,
    Ticket,
    WorkEnd,
)
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.order import ListedOrder
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot

DONE = WorkEnd()
FAILED = WorkEnd("ModelRejected", "the model has no outputs")


def asks(number: int, work_key: str = "k", **terms: object) -> Acquire:
    return changed(acquire(number, **terms), work_key=work_key)  # type: ignore[arg-type]  # the test gives fields by name


def waits(number: int, work_key: str = "k", **terms: object) -> Ticket:
    return changed(a_ticket(number, **terms), work_key=work_key)  # type: ignore[arg-type]  # the test gives fields by name


def holds(number: int, work_key: str = "k", **terms: object) -> Grant:
    return changed(a_grant(number, **terms), work_key=work_key)  # type: ignore[arg-type]  # the test gives fields by name


def ends(number: int, end: WorkEnd | None = DONE, session: str = "anna") -> Release:
    return replace(release(number, session), work_end=end)


def denied_tickets(decision: Decision) -> dict[str, Denied]:
    return {d.grant_id: d for mark in decision.marks.values() for d in mark.denied}


def ids(*numbers: int) -> list[str]:
    return [uuid7(number) for number in numbers]


def test_of_requests_for_the_same_work_one_is_granted() -> None:
    decision = decided(pool(seats=9), asks(1), asks(2), asks(3, "other"), acquire(4))
    assert granted_ids(decision) == ids(1, 3, 4)
    assert [type(outcome) for _, outcome in decision.outcomes].count(Queued) == 1


def test_a_request_for_work_that_is_done_waits_although_seats_are_free() -> None:
    assert isinstance(only(decided(pool(holds(1), seats=9), asks(2))), Queued)


def test_those_behind_it_are_served() -> None:
    state = pool(holds(1), waits(2), waits(3), a_ticket(4), seats=2)
    assert granted_ids(decided(state)) == ids(4)


def test_when_its_holder_says_nothing_the_next_does_the_work_at_the_place_it_kept() -> None:
    state = pool(holds(1), waits(2), a_ticket(3), seats=1)
    assert granted_ids(decided(state, ends(1, None))) == ids(2)


def test_the_one_of_the_highest_priority_does_it() -> None:
    state = pool(a_grant(1), waits(2), waits(3, priority=5), seats=1)
    assert granted_ids(decided(state, release(1))) == ids(3)


def test_when_it_is_done_those_who_wait_are_answered_and_no_seat_is_taken() -> None:
    state = pool(holds(1), waits(2), waits(3, session="bert"), a_ticket(4), seats=1)
    decision = decided(state, ends(1))
    assert granted_ids(decision) == ids(4)
    assert sorted(decision.tickets_ended) == ids(2, 3, 4)
    denied = denied_tickets(decision)
    assert sorted(denied) == ids(2, 3)
    assert {d.reason for d in denied.values()} == {Refusal.WORK_ENDED}
    assert {d.work_end for d in denied.values()} == {DONE}


def test_a_failure_that_would_come_again_answers_all_with_it() -> None:
    denied = denied_tickets(decided(pool(holds(1), waits(2)), ends(1, FAILED)))
    assert denied[uuid7(2)].work_end == FAILED
    assert "the model has no outputs" in denied[uuid7(2)].message


def test_other_work_is_not_ended() -> None:
    state = pool(holds(1), waits(2, "other"), a_ticket(3), seats=1)
    decision = decided(state, ends(1))
    assert (granted_ids(decision), denied_tickets(decision)) == (ids(2), {})


@pytest.mark.parametrize(
    "said",
    [
        ends(2),  # of a ticket: who waits has done nothing
        ends(1, session="bert"),  # of another session's grant
        ends(3),  # of a grant without a key
        ends(7),  # of nothing
    ],
)
def test_only_the_holder_can_end_the_work(said: Release) -> None:
    state = pool(holds(1), waits(2), a_grant(3, fence=2), waits(4, session="cora"), seats=5)
    decision = decided(state, said)
    assert denied_tickets(decision) == {}
    assert granted_ids(decision) == []


def test_requests_of_the_same_batch_are_answered_with_it_too() -> None:
    again = asks(2)
    state = pool(holds(1), waits(2), seats=1)
    decision = decided(state, again, asks(3), ends(1), asks(4))
    assert answers(decision) == {
        0: "Released",
        1: "WORK_ENDED",
        2: "WORK_ENDED",
        3: "WORK_ENDED",
    }
    assert decision.tickets == []
    spans = [span for mark in decision.marks.values() for span in mark.spans]
    for number in (2, 3, 4):  # late copies take no effect
        assert any(low <= uuid7(number) <= high for low, high in spans)


def test_as_many_are_answered_as_fit_and_the_next_is_granted() -> None:
    sessions = [f"s{number}" for number in range(40)]
    waiting = [waits(number, session=sessions[number]) for number in range(2, 40)]
    decision = decided(pool(holds(1), *waiting, seats=1), ends(1), writes_max=20)
    assert 5 < len(denied_tickets(decision)) < 38
    assert decision.writes <= 20
    state = pool(holds(1), *waiting, seats=1)
    served = {*granted_ids(decision)}
    assert served <= {*state.tickets} - {*denied_tickets(decision)}


def test_one_that_may_not_wait_is_denied_with_that_reason() -> None:
    decision = decided(pool(holds(1), seats=9), asks(2, may_wait=False))
    [outcome] = [outcome for _, outcome in decision.outcomes]
    assert isinstance(outcome, Denied)
    assert outcome.reason is Refusal.NO_SEAT_FREE
    assert "does, or is to do, the same work" in outcome.message


@pytest.mark.parametrize(("seats", "served"), [(1, []), (2, [9])])
def test_one_that_may_not_wait_holds_back_none_unless_it_is_served(
    seats: int, served: list[int]
) -> None:
    """The ticket is the first in the queue, and those behind it may not overtake it."""
    state = pool(waits(1, seats=2), a_ticket(2), seats=seats)
    state.put_grant(a_grant(7))
    state.spec = PoolSpec(POOL, seats + 1)
    urgent = asks(9, priority=3, seats=2, may_wait=False)
    assert granted_ids(decided(state, urgent)) == ids(*served)
    assert not FIFO.plan(PoolSnapshot.of(state), Instant(NOW)).hold_back(waits(1, seats=2))


def test_a_dead_holder_keeps_the_work_until_its_seats_are_free() -> None:
    state = pool(holds(1), waits(2, session="bert"), seats=5)
    state.dead_sessions.add("anna")
    assert granted_ids(decided(state)) == []
    state.remove_grant(uuid7(1))
    assert granted_ids(decided(state)) == ids(2)


def test_tickets_of_a_dead_session_hold_up_none_for_the_same_work() -> None:
    state = pool(waits(1), waits(2, session="bert"), seats=5)
    state.dead_sessions.add("anna")
    assert granted_ids(decided(state)) == ids(2)


def test_a_policy_that_serves_the_same_work_twice_is_not_followed() -> None:
    class Twice:
        def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
            tickets = list(pool.state.queue(pool.new))
            return Plan(serve=tickets, order=ListedOrder(lambda: tickets))

    state = pool(waits(1), waits(2), seats=5)
    decision = decide(state, [], Instant(NOW), Limits(), policy=Twice())
    assert granted_ids(decision) == ids(1)
    state = pool(holds(1), waits(2), seats=5)
    assert granted_ids(decide(state, [], Instant(NOW), Limits(), policy=Twice())) == []


def test_the_key_goes_with_the_ticket_into_the_grant() -> None:
    decision = decided(pool(waits(1)))
    assert [grant.work_key for grant in decision.grants] == ["k"]
    [(_, outcome)] = decided(pool(), asks(2)).outcomes
    assert isinstance(outcome, Granted)
    assert outcome.grant.work_key == "k"


def order_of(state: PoolState) -> list[str]:
    plan = FIFO.plan(PoolSnapshot.of(state), Instant(NOW))
    return [ticket.grant_id for ticket in plan.order]


def test_those_whose_work_is_in_progress_come_last_in_the_order() -> None:
    state = pool(holds(1), waits(2), waits(3, "other"), waits(4, "other"), a_ticket(5))
    assert order_of(state) == ids(3, 5, 2, 4)
    plan = FIFO.plan(PoolSnapshot.of(state), Instant(NOW))
    held_back = [t.grant_id for t in state.tickets.values() if plan.hold_back(t)]
    assert held_back == ids(2, 4)
    assert plan.hold_back(waits(9))
    assert plan.hold_back(waits(9, "other"))
    assert not plan.hold_back(waits(9, "new"))
    assert not plan.hold_back(a_ticket(9))


def test_the_indexes_follow_grants_and_tickets() -> None:
    state = pool(holds(1), waits(2), waits(3))
    assert state.work_held == {"k": {uuid7(1)}}
    assert state.work_waiting == {"k": {uuid7(2), uuid7(3)}}
    state.put_ticket(waits(3, "other"))
    state.remove_ticket(uuid7(2))
    state.remove_grant(uuid7(1))
    assert (state.work_held, state.work_waiting) == ({}, {"other": {uuid7(3)}})
    state.remove_ticket(uuid7(3))
    assert state.work_waiting == {}
