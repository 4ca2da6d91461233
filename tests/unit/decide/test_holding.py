"""What is said of grants while they are held: written with the guard, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.decide.test_reclaimed import LATER, after, decided
from tests.unit.kit import a_grant, a_ticket, release, uuid7
from tests.unit.policy.test_holding import BEGINS, HOLD, LONGEST, a_revoke, holding, old
from tests.unit.policy.test_reclaiming import TTL

from seatkeeper.server.domain import (
    Cause,
    Denied,
    ExtendGrant,
    Grant,
    Noted,
    PoolState,
    Refusal,
    ReportIdle,
    RevokeGrant,
    Ticket,
    WithdrawRevoke,
)
from seatkeeper.server.domain.commands import HoldCommand
from seatkeeper.server.domain.holds import EXTENDED_MAX, IDLE_MAX, REVOKES_MAX

HOUR, ZERO = timedelta(hours=1), timedelta(0)
SHORT = timedelta(seconds=1)


def revoke(number: int = 1, reason: str = "for the release") -> RevokeGrant:
    return RevokeGrant(uuid7(number), f"s{number}", number, a_revoke(reason))


def withdraw(number: int = 1) -> WithdrawRevoke:
    return WithdrawRevoke(uuid7(number), f"s{number}", number)


def extend(number: int = 1, extended: timedelta = HOUR, seen: timedelta = ZERO) -> ExtendGrant:
    return ExtendGrant(uuid7(number), f"s{number}", number, extended, seen)


def idle(number: int = 1, idle_for: timedelta | None = HOUR) -> ReportIdle:
    return ReportIdle(uuid7(number), f"s{number}", number, idle_for)


def outcome_of(state: PoolState, command: HoldCommand) -> Noted | Denied:
    ((_, outcome),) = decided(state, command).outcomes
    assert isinstance(outcome, Noted | Denied)
    return outcome


def refusal_of(state: PoolState, command: HoldCommand) -> str:
    """Return why a command was refused; nothing was written then."""
    decision = decided(state, command)
    ((_, outcome),) = decision.outcomes
    assert isinstance(outcome, Denied)
    assert not decision.changes
    return outcome.message


def test_a_revoke_is_written_first_and_the_next_decision_calls_the_grant_back() -> None:
    state = holding(old(1, SHORT), rule=None)
    decision = decided(state, revoke())
    assert decision.changes
    assert not decision.writes
    assert not decision.guard.reclaims.running
    after(state, decision)

    (running,) = decided(state).guard.reclaims.running.values()
    assert (running.cause, running.project) == (Cause.REVOKED, "")
    assert running.within == timedelta(seconds=60) + TTL
    assert "for the release" in running.message


def test_at_the_end_of_the_notice_the_seats_are_free_for_the_next() -> None:
    state = holding(old(1, SHORT), rule=None, seats=1)
    state.put_ticket(a_ticket(9, session="s9"))
    after(state, decided(state, revoke()))
    after(state, decided(state))
    assert not decided(state, over=(7,)).grants_ended, "another's number"
    decision = decided(state, over=(1,))
    assert decision.grants_ended == [uuid7(1)]
    assert [grant.grant_id for grant in decision.grants] == [uuid7(9)]
    (lost,) = decision.marks["s1"].lost
    assert lost.is_reclaimed
    assert "for the release" in lost.message
    assert not decision.guard.holds, "nothing is kept of a grant that is gone"


def test_the_same_revoke_again_changes_nothing_and_another_is_refused() -> None:
    state = holding(old(1, SHORT), rule=None)
    after(state, decided(state, revoke()))
    after(state, decided(state))
    again = decided(state, revoke())
    assert isinstance(again.outcomes[0][1], Noted)
    assert not again.changes
    assert "anna" in refusal_of(state, revoke(reason="another"))


def test_a_withdrawn_revoke_takes_nothing_not_even_at_the_last_moment() -> None:
    state = holding(old(1, SHORT), rule=None)
    after(state, decided(state, revoke()))
    after(state, decided(state))
    decision = decided(state, withdraw(), over=(1,))
    assert not decision.grants_ended
    after(state, decision)
    assert not decided(state, over=(1,)).guard.reclaims.running
    assert isinstance(outcome_of(state, withdraw()), Noted), "sent again"


def test_what_the_rules_call_back_cannot_be_withdrawn() -> None:
    state = holding(old(1, BEGINS))
    after(state, decided(state))
    assert "longest_hold" in refusal_of(state, withdraw())


def test_an_extension_takes_the_call_for_a_grant_back() -> None:
    state = holding(old(1, BEGINS))
    after(state, decided(state))
    assert state.guard.reclaims.running
    decision = decided(state, extend(), over=(1,))
    assert not decision.grants_ended
    after(state, decision)
    assert state.guard.holds.extended == {uuid7(1): HOUR}
    assert not decided(state).guard.reclaims.running


def test_an_extension_sent_again_adds_nothing_and_one_that_saw_less_is_refused() -> None:
    state = holding(old(1, SHORT))
    after(state, decided(state, extend()))
    again = decided(state, extend())
    assert isinstance(again.outcomes[0][1], Noted)
    assert not again.changes
    assert "another has extended it" in refusal_of(state, extend(extended=3 * HOUR))
    after(state, decided(state, extend(extended=3 * HOUR, seen=HOUR)))
    assert state.guard.holds.extended == {uuid7(1): 3 * HOUR}
    after(state, decided(state, extend(extended=ZERO, seen=3 * HOUR)))
    assert not state.guard.holds


def test_where_there_is_no_longest_hold_nothing_is_extended() -> None:
    assert "no longest hold" in refusal_of(holding(old(1, SHORT), rule=None), extend())


@pytest.mark.parametrize("command", [revoke(), withdraw(), extend(), idle()])
@pytest.mark.parametrize(
    ("there", "reason"),
    [
        pytest.param(None, Refusal.FINISHED, id="nothing there"),
        pytest.param(a_ticket(1, session="s1"), Refusal.OTHER_TERMS, id="it waits"),
        pytest.param(
            replace(a_grant(1, fence=2, session="s1"), heeds_within=TTL),
            Refusal.OTHER_TERMS,
            id="another fence",
        ),
        pytest.param(a_grant(1, fence=1, session="s2"), Refusal.FINISHED, id="another's"),
    ],
)
def test_what_was_seen_is_said_of_and_nothing_else(
    command: HoldCommand, there: Grant | Ticket | None, reason: Refusal
) -> None:
    state = holding(seats=0)
    if isinstance(there, Grant):
        state.put_grant(there)
    elif there is not None:
        state.put_ticket(there)
    outcome = outcome_of(state, command)
    assert isinstance(outcome, Denied)
    assert outcome.reason is reason


def test_a_holder_that_is_active_again_keeps_its_seats() -> None:
    state = holding(old(1, SHORT), rule=replace(HOLD, longest=None, idle=HOUR))
    after(state, decided(state, idle()))
    after(state, decided(state))
    (running,) = state.guard.reclaims.running.values()
    assert running.cause is Cause.IDLE
    decision = decided(state, idle(idle_for=None), over=(1,))
    assert not decision.grants_ended
    assert not decided(after(state, decision)).guard.reclaims.running


def test_how_much_is_said_of_a_pool_is_bounded() -> None:
    most = max(REVOKES_MAX, EXTENDED_MAX, IDLE_MAX)
    grants = [old(number, SHORT) for number in range(1, most + 2)]
    said = dict.fromkeys(range(2, most + 2), HOUR)
    revokes = {number: a_revoke() for number in range(2, REVOKES_MAX + 2)}
    for command, holds in (
        (revoke(), {"revokes": revokes}),
        (extend(), {"extended": said}),
        (idle(), {"idle": said}),
    ):
        rule = replace(HOLD, longest=30 * LONGEST)
        outcome = outcome_of(holding(*grants, holds=holds, rule=rule), command)
        assert isinstance(outcome, Denied)
        assert outcome.reason is Refusal.OTHER_TERMS


def test_a_notice_that_runs_goes_on_when_the_cause_is_another() -> None:
    state = holding(old(1, BEGINS))
    after(state, decided(state))
    (first,) = state.guard.reclaims.running.values()
    after(state, decided(state, revoke()))
    after(state, decided(state, extend()))
    after(state, decided(state))
    (second,) = state.guard.reclaims.running.values()
    assert (second.number, second.within) == (first.number, first.within)
    assert (first.cause, second.cause) == (Cause.LONGEST, Cause.REVOKED)
    assert second.caused_at == LATER
    assert decided(state, over=(1,)).grants_ended == [uuid7(1)]


def test_a_release_leaves_nothing_of_what_was_said() -> None:
    state = holding(old(1, SHORT), rule=None)
    after(state, decided(state, revoke()))
    assert not decided(state, release(1, "s1")).guard.holds
