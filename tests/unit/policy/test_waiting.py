"""Why a ticket waits: every rule in a table, and what is true of all of them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policies.quota import Quota
from tests.unit.kit import NOW, uuid7
from tests.unit.policy.test_shares import LAB, TWO, a_pool, share, t

from seatkeeper.server.domain import Drain, Instant, Move, PoolState, ProjectShare, Ticket
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Policy
from seatkeeper.server.policy.rules import ORDERS, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import Before, Waiting, why_waiting

NO_SHARES: list[ProjectShare] = []
LIMITED = [share("cv", "l2")]


def why(state: PoolState, number: int, policy: Policy = BY_POOL) -> Waiting:
    snapshot = PoolSnapshot.of(state)
    plan = policy.plan(snapshot, Instant(NOW))
    return why_waiting(snapshot, plan, state.tickets[uuid7(number)])


def moved(ticket: Ticket, place: Fraction) -> Ticket:
    return replace(ticket, move=Move(place, uuid7(7), "the release", NOW))


def working(ticket: Ticket) -> Ticket:
    return replace(ticket, attribution=replace(ticket.attribution, work_key="w"))


Case = tuple[list[ProjectShare], dict[str, int], list[Ticket], int, int, Rule, str]
CASES: list[Case] = [
    # shares, what is held, who waits, seats of the pool, of whom it is asked, the rule, its words
    (NO_SHARES, {}, [t(1, "cv")], 1, 1, Rule.NEXT, "the next decision grants it"),
    (NO_SHARES, {"cv": 1}, [t(1, "cv")], 0, 1, Rule.CLOSED, "closed (0 seats)"),
    (NO_SHARES, {"cv": 3}, [t(1, "cv"), t(2, "cv")], 2, 2, Rule.DRAINING, "3 seats are held"),
    (NO_SHARES, {"cv": 2}, [t(1, "cv")], 2, 1, Rule.SEATS, "wants 1 seat, and 0 of 2 are free"),
    (NO_SHARES, {"cv": 1}, [t(1, "cv", 2)], 2, 1, Rule.SEATS, "2 seats, and 1 of 2 are free"),
    (NO_SHARES, {}, [t(1, "cv"), t(2, "cv", 2)], 2, 2, Rule.SEATS, "1 of 2 are left by those"),
    (
        NO_SHARES,
        {"cv": 1},
        [t(1, "cv", 2), t(2, "cv")],
        2,
        2,
        Rule.LARGE,
        "for 2 seats is next",
    ),
    (
        NO_SHARES,
        {"cv": 1},
        [t(1, "cv"), t(2, "cv", priority=3), t(3, "cv")],
        1,
        3,
        Rule.PRIORITY,
        "before it: 1 of a higher priority, 1 that came before it",
    ),
    (NO_SHARES, {"cv": 1}, [t(1, "cv"), t(2, "cv")], 1, 2, Rule.ARRIVAL, "1 that came before"),
    (
        NO_SHARES,
        {"cv": 1},
        [t(1, "cv"), moved(t(2, "cv"), Fraction(1, 2))],
        1,
        1,
        Rule.MOVED,
        "before it: 1 that an administrator's move put before it",
    ),
    # One that was moved back itself.
    (
        NO_SHARES,
        {"cv": 1},
        [moved(t(1, "cv"), Fraction(4)), t(2, "cv"), t(3, "cv", priority=2)],
        1,
        1,
        Rule.PRIORITY,
        "1 that an administrator's move put before it; an administrator moved it: the release",
    ),
    # Between projects of equal shares, a place counts as if it had come there.
    (
        [share("cv"), share("nlp")],
        {"x": 1},
        [t(1, "cv"), t(2, "nlp"), moved(t(3, "nlp"), Fraction(1, 2))],
        1,
        1,
        Rule.MOVED,
        "1 that an administrator's move put before it",
    ),
    (
        NO_SHARES,
        {"cv": 1},
        [working(t(1, "cv")), working(t(2, "cv"))],
        3,
        2,
        Rule.WORK,
        "is to do, the same work",
    ),
    (LIMITED, {"cv": 2}, [t(1, "cv")], 9, 1, Rule.LIMIT, "cv has 2 of the 2 seats"),
    # Its project's next one is too large for the limit, and is not passed.
    (LIMITED, {"cv": 1}, [t(1, "cv", 2), t(2, "cv")], 9, 2, Rule.LIMIT, "that wants 2"),
    # It is within the limit now, and will not be once those before it are served.
    (LIMITED, {"cv": 1, "x": 1}, [t(1, "cv"), t(2, "cv")], 2, 2, Rule.LIMIT, "to a limit"),
    # A part, by its parent's limit.
    (LAB, {"cv": 3}, [t(1, "nlp")], 9, 1, Rule.LIMIT, "lab has 3 of the 3 seats"),
    (TWO, {"cv": 3}, [t(1, "cv"), t(2, "nlp")], 3, 1, Rule.GUARANTEE, "under their guarantees"),
    # Both are under their guarantees: the one with the fewest seats for what is guaranteed.
    (TWO, {"nlp": 1, "x": 3}, [t(1, "nlp"), t(2, "cv")], 4, 1, Rule.GUARANTEE, "guarantees"),
    (
        [share("cv", "w2")],
        {"x": 2, "cv": 1},
        [t(1, "x"), t(2, "cv")],
        3,
        1,
        Rule.WEIGHT,
        "less",
    ),
    # With equal shares the one that came first.
    ([share("cv")], {"x": 1, "cv": 1}, [t(1, "x"), t(2, "cv")], 2, 2, Rule.ARRIVAL, "came"),
    # Within a project, and not between them: priority.
    (
        [share("cv")],
        {"x": 2},
        [t(1, "cv"), t(2, "cv", priority=1)],
        2,
        1,
        Rule.PRIORITY,
        "1 of a higher priority",
    ),
    # Parts of one project, among each other: by weight.
    (
        LAB,
        {"x": 3, "nlp": 1},
        [t(1, "nlp"), t(2, "cv")],
        4,
        1,
        Rule.WEIGHT,
        "less for their weights",
    ),
]


@pytest.mark.parametrize(("shares", "holds", "tickets", "seats", "of", "rule", "said"), CASES)
def test_the_rule_that_decides(
    shares: list[ProjectShare],
    holds: dict[str, int],
    tickets: list[Ticket],
    seats: int,
    of: int,
    rule: Rule,
    said: str,
) -> None:
    state = a_pool(*tickets, shares=shares, seats=seats, holds=holds)
    reason = why(state, of).reason
    assert reason.rule is rule
    assert said in reason.text
    assert str(reason) == f"{reason.text} (rule `{rule.value}`)"


def test_of_a_drained_pool_the_reason_of_its_administrator_is_said() -> None:
    state = a_pool(t(1, "cv"), shares=NO_SHARES, seats=2, holds={"cv": 1})
    assert why(state, 1).reason.rule is Rule.NEXT
    assert state.spec is not None
    state.spec = replace(state.spec, drain=Drain("moving", "anna", NOW))
    reason = why(state, 1).reason
    assert reason.rule is Rule.DRAINED
    assert "drained, by anna: moving; nothing is granted until it is opened" in reason.text


def test_every_rule_has_a_case() -> None:
    of_their_own = {Rule.SESSION, Rule.POLICY, Rule.DRAINED}  # below
    of_their_own |= {Rule.PER_HOLDER, Rule.PER_PROJECT}  # in test_each.py
    of_their_own |= {Rule.GANG}  # in test_gangs.py of decisions
    of_their_own |= {Rule.ALTERNATIVES}  # in test_alternatives.py of the service
    of_their_own |= {Rule.ALTERNATIVES}  # in test_alternatives.py of the service
    of_their_own |= {Rule.RESERVATION}  # in test_reserving.py
    of_their_own |= {Rule.STAY}  # in decide/test_staying.py
    of_their_own |= {Rule.PER_HOST}  # in decide/test_rules_of_hosts.py
    of_their_own |= {Rule.EXCLUDE, Rule.INCLUDE}  # nothing waits for them
    of_their_own |= {Rule.CAPACITY, Rule.COST_CLASS}
    assert {case[5] for case in CASES} == set(Rule) - of_their_own


def test_who_is_ahead_is_counted_by_what_puts_them_there() -> None:
    waiting = [t(1, "cv", 3), t(2, "cv", priority=5), t(3, "cv", priority=5), t(4, "cv")]
    state = a_pool(*waiting, shares=[], seats=3, holds={"cv": 3})
    assert why(state, 4).ahead == {Rule.PRIORITY: Before(2, 2), Rule.ARRIVAL: Before(1, 3)}
    shares = a_pool(
        *(t(n, "nlp") for n in range(1, 4)), t(9, "cv"), shares=TWO, seats=4, holds={"cv": 4}
    )
    assert why(shares, 9).ahead == {Rule.GUARANTEE: Before(2, 2), Rule.WEIGHT: Before(1, 1)}


def test_a_seat_does_not_help_one_that_is_held_back() -> None:
    state = a_pool(t(1, "x"), t(2, "cv"), shares=LIMITED, seats=2, holds={"cv": 2})
    assert not why(state, 2).ahead


def test_a_ticket_whose_session_has_ended_goes_with_it() -> None:
    state = a_pool(t(1, "cv"), shares=[], seats=1, holds={"cv": 1})
    state.dead_sessions.add(t(1, "cv").session_id)
    assert why(state, 1).reason.rule is Rule.SESSION


def test_a_policy_without_names_for_its_rules_has_a_reason() -> None:
    state = a_pool(t(1, "cv"), shares=[], seats=3, holds={"cv": 1})
    assert why(state, 1, Quota(1)).reason.rule is Rule.POLICY


projects = st.sampled_from(["lab", "cv", "nlp", "asr"])
works = st.sampled_from(["", "", "", "w", "v"])


@settings(max_examples=300, deadline=None)
@given(
    waiting=st.lists(
        st.tuples(projects, st.integers(1, 3), st.integers(0, 2), works), max_size=12
    ),
    holds=st.dictionaries(projects, st.integers(1, 3)),
    free=st.integers(-2, 6),
    shares=st.sampled_from([NO_SHARES, LAB, TWO, LIMITED]),
)
def test_whatever_waits_has_a_reason_and_what_is_served_is_next(
    waiting: list[tuple[str, int, int, str]],
    holds: dict[str, int],
    free: int,
    shares: list[ProjectShare],
) -> None:
    tickets = [t(n, p, s, r) for n, (p, s, r, _) in enumerate(waiting, start=1)]
    for n, (*_, work) in enumerate(waiting):
        attribution = replace(tickets[n].attribution, work_key=work)
        tickets[n] = replace(tickets[n], attribution=attribution)
    seats = max(0, sum(holds.values()) + free)
    state = a_pool(*tickets, shares=shares, seats=seats, holds=holds)
    snapshot = PoolSnapshot.of(state)
    plan = BY_POOL.plan(snapshot, Instant(NOW))
    served = {ticket.grant_id for ticket in plan.serve}
    for ticket in tickets:
        found = why_waiting(snapshot, plan, ticket)
        assert found.reason.text
        assert (found.reason.rule is Rule.NEXT) == (ticket.grant_id in served)
        if plan.hold_back(ticket) and seats:
            assert found.reason.rule in {Rule.WORK, Rule.LIMIT}
        ahead = sum(each.requests for each in found.ahead.values())
        if found.reason.rule in {*ORDERS, Rule.SEATS, Rule.LARGE, Rule.DRAINING}:
            assert ahead + 1 == plan.order.position(ticket)
        else:
            assert not ahead
