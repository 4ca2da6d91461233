"""Seats that cost more than one, by the class that a request names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, acquire, changed, uuid7

from seatkeeper.core.counting import COST_MAX, COSTS_MAX, ClassCost, Counting
from seatkeeper.core.pool_rules import AtMost, PoolRules
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Acquire,
    Command,
    Denied,
    Grant,
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

COSTS = Counting(costs=(ClassCost("a100", 4), ClassCost("t4", 1)))
WITH_DEFAULT = Counting(costs=(*COSTS.costs, ClassCost("default", 2)))


def a_pool(counting: Counting = COSTS, seats: int = 10, **policy: object) -> PoolState:
    said = PoolPolicy(counting=counting, **policy)  # type: ignore[arg-type]  # of the test
    return PoolState(spec=PoolSpec(POOL, seats, policy=said))


def asks(number: int, cost_class: str = "", seats: int = 1, **more: object) -> Acquire:
    return changed(acquire(number, seats=seats), cost_class=cost_class, **more)


def decided(state: PoolState, *commands: Command) -> Decision:
    return decide(state, commands, Instant(NOW), Limits())


@pytest.mark.parametrize(
    ("counting", "cost_class", "seats", "expected"),
    [
        (COSTS, "a100", 1, 4),
        (COSTS, "a100", 2, 8),
        (COSTS, "t4", 3, 3),
        (COSTS, "", 3, 3),
        (WITH_DEFAULT, "", 3, 6),
        (WITH_DEFAULT, "default", 1, 2),
        (WITH_DEFAULT, "t4", 1, 1),
        (COSTS, "default", 2, 2),
        (Counting(), "", 2, 2),
        (Counting(), "default", 2, 2),
    ],
)
def test_what_a_request_holds(
    counting: Counting, cost_class: str, seats: int, expected: int
) -> None:
    (grant,) = decided(a_pool(counting), asks(1, cost_class, seats)).grants
    assert grant.seats == expected
    assert grant.attribution.cost_class == cost_class
    assert grant.seats == seats * grant.attribution.cost


@pytest.mark.parametrize(
    ("counting", "there"),
    [(COSTS, "a100, t4"), (WITH_DEFAULT, "a100, t4, default"), (Counting(), "none")],
)
def test_an_unknown_class_is_refused_with_those_there_are(
    counting: Counting, there: str
) -> None:
    decision = decided(a_pool(counting), asks(1, "h100"))
    denied = decision.outcomes[0][1]
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.UNKNOWN_COST_CLASS
    assert f"no cost class h100; it has: {there} (rule `cost_class`)" in denied.message
    assert not decision.grants
    assert decision.marks["anna"].unrecorded == [uuid7(1)], "its id is completed"


def test_every_rule_counts_seats_of_the_pool() -> None:
    too_many = decided(a_pool(seats=3), asks(1, "a100")).outcomes[0][1]
    assert isinstance(too_many, Denied)
    assert too_many.reason is Refusal.TOO_MANY_SEATS
    each = PoolRules(per_holder=AtMost(seats=3))
    limited = decided(a_pool(rules=each), asks(1, "a100")).outcomes[0][1]
    assert isinstance(limited, Denied)
    assert "(rule `per_holder`)" in limited.message
    share = (ProjectShare(project="cv", limit=3),)
    limited = decided(a_pool(projects=share), asks(1, "a100")).outcomes[0][1]
    assert isinstance(limited, Denied)
    assert "(rule `limit`)" in limited.message


def test_what_waits_waits_for_its_seats_of_the_pool() -> None:
    state = a_pool(seats=5)
    state.put_grant(a_grant(900, seats=2, session="x"))
    decision = decided(state, asks(1, "a100"))
    (ticket,) = decision.tickets
    assert (ticket.seats, ticket.attribution.cost) == (4, 4)
    assert isinstance(decision.outcomes[0][1], Queued)


def test_a_change_of_the_costs_changes_nothing_that_is_held_or_waits() -> None:
    state = a_pool(seats=5)
    first = decided(state, asks(1, "a100"), asks(2, "a100"))
    for grant in first.grants:
        state.put_grant(grant)
    for ticket in first.tickets:
        state.put_ticket(ticket)
    state.guard = first.guard
    assert state.spec is not None
    for counting in (Counting(costs=(ClassCost("a100", 1),)), Counting()):
        state.spec = replace(state.spec, policy=PoolPolicy(counting=counting))
        again = decided(state, asks(1, "a100"), asks(2, "a100"))
        assert [type(outcome) for _, outcome in again.outcomes] == [Granted, Queued]
        assert not again.grants
        assert state.held == 4


@pytest.mark.parametrize("again", [asks(1, "t4"), asks(1, "a100", 4), asks(1, "")])
def test_the_same_id_with_another_class_is_refused(again: Acquire) -> None:
    state = a_pool()
    for grant in decided(state, asks(1, "a100")).grants:
        state.put_grant(grant)
    denied = decided(state, again).outcomes[0][1]
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.OTHER_TERMS
    assert "1 seats for project cv at priority 0 as a100" in denied.message


CLASSES = st.sampled_from(["", "a100", "t4", "h100"])


@given(st.integers(1, 20), st.lists(st.tuples(CLASSES, st.integers(1, 4)), max_size=9))
def test_no_more_is_held_than_there_is_whatever_seats_cost(
    seats: int, requests: list[tuple[str, int]]
) -> None:
    commands = [asks(number, *each) for number, each in enumerate(requests, 1)]
    decision = decided(a_pool(seats=seats), *commands)
    assert sum(grant.seats for grant in decision.grants) <= seats
    costs = {"": 1, "a100": 4, "t4": 1}
    wanted = {uuid7(n): each for n, each in enumerate(requests, 1)}
    found: list[Grant | Ticket] = [*decision.grants, *decision.tickets]
    for one in found:
        name, asked = wanted[one.grant_id]
        assert one.seats == asked * costs[name]


@pytest.mark.parametrize(
    ("counting", "fault"),
    [
        (COSTS, None),
        (Counting(costs=(ClassCost("a100", 0),)), "0 is not from 1"),
        (Counting(costs=(ClassCost("a100", COST_MAX + 1),)), f"from 1 to {COST_MAX}"),
        (Counting(costs=(ClassCost("A100", 1),)), "is not a name"),
        (Counting(costs=(ClassCost("a", 1), ClassCost("a", 2))), "there twice"),
        (
            Counting(costs=tuple(ClassCost(f"c{n}", 1) for n in range(COSTS_MAX + 1))),
            f"are over {COSTS_MAX}",
        ),
    ],
)
def test_what_may_be_said_of_costs(counting: Counting, fault: str | None) -> None:
    found = [reason for _, _, reason in counting.faults()]
    assert bool(found) == (fault is not None)
    assert fault is None or fault in found[0]
