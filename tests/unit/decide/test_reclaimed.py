"""Grants that are called back: written once, freed when the notice is over, and only while wanted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.unit.kit import NOW, acquire, changed, release, uuid7
from tests.unit.policy.test_reclaiming import FULL, RULE, TTL, a_pool, held, wants

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Command,
    Granted,
    Instant,
    Limits,
    PoolState,
    Queued,
)

LATER = Instant(NOW + 60_000)


def decided(state: PoolState, *commands: Command, over: tuple[int, ...] = ()) -> Decision:
    return decide(state, commands, LATER, Limits(), over=over)


def after(state: PoolState, decision: Decision) -> PoolState:
    """Return the pool with the guard of a decision that changed nothing else."""
    state.guard = decision.guard
    return state


def test_a_reclaim_is_written_with_the_guard_and_takes_nothing_yet() -> None:
    decision = decided(a_pool(*FULL, wants(9, "nlp")))
    reclaims = decision.guard.reclaims
    (running,) = reclaims.running.values()

    assert decision.changes
    assert not decision.writes
    assert reclaims.running.keys() == {uuid7(4)}
    assert (running.number, running.decided_at, running.project) == (1, LATER, "nlp")
    assert running.within == RULE.notice + TTL
    assert reclaims.called_at == (LATER,)


def test_the_same_pool_decided_again_changes_nothing() -> None:
    state = a_pool(*FULL, wants(9, "nlp"))
    again = decided(after(state, decided(state)))
    assert not again.changes
    assert again.guard.reclaims is state.guard.reclaims


def test_before_the_notice_is_over_nothing_is_taken_and_then_it_goes_to_the_asker() -> None:
    state = a_pool(*FULL, wants(9, "nlp"))
    after(state, decided(state))
    assert not decided(state, over=(7,)).grants_ended, "another's number"

    decision = decided(state, over=(1,))
    assert decision.grants_ended == [uuid7(4)]
    assert decision.reclaimed_fences == [4]
    assert [grant.grant_id for grant in decision.grants] == [uuid7(9)]
    assert not decision.guard.reclaims.running
    (lost,) = decision.marks["s4"].lost
    assert lost.is_reclaimed
    assert "nlp" in lost.message


def test_it_is_withdrawn_when_the_asker_leaves_also_at_the_last_moment() -> None:
    state = a_pool(*FULL, wants(9, "nlp"))
    after(state, decided(state))
    decision = decided(state, release(9, "s9"), over=(1,))
    assert not decision.grants_ended
    assert not decision.guard.reclaims.running
    assert decision.is_reclaim


def test_numbers_are_never_used_again_and_the_hour_is_remembered() -> None:
    state = a_pool(*FULL, wants(9, "nlp"))
    after(state, decided(state))
    after(state, decided(state, release(9, "s9")))
    ticket = state.tickets[uuid7(9)]
    state.remove_ticket(uuid7(9))
    state.put_ticket(replace(ticket, grant_id=uuid7(10)))
    reclaims = decided(state).guard.reclaims
    assert [each.number for each in reclaims.running.values()] == [2]
    assert reclaims.called_at == (LATER, LATER)


def test_a_release_by_the_holder_ends_it() -> None:
    state = a_pool(*FULL, wants(9, "nlp"))
    after(state, decided(state))
    decision = decided(state, release(4, "s4"))
    assert decision.released_fences == [4]
    assert not decision.guard.reclaims.running
    assert not decided(state, release(4, "s4"), over=(1,)).reclaimed_fences


def test_a_grant_may_be_called_back_if_its_client_knows_and_the_pool_says_so() -> None:
    asked = replace(changed(acquire(20), project="cv"), heeds_within=TTL)
    for rule, heeds in ((RULE, TTL), (None, None)):
        (_, outcome), *_ = decided(a_pool(rule=rule), asked).outcomes
        assert isinstance(outcome, Granted)
        assert outcome.grant.heeds_within == heeds
    (_, outcome), *_ = decided(a_pool(rule=RULE), replace(asked, heeds_within=None)).outcomes
    assert isinstance(outcome, Granted)
    assert outcome.grant.heeds_within is None


def test_a_request_that_is_new_is_stored_before_seats_are_called_back_for_it() -> None:
    """It may be kept out of the queue."""
    state = a_pool(*FULL)
    decision = decided(state, changed(acquire(9, "s9"), project="nlp"))
    assert isinstance(decision.outcomes[0][1], Queued)
    assert not decision.guard.reclaims.running


def test_a_pool_that_calls_back_no_more_withdraws_all() -> None:
    state = a_pool(*FULL, wants(9, "nlp"), called=(4,))
    assert state.spec is not None
    state.spec = replace(state.spec, policy=replace(state.spec.policy, reclaim=None))
    assert not decided(state, over=(1,)).guard.reclaims.running


def test_a_seat_that_was_taken_for_one_is_not_taken_back_at_once() -> None:
    state = a_pool(*FULL[:3], held(4, "nlp", held_for=timedelta(seconds=5)), wants(9, "cv"))
    assert not decided(state).guard.reclaims.running
