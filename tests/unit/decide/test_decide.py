"""Decisions, one case each. What is always true of them is in ``test_decide_properties.py``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, changed, release, uuid7

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Acquire,
    Command,
    Denied,
    Grant,
    Granted,
    Guard,
    Instant,
    Limits,
    Outcome,
    PoolSpec,
    PoolState,
    Queued,
    Refusal,
    Release,
    Released,
    Ticket,
    Watermark,
)


def pool(*records: Grant | Ticket, seats: int = 1) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, seats))
    for record in records:
        if isinstance(record, Grant):
            state.put_grant(record)
        else:
            state.put_ticket(record)
    fence = max((grant.fence for grant in state.grants.values()), default=0)
    number = max((ticket.number for ticket in state.tickets.values()), default=0)
    state.guard = Guard(fence, number)
    return state


def decided(
    state: PoolState,
    *commands: Command,
    now: int = NOW,
    writes_max: int = 127,
    queue_max: int = 100,
    due: Sequence[Ticket] = (),
) -> Decision:
    limits = Limits(writes_max=writes_max, queue_max=queue_max)
    return decide(state, commands, Instant(now), limits, due)


def answers(decision: Decision) -> dict[int, str]:
    """What became of each command, in few words, by its place among the outcomes."""
    return dict(enumerate(in_words(outcome) for _, outcome in decision.outcomes))


def in_words(outcome: Outcome) -> str:
    match outcome:
        case Denied(reason=reason):
            return reason.name
        case _:
            return type(outcome).__name__


def only(decision: Decision) -> Outcome:
    [(_, outcome)] = decision.outcomes
    return outcome


def granted_ids(decision: Decision) -> list[str]:
    return [grant.grant_id for grant in decision.grants]


def test_a_free_seat_is_granted_without_a_ticket() -> None:
    decision = decided(pool(seats=1), acquire(1, seats=1, priority=3))

    [grant] = decision.grants
    assert only(decision) == Granted(grant)
    assert (grant.grant_id, grant.session_id, grant.fence) == (uuid7(1), "anna", 1)
    assert (grant.priority, grant.asked_at, grant.granted_at) == (3, NOW, NOW)
    assert decision.guard == Guard(fence=1, ticket_number=1)
    assert decision.writes == 1


def test_without_a_free_seat_the_request_is_queued() -> None:
    decision = decided(pool(a_grant(1, fence=7)), acquire(2, "bert", wait=timedelta(seconds=9)))

    [ticket] = decision.tickets
    assert only(decision) == Queued(ticket)
    assert (ticket.number, ticket.queued_at, ticket.wait) == (1, NOW, timedelta(seconds=9))
    assert decision.guard == Guard(fence=7, ticket_number=1)
    assert decision.grants == []


def test_a_release_hands_the_seat_to_the_next_in_the_same_decision() -> None:
    state = pool(a_grant(1, fence=7), a_ticket(2, order=4, session="bert"))
    decision = decided(state, release(1))

    assert decision.grants_ended == [uuid7(1)]
    assert decision.tickets_ended == granted_ids(decision) == [uuid7(2)]
    assert decision.grants[0].fence == 8
    assert decision.grants[0].asked_at == NOW
    spans = ((uuid7(1), uuid7(1)),)
    assert decision.marks == {"anna": Watermark(release(1).lease_id, uuid7(1), spans=spans)}
    assert only(decision) == Released(uuid7(1))


def test_a_request_that_does_not_wait_is_denied_and_completed() -> None:
    decision = decided(pool(a_grant(1)), acquire(2, "bert", may_wait=False))

    assert answers(decision) == {0: "NO_SEAT_FREE"}
    assert decision.tickets == []
    assert decision.marks["bert"] == Watermark(
        acquire(2, "bert").lease_id,
        uuid7(2),
        unrecorded=[uuid7(2)],
        spans=((uuid7(2), uuid7(2)),),
    )


def test_asking_again_finds_the_grant_or_the_ticket_and_changes_nothing() -> None:
    grant, ticket = a_grant(1), a_ticket(2, session="bert")
    decision = decided(pool(grant, ticket), acquire(1), acquire(2, "bert"))

    assert [outcome for _, outcome in decision.outcomes] == [Granted(grant), Queued(ticket)]
    assert decision.writes == 0


def test_asking_twice_in_one_batch_takes_one_seat() -> None:
    decision = decided(pool(seats=5), acquire(1), acquire(1))

    assert granted_ids(decision) == [uuid7(1)]
    assert answers(decision) == {0: "Granted", 1: "Granted"}


@pytest.mark.parametrize("other", [{"seats": 2}, {"project": "nlp"}, {"priority": 1}], ids=str)
@pytest.mark.parametrize("seats", [1, 3], ids=["ticket", "grant"])
def test_an_id_that_asked_for_something_else_is_refused_and_keeps_what_it_has(
    seats: int, other: dict[str, Any]
) -> None:
    first = acquire(1)
    state = pool(a_grant(2), a_ticket(1), seats=1) if seats == 1 else pool(a_grant(1), seats=3)
    decision = decided(state, changed(first, **other), first)

    kept = "Queued" if seats == 1 else "Granted"
    assert set(answers(decision).values()) == {"OTHER_TERMS", kept}
    assert decision.writes == 0


@pytest.mark.parametrize("record", [a_grant(1), a_ticket(1)], ids=["grant", "ticket"])
@pytest.mark.parametrize(
    "command", [acquire(1, "bert"), release(1, "bert")], ids=["acquire", "release"]
)
def test_the_ids_of_another_session_are_refused_and_nothing_is_changed(
    record: Grant | Ticket, command: Command
) -> None:
    blocker = a_grant(9, seats=1)
    decision = decided(pool(record, blocker), command)

    assert answers(decision) == {0: "NOT_YOURS"}
    assert decision.writes == 0


def test_an_id_asked_for_in_the_same_batch_belongs_to_who_asked_first() -> None:
    decision = decided(pool(), acquire(1), acquire(1, "bert"), release(1, "bert"))

    assert answers(decision) == {0: "NOT_YOURS", 1: "NOT_YOURS", 2: "Granted"}
    assert decision.grants[0].session_id == "anna"


def test_releasing_what_never_was_succeeds_and_outlaws_a_late_acquire() -> None:
    state = pool(seats=5)
    decision = decided(state, release(3), acquire(3))

    assert answers(decision) == {0: "Released", 1: "FINISHED"}
    assert decision.marks["anna"].unrecorded == [uuid7(3)]
    assert decision.grants == []


def test_a_late_duplicate_of_a_released_request_is_refused() -> None:
    state = pool(seats=5)
    state.completed.add("anna", uuid7(3))

    assert answers(decided(state, acquire(3))) == {0: "FINISHED"}
    assert answers(decided(state, acquire(4))) == {0: "Granted"}
    assert answers(decided(state, acquire(3, "bert"))) == {0: "Granted"}


@pytest.mark.parametrize(
    ("command", "answer"), [(acquire(3), "FINISHED"), (release(3), "Released")]
)
def test_what_only_this_node_takes_for_finished_is_made_known_to_all(
    command: Acquire | Release, answer: str
) -> None:
    """Another node, which has not listed the pool since, may have the same request before it."""
    state = pool(seats=5)
    spans = ((uuid7(1), uuid7(5)),)
    state.completed.listed("anna", spans)
    decision = decided(state, command)

    assert answers(decision) == {0: answer}
    assert decision.marks["anna"] == Watermark(
        command.lease_id, uuid7(5), unrecorded=[uuid7(3)], spans=spans
    )

    state.completed.add("anna", uuid7(3))
    assert decided(state, command).writes == 0


def test_requests_of_one_session_may_overtake_each_other() -> None:
    state = pool(seats=5)
    state.completed.add("anna", uuid7(3))

    assert answers(decided(state, acquire(2))) == {0: "Granted"}


def test_a_request_released_in_the_batch_that_asked_for_it_is_not_granted() -> None:
    decision = decided(pool(), acquire(1), release(1), acquire(2, "bert"))

    assert answers(decision) == {0: "FINISHED", 1: "Released", 2: "Granted"}
    assert granted_ids(decision) == [uuid7(2)]


def test_a_repeated_request_reports_its_release_and_nothing_of_another_session() -> None:
    decision = decided(pool(), acquire(1), acquire(1), release(1), acquire(1, "bert"))

    by_session = [(c.session_id, in_words(outcome)) for c, outcome in decision.outcomes]
    assert by_session.count(("anna", "FINISHED")) == 2
    assert [a for a in by_session if a[0] == "bert"] == [("bert", "Granted")]


def test_a_repeated_ticket_reports_nothing_of_another_session() -> None:
    state = pool(a_grant(9), a_ticket(1))
    decision = decided(state, acquire(1), release(1), acquire(1, "bert"))

    by_session = [(c.session_id, in_words(outcome)) for c, outcome in decision.outcomes]
    # The id is spoken for until the transaction that frees it, which may not write it twice.
    assert by_session == [("anna", "FINISHED"), ("anna", "Released"), ("bert", "NOT_YOURS")]


@pytest.mark.parametrize(
    ("spec", "command", "reason"),
    [
        (None, acquire(1), Refusal.POOL_NOT_FOUND),
        (PoolSpec(POOL, 2), acquire(1, seats=3), Refusal.TOO_MANY_SEATS),
    ],
    ids=lambda value: value.name if isinstance(value, Refusal) else "",
)
def test_what_can_never_be_granted_is_refused(
    spec: PoolSpec | None, command: Acquire, reason: Refusal
) -> None:
    state = pool()
    state.spec = spec
    decision = decided(state, command)

    assert answers(decision) == {0: reason.name}
    assert not decision.grants
    assert not decision.tickets


def test_a_smaller_request_overtakes_no_ticket() -> None:
    state = pool(a_grant(1), a_ticket(2, seats=2, session="bert"), seats=2)
    decision = decided(state, acquire(3, "cora"))

    assert answers(decision) == {0: "Queued"}


@pytest.mark.parametrize("may_wait", [True, False])
def test_a_large_request_that_does_not_wait_blocks_no_ticket(*, may_wait: bool) -> None:
    decision = decided(
        pool(a_grant(1), seats=2),
        acquire(2, "bert", seats=2, may_wait=False),
        acquire(3, "cora", may_wait=may_wait),
    )
    assert granted_ids(decision) == [uuid7(3)]
    assert sorted(answers(decision).values()) == ["Granted", "NO_SEAT_FREE"]


def test_a_higher_priority_goes_first_also_when_it_came_last() -> None:
    state = pool(a_grant(1), a_ticket(2, session="bert"))
    decision = decided(state, acquire(3, "cora", priority=1), release(1))

    assert granted_ids(decision) == [uuid7(3)]


def test_raising_the_capacity_serves_the_queue_without_a_command() -> None:
    state = pool(a_grant(1), *(a_ticket(n, session="bert") for n in (2, 3, 4)), seats=3)
    assert granted_ids(decided(state)) == [uuid7(2), uuid7(3)]


def test_a_lowered_capacity_grants_nothing_until_the_surplus_has_drained() -> None:
    held = [a_grant(n, fence=n) for n in (1, 2, 3)]
    state = pool(*held, a_ticket(4, session="bert"), seats=1)

    assert state.free == 0
    assert granted_ids(decided(state, release(1))) == []
    assert granted_ids(decided(state, release(1), release(2))) == []
    assert granted_ids(decided(state, release(1), release(2), release(3))) == [uuid7(4)]


@pytest.mark.parametrize("is_due", [False, True])
def test_a_ticket_gives_up_when_it_is_due_whatever_the_time(is_due: bool) -> None:
    ticket = a_ticket(2, session="bert", wait=timedelta(seconds=0.1))
    decision = decided(pool(a_grant(1), ticket), now=NOW + 9_000, due=[ticket] * is_due)

    assert decision.tickets_ended == ([uuid7(2)] if is_due else [])
    assert ("bert" in decision.marks) is is_due


def test_a_ticket_that_has_given_up_is_not_served_though_a_seat_is_free() -> None:
    state = pool(a_ticket(2), a_ticket(3, session="bert"))
    assert granted_ids(decided(state, due=[state.tickets[uuid7(2)]])) == [uuid7(3)]


def test_a_dead_session_gets_nothing_and_does_not_hold_up_the_queue() -> None:
    state = pool(a_ticket(2), a_ticket(3, session="bert"))
    state.dead_sessions.add("anna")
    decision = decided(state, acquire(4), acquire(2))

    assert granted_ids(decision) == [uuid7(3)]
    assert [in_words(o) for _, o in decision.outcomes] == ["SESSION_LOST", "SESSION_LOST"]
    assert decision.marks == {}


def test_the_seats_of_a_dead_session_are_not_granted_before_the_store_has_freed_them() -> None:
    state = pool(a_grant(1))
    state.dead_sessions.add("anna")
    assert answers(decided(state, acquire(2, "bert"))) == {0: "Queued"}


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    state = pool(a_grant(1), a_ticket(2), a_ticket(3))
    outcome = only(decided(state, acquire(4, "bert"), queue_max=2))

    assert isinstance(outcome, Denied)
    assert (outcome.reason, outcome.retry_after) == (Refusal.OVERLOADED, timedelta(seconds=1))


def test_a_short_queue_does_not_refuse_those_who_need_not_wait() -> None:
    decision = decided(pool(seats=3), *(acquire(n) for n in (1, 2, 3)), queue_max=1)
    assert answers(decision) == {0: "Granted", 1: "Granted", 2: "Granted"}


def test_a_queue_takes_as_many_as_it_may_and_refuses_the_last_to_come() -> None:
    decision = decided(pool(), *(acquire(n) for n in (1, 2, 3, 4)), queue_max=2)
    by_id = {command.grant_id: in_words(outcome) for command, outcome in decision.outcomes}
    assert by_id == {
        uuid7(1): "Granted",
        uuid7(2): "Queued",
        uuid7(3): "Queued",
        uuid7(4): "OVERLOADED",
    }


def test_a_release_makes_room_in_a_full_queue() -> None:
    state = pool(a_grant(1), a_ticket(2))
    assert answers(decided(state, release(2), acquire(3), queue_max=1)) == {
        0: "Released",
        1: "Queued",
    }


def test_what_does_not_fit_into_a_transaction_is_deferred_in_order() -> None:
    commands: Sequence[Command] = [acquire(n) for n in range(1, 10)]
    decision = decided(pool(seats=9), *commands, writes_max=4)

    assert granted_ids(decision) == [uuid7(n) for n in range(1, 5)]
    assert decision.deferred == commands[4:]
    assert decision.writes == 4


def test_a_queue_that_does_not_fit_is_served_as_far_as_it_does_and_says_so() -> None:
    state = pool(*(a_ticket(n) for n in range(1, 10)), seats=9)
    decision = decided(state, writes_max=7)

    assert granted_ids(decision) == [uuid7(1), uuid7(2), uuid7(3)]
    assert decision.unserved


def test_who_would_not_wait_is_not_denied_while_a_seat_may_be_free() -> None:
    state = pool(*(a_ticket(n) for n in range(1, 5)), seats=9)
    decision = decided(state, acquire(9, "bert", may_wait=False), writes_max=6)

    assert decision.deferred == [acquire(9, "bert", may_wait=False)]
    assert decision.outcomes == []


def test_who_asked_twice_and_would_not_wait_is_not_denied_while_a_seat_may_be_free() -> None:
    """Denied once, it must not be granted when the first of the two comes up again."""
    state = pool(*(a_ticket(n) for n in range(1, 5)), seats=9)
    twice = [acquire(9, "bert", may_wait=False), acquire(9, "bert", may_wait=False)]
    decision = decided(state, *twice, writes_max=6)

    assert decision.outcomes == []
    assert decision.deferred == twice


def test_one_holder_cannot_fill_the_queue() -> None:
    state = pool(a_grant(9, session="bert"), a_ticket(1), a_ticket(2), seats=1)
    limits = Limits(queue_max=100, holder_queue_max=3)
    decision = decide(state, [acquire(3), acquire(4), acquire(5, "carl")], Instant(NOW), limits)

    assert answers(decision) == {0: "Queued", 1: "OVERLOADED", 2: "Queued"}


def test_a_holder_who_is_served_may_ask_for_more() -> None:
    state = pool(a_grant(9, session="bert"), a_ticket(1), a_ticket(2), seats=1)
    limits = Limits(queue_max=100, holder_queue_max=2)
    decision = decide(state, [release(9, "bert"), acquire(3)], Instant(NOW), limits)

    assert answers(decision) == {0: "Released", 1: "Queued"}
    assert granted_ids(decision) == [uuid7(1)]
