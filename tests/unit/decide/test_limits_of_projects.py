"""Limits of projects in decisions: what can never be served, and why nothing is granted now."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, uuid7

from seatkeeper.server.decide import decide
from seatkeeper.server.domain import (
    Acquire,
    Attribution,
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

LAB = PoolPolicy(
    (ProjectShare(project="lab", limit=3), ProjectShare(project="cv", parent="lab", limit=9))
)


def a_pool(*tickets: Ticket, held: int = 0, policy: PoolPolicy = LAB) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, 10, policy=policy))
    if held:
        state.put_grant(replace(a_grant(900, seats=held), attribution=of("cv")))
    for ticket in tickets:
        state.put_ticket(ticket)
    return state


def of(project: str) -> Attribution:
    return Attribution("anna", project, 0)


def ticket(number: int, project: str, seats: int) -> Ticket:
    return replace(a_ticket(number, seats=seats), attribution=of(project))


def asks(number: int, project: str, seats: int = 1, *, may_wait: bool = True) -> Acquire:
    return replace(acquire(number, seats=seats, may_wait=may_wait), attribution=of(project))


@pytest.mark.parametrize(("project", "seats"), [("lab", 4), ("cv", 4)])
def test_more_seats_than_a_project_may_hold_are_refused_at_the_door(
    project: str, seats: int
) -> None:
    decision = decide(a_pool(), [asks(1, project, seats)], Instant(NOW), Limits())
    ((_, denied),) = decision.outcomes
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.TOO_MANY_SEATS
    assert "project lab may hold at most 3, not 4, seats of pool" in denied.message
    assert "rule `limit`" in denied.message


def test_a_project_that_is_not_listed_may_hold_all() -> None:
    decision = decide(a_pool(), [asks(1, "asr", 10)], Instant(NOW), Limits())
    ((_, granted),) = decision.outcomes
    assert isinstance(granted, Granted)


def test_tickets_that_a_new_limit_excludes_are_denied_and_others_are_served() -> None:
    waiting = [ticket(1, "cv", 4), ticket(2, "cv", 3), ticket(3, "asr", 4)]
    decision = decide(a_pool(*waiting), [], Instant(NOW), Limits())
    [denied] = decision.marks["anna"].denied
    assert (denied.grant_id, denied.reason) == (uuid7(1), Refusal.TOO_MANY_SEATS)
    assert {grant.grant_id for grant in decision.grants} == {uuid7(2), uuid7(3)}


def test_what_a_limit_holds_back_differs_from_a_full_pool() -> None:
    commands = [asks(1, "cv", may_wait=False), asks(2, "cv"), asks(3, "asr")]
    decision = decide(a_pool(held=3), commands, Instant(NOW), Limits())
    found = {command.grant_id: outcome for command, outcome in decision.outcomes}
    denied, waits = found[uuid7(1)], found[uuid7(2)]
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.NO_SEAT_FREE
    assert "project lab has 3 of the 3 seats that it may hold (rule `limit`)" in denied.message
    assert isinstance(waits, Queued)
    assert isinstance(found[uuid7(3)], Granted)


def test_a_pool_that_is_closed_keeps_tickets_over_no_limit() -> None:
    state = a_pool(ticket(1, "cv", 3))
    state.spec = PoolSpec(POOL, 0, policy=LAB)
    assert not decide(state, [], Instant(NOW), Limits()).writes
