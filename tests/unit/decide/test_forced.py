"""What an administrator ends of others: decision by decision."""

from __future__ import annotations

from tests.unit.decide.test_decide import answers, decided, granted_ids, only, pool
from tests.unit.kit import a_grant, a_ticket, acquire, changed, release, uuid7

from seatkeeper.server.decide import Decision
from seatkeeper.server.domain import Denied, Forced, ForcedEnd, Queued, Refusal, Released

WHY = "maintenance of the licence server"


def removes(number: int, session: str = "anna") -> ForcedEnd:
    return ForcedEnd(uuid7(number), session, 0, WHY)


def frees(number: int, fence: int, session: str = "anna") -> ForcedEnd:
    return ForcedEnd(uuid7(number), session, fence, WHY)


def denials(decision: Decision) -> list[Denied]:
    return [each for mark in decision.marks.values() for each in mark.denied]


def losses(decision: Decision) -> list[Forced]:
    return [each for mark in decision.marks.values() for each in mark.lost]


def test_a_ticket_is_taken_out_and_its_holder_notified() -> None:
    state = pool(a_grant(9), a_ticket(1), a_ticket(2, session="bert"))
    decision = decided(state, removes(1))
    assert only(decision) == Released(uuid7(1))
    assert decision.tickets_ended == [uuid7(1)]
    (denied,) = denials(decision)
    assert (denied.grant_id, denied.reason) == (uuid7(1), Refusal.REMOVED)
    assert WHY in denied.message
    assert decision.marks["anna"].highest == uuid7(1), "a late duplicate takes no effect"
    assert granted_ids(decision) == []


def test_what_it_held_up_is_served_in_the_same_decision() -> None:
    state = pool(a_grant(9), a_ticket(1, seats=2), a_ticket(2, session="bert"), seats=2)
    assert granted_ids(decided(state)) == []
    assert granted_ids(decided(state, removes(1))) == [uuid7(2)]


def test_a_late_duplicate_of_what_was_taken_out_is_refused_with_the_reason() -> None:
    state = pool(a_grant(9), a_ticket(1))
    decision = decided(state, removes(1), acquire(1))
    assert answers(decision) == {0: "Released", 1: "REMOVED"}


def test_one_that_asks_again_in_the_same_batch_is_notified() -> None:
    decision = decided(pool(a_grant(9), a_ticket(1)), acquire(1), removes(1))
    assert answers(decision) == {0: "REMOVED", 1: "Released"}


def test_a_grant_is_freed_for_the_next_and_its_holder_notified() -> None:
    state = pool(a_grant(1, fence=7), a_grant(2, fence=8), a_ticket(3, session="bert"), seats=2)
    decision = decided(state, frees(1, 7))
    assert only(decision) == Released(uuid7(1))
    assert decision.grants_ended == [uuid7(1)], "the session's other grant lives on"
    assert (decision.reclaimed_fences, decision.released_fences) == ([7], [])
    (lost,) = losses(decision)
    assert lost.grant_id == uuid7(1)
    assert WHY in lost.message
    assert decision.marks["anna"].highest == uuid7(1)
    assert [(grant.grant_id, grant.fence) for grant in decision.grants] == [(uuid7(3), 9)]


def test_the_next_does_the_work_of_a_grant_that_was_freed() -> None:
    state = pool(
        changed(a_grant(1), work_key="w"),
        changed(a_ticket(2, session="bert"), work_key="w"),
        seats=5,
    )
    assert granted_ids(decided(state, frees(1, 1))) == [uuid7(2)]


def test_what_is_not_as_it_was_seen_stays() -> None:
    state = pool(a_grant(1, fence=7), a_ticket(2), seats=1)
    decision = decided(state, removes(1), frees(1, 6), frees(2, 7))
    assert answers(decision) == {0: "OTHER_TERMS", 1: "OTHER_TERMS", 2: "OTHER_TERMS"}
    assert decision.writes == 0
    assert "under fence 7" in decision.outcomes[0][1].message  # type: ignore[union-attr]  # denied, as above


def test_what_went_with_its_session_is_not_there() -> None:
    assert answers(decided(pool(), removes(1))) == {0: "FINISHED"}
    state = pool(a_ticket(1, session="bert"), a_grant(9))
    assert answers(decided(state, removes(1, "anna"))) == {0: "FINISHED"}


def test_the_same_command_again_is_answered_as_the_first() -> None:
    """As after an answer of the store that was lost."""
    state = pool(a_grant(1), a_ticket(2))
    twice = decided(state, frees(1, 1), frees(1, 1), removes(2), removes(2))
    assert answers(twice) == dict.fromkeys(range(4), "Released")
    assert twice.grants_ended == [uuid7(1)]
    gone = pool(a_grant(9))
    gone.completed.add("anna", uuid7(2))
    gone.ended_by_force["anna"] = {uuid7(2): "taken out"}
    assert answers(decided(gone, removes(2))) == {0: "Released"}
    assert answers(decided(gone, acquire(2))) == {0: "REMOVED"}


def test_what_has_ended_by_itself_was_not_ended_by_force() -> None:
    gone = pool(a_grant(9))
    gone.completed.add("anna", uuid7(2))
    assert answers(decided(gone, removes(2))) == {0: "FINISHED"}


def test_one_that_its_holder_gives_up_in_the_same_batch_is_ended_once() -> None:
    state = pool(a_grant(1), a_ticket(2))
    decision = decided(state, release(2), removes(2), release(1), frees(1, 1))
    released, by_itself = "Released", "FINISHED"
    assert answers(decision) == {0: released, 1: by_itself, 2: released, 3: by_itself}
    assert (decision.grants_ended, decision.tickets_ended) == ([uuid7(1)], [uuid7(2)])
    assert (decision.released_fences, decision.reclaimed_fences) == ([1], [])


def test_a_full_transaction_puts_it_off() -> None:
    state = pool(a_grant(1))
    command = frees(1, 1)
    decision = decided(state, command, writes_max=3)
    assert (decision.deferred, decision.outcomes) == ([command], [])


def test_of_a_dead_session_nothing_is_written_down() -> None:
    state = pool(a_grant(1), a_ticket(2))
    state.dead_sessions.add("anna")
    decision = decided(state, frees(1, 1), removes(2))
    assert answers(decision) == {0: "Released", 1: "Released"}
    assert decision.marks == {}


def test_a_new_request_of_the_same_session_waits_as_before() -> None:
    decision = decided(pool(a_grant(9), a_ticket(1)), removes(1), acquire(3))
    assert isinstance(decision.outcomes[1][1], Queued)
