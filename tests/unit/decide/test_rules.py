"""A pool's rules in decisions: who is refused, when, and with which words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, changed, release, uuid7

from seatkeeper.core.pool_rules import AtMost, HolderGroup, PoolRules, Who
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    NO_RULES,
    Acquire,
    Command,
    Denied,
    Granted,
    Instant,
    Limits,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    Queued,
    Refusal,
    Ticket,
)

MALLORY = PoolRules((HolderGroup("bad", ("mal*",)),), exclude=Who(groups=("bad",)))
ONLY_CV = PoolRules(include=Who(projects=("cv",)))
ONE_SEAT = PoolRules(per_holder=AtMost(seats=1))
ONE_TICKET = PoolRules(per_holder=AtMost(tickets=1))


def a_pool(rules: PoolRules, *tickets: Ticket, seats: int = 4, held: int = 0) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, seats, policy=PoolPolicy(rules=rules)))
    if held:
        state.put_grant(changed(a_grant(900, seats=held), holder="x", project="x"))
    for ticket in tickets:
        state.put_ticket(ticket)
    return state


def asks(
    number: int, holder: str, project: str = "cv", seats: int = 1, *, may_wait: bool = True
) -> Acquire:
    command = acquire(number, session=holder, seats=seats, may_wait=may_wait)
    return changed(command, holder=holder, project=project)


def waits(number: int, holder: str, project: str = "cv", seats: int = 1) -> Ticket:
    ticket = a_ticket(number, session=holder, seats=seats)
    return changed(ticket, holder=holder, project=project)


def decided(state: PoolState, *commands: Command) -> Decision:
    return decide(state, commands, Instant(NOW), Limits())


def denied(decision: Decision, number: int) -> Denied:
    outcome = {command.grant_id: outcome for command, outcome in decision.outcomes}[
        uuid7(number)
    ]
    assert isinstance(outcome, Denied)
    return outcome


@pytest.mark.parametrize(
    ("rules", "asked", "reason", "said"),
    [
        (
            MALLORY,
            asks(1, "mallory"),
            Refusal.NOT_ALLOWED,
            "group bad, holder mal* is excluded",
        ),
        (MALLORY, asks(1, "mallory"), Refusal.NOT_ALLOWED, "(rule `exclude`); ask its admin"),
        (ONLY_CV, asks(1, "a", "nlp"), Refusal.NOT_ALLOWED, "(rule `include`); ask for a"),
        (ONLY_CV, asks(1, "a", "nlp"), Refusal.NOT_ALLOWED, "neither holder a nor project nlp"),
        (
            ONE_SEAT,
            asks(1, "a", seats=2),
            Refusal.TOO_MANY_SEATS,
            "each holder may hold at most 1, not 2, seats of pool tensorrt (rule `per_holder`)",
        ),
        (
            PoolRules(per_project=AtMost(seats=2)),
            asks(1, "a", seats=3),
            Refusal.TOO_MANY_SEATS,
            "each project may hold at most 2, not 3, seats of pool tensorrt (rule `per_project`)",
        ),
    ],
)
@pytest.mark.parametrize("seats", [4, 0], ids=["open", "closed"])
def test_what_can_never_be_served_is_refused_at_the_door_and_completed(
    rules: PoolRules, asked: Acquire, reason: Refusal, said: str, seats: int
) -> None:
    decision = decided(a_pool(rules, seats=seats), asked)
    found = denied(decision, 1)
    assert found.reason is reason
    assert said in found.message
    assert uuid7(1) in decision.marks[asked.session_id].highest


def test_a_new_rule_ends_what_waits_and_others_are_served() -> None:
    tickets = [waits(1, "mallory"), waits(2, "a"), waits(3, "malice", seats=4)]
    decision = decided(a_pool(MALLORY, *tickets))
    assert {grant.grant_id for grant in decision.grants} == {uuid7(2)}
    for number, holder in ((1, "mallory"), (3, "malice")):
        (found,) = decision.marks[holder].denied
        assert (found.grant_id, found.reason) == (uuid7(number), Refusal.NOT_ALLOWED)
        assert "rule `exclude`" in found.message


def test_rules_that_change_are_looked_at_anew() -> None:
    """The index of one version of the rules says nothing of another."""
    state = a_pool(NO_RULES, waits(1, "mallory"), seats=1, held=1)
    assert not decided(state).writes
    for rules, count in ((ONLY_CV, 0), (MALLORY, 1), (ONLY_CV, 0), (MALLORY, 1)):
        state.spec = PoolSpec(POOL, 1, policy=PoolPolicy(rules=rules))
        assert len(decided(state).tickets_ended) == count
    state.put_ticket(waits(2, "malice"))
    state.remove_ticket(uuid7(1))
    assert decided(state).tickets_ended == [uuid7(2)]


def test_the_tickets_of_a_dead_session_are_left_to_its_lease() -> None:
    state = a_pool(MALLORY, waits(1, "mallory"))
    state.dead_sessions.add("mallory")
    assert not decided(state).writes


def test_what_an_excluded_holder_holds_stays_and_its_release_is_taken() -> None:
    state = a_pool(MALLORY)
    state.put_grant(changed(a_grant(1, session="mallory"), holder="mallory"))
    assert not decided(state).writes
    again = decided(state, asks(1, "mallory"))
    assert isinstance(again.outcomes[0][1], Granted)
    assert decided(state, release(1, "mallory")).grants_ended == [uuid7(1)]


def test_who_has_the_most_waits_and_others_go_before() -> None:
    state = a_pool(ONE_SEAT)
    state.put_grant(changed(a_grant(900, session="a"), holder="a"))
    decision = decided(state, asks(1, "a"), asks(2, "b"), asks(3, "a", may_wait=False))
    found = {command.grant_id: outcome for command, outcome in decision.outcomes}
    assert isinstance(found[uuid7(1)], Queued)
    assert isinstance(found[uuid7(2)], Granted)
    refused = denied(decision, 3)
    assert refused.reason is Refusal.NO_SEAT_FREE
    assert "holder a has 1 of the 1 seats that each may hold (rule `per_holder`)" in (
        refused.message
    )


def test_two_at_once_do_not_take_a_holder_over_its_limit() -> None:
    decision = decided(a_pool(ONE_SEAT), *(asks(n, "a", may_wait=False) for n in (1, 2)))
    assert [grant.grant_id for grant in decision.grants] == [uuid7(1)]
    assert "rule `per_holder`" in denied(decision, 2).message


def test_a_release_gives_the_holder_its_next_seat_in_the_same_decision() -> None:
    state = a_pool(ONE_SEAT, waits(1, "a"))
    state.put_grant(changed(a_grant(900, session="a"), holder="a"))
    decision = decided(state, release(900, "a"))
    assert [grant.grant_id for grant in decision.grants] == [uuid7(1)]


@pytest.mark.parametrize(
    ("rules", "who"),
    [(ONE_TICKET, "holder a"), (PoolRules(per_project=AtMost(tickets=1)), "project cv")],
)
def test_one_more_request_than_each_may_have_is_refused(rules: PoolRules, who: str) -> None:
    state = a_pool(rules, waits(1, "a"), held=4)
    decision = decided(state, asks(2, "a"), asks(3, "b", "nlp"), asks(4, "b", "nlp"))
    for number, name in ((2, who), (4, who.replace("cv", "nlp").replace(" a", " b"))):
        found = denied(decision, number)
        assert found.reason is Refusal.TOO_MANY_TICKETS
        assert f"{name} has 1 requests in the queue, and each may have 1 (rule `per" in (
            found.message
        )
        assert found.retry_after is None
    assert [ticket.grant_id for ticket in decision.tickets] == [uuid7(3)]
    assert uuid7(2) in decision.marks["a"].highest


def test_what_is_sent_again_is_answered_as_the_first() -> None:
    state = a_pool(ONE_TICKET, waits(1, "a"), held=4)
    decision = decided(state, asks(2, "a"), asks(2, "a"), asks(1, "a"))
    reasons = [
        outcome.reason if isinstance(outcome, Denied) else type(outcome)
        for _, outcome in decision.outcomes
    ]
    assert sorted(map(str, reasons)) == sorted(
        map(str, [Refusal.TOO_MANY_TICKETS, Refusal.TOO_MANY_TICKETS, Queued])
    )


def test_a_seat_that_is_free_needs_no_place_in_the_queue() -> None:
    none = PoolRules(per_holder=AtMost(tickets=0))
    decision = decided(a_pool(none, seats=1), asks(1, "a"), asks(2, "a"))
    assert [grant.grant_id for grant in decision.grants] == [uuid7(1)]
    assert "ask when a seat is free" in denied(decision, 2).message


def test_a_place_that_is_left_is_for_the_next() -> None:
    state = a_pool(ONE_TICKET, waits(1, "a"), held=4)
    decision = decided(state, release(1, "a"), asks(2, "a"))
    assert [ticket.grant_id for ticket in decision.tickets] == [uuid7(2)]


def test_those_that_wait_already_stay_when_fewer_may() -> None:
    state = a_pool(ONE_TICKET, waits(1, "a"), waits(2, "a"), held=4)
    assert not decided(state).writes


def test_rules_and_projects_together() -> None:
    policy = PoolPolicy((ProjectShare(project="cv", guaranteed=2),), rules=ONE_SEAT)
    state = a_pool(ONE_SEAT)
    state.spec = replace(PoolSpec(POOL, 2), policy=policy)
    decision = decided(state, asks(1, "a"), asks(2, "a"), asks(3, "b", "nlp"))
    assert {grant.grant_id for grant in decision.grants} == {uuid7(1), uuid7(3)}
