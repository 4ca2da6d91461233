"""The most that each holder, and each project, may hold: tables, and what is true of every plan."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policies.rules_kept import held_back
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, changed, uuid7

from seatkeeper.core.pool_rules import AtMost, PoolRules
from seatkeeper.server.domain import (
    Grant,
    Instant,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    Ticket,
)
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.rules import Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import Waiting, why_waiting

ONE = PoolRules(per_holder=AtMost(seats=1))
TWO = PoolRules(per_holder=AtMost(seats=2))
PROJECT = PoolRules(per_project=AtMost(seats=2))
BOTH = PoolRules(per_holder=AtMost(seats=2), per_project=AtMost(seats=3))


def t(
    number: int,
    holder: str,
    seats: int = 1,
    *,
    project: str = "cv",
    priority: int = 0,
    work: str = "",
) -> Ticket:
    ticket = a_ticket(number, seats=seats, session=f"s{number}")
    return changed(ticket, holder=holder, project=project, priority=priority, work_key=work)


def g(number: int, holder: str, seats: int = 1, project: str = "cv", work: str = "") -> Grant:
    grant = a_grant(900 + number, fence=number, seats=seats, session=f"g{number}")
    return changed(grant, holder=holder, project=project, work_key=work)


def a_pool(
    rules: PoolRules,
    held: Sequence[Grant],
    waiting: Sequence[Ticket],
    seats: int = 9,
    shares: Sequence[ProjectShare] = (),
) -> PoolState:
    policy = PoolPolicy(tuple(shares), rules=rules)
    state = PoolState(spec=PoolSpec(POOL, seats, policy=policy))
    for grant in held:
        state.put_grant(grant)
    for ticket in waiting:
        state.put_ticket(ticket)
    return state


def snapshot(state: PoolState, *new: Ticket, impatient: Sequence[int] = ()) -> PoolSnapshot:
    waits_not = frozenset(map(uuid7, impatient))
    return PoolSnapshot(state, state.free, 99, 99, new=new, impatient=waits_not)


def served(pool: PoolSnapshot) -> list[int]:
    plan = BY_POOL.plan(pool, Instant(NOW))
    return [int(ticket.grant_id[-4:], 16) for ticket in plan.serve]


def order(pool: PoolSnapshot) -> list[int]:
    plan = BY_POOL.plan(pool, Instant(NOW))
    return [int(ticket.grant_id[-4:], 16) for ticket in plan.order]


@pytest.mark.parametrize(
    ("rules", "held", "waiting", "expected"),
    [
        (ONE, [], [t(1, "a"), t(2, "a"), t(3, "b")], [1, 3]),
        (ONE, [g(1, "a")], [t(1, "a"), t(2, "b")], [2]),
        (TWO, [g(1, "a")], [t(1, "a", 2), t(2, "b", 2)], [2]),
        (TWO, [g(1, "a", 5)], [t(1, "a"), t(2, "b")], [2]),  # lowered under what is held
        # Its own smaller one does not pass it, others do.
        (TWO, [g(1, "a")], [t(1, "a", 2), t(2, "a"), t(3, "b")], [3]),
        # A higher priority of the holder's own goes first.
        (ONE, [], [t(1, "a"), t(2, "a", priority=1)], [2]),
        (PROJECT, [g(1, "a")], [t(1, "b"), t(2, "c"), t(3, "d", project="nlp")], [1, 3]),
        (PROJECT, [g(1, "a")], [t(1, "b", 2), t(2, "c"), t(3, "d", project="nlp")], [3]),
        # One that its holder's limit holds back keeps none of its project waiting.
        (BOTH, [g(1, "a", 2)], [t(1, "a"), t(2, "b")], [2]),
        # One that its project's limit holds back keeps its holder waiting in no other project.
        (BOTH, [g(1, "x", 3)], [t(1, "a"), t(2, "a", project="nlp")], [2]),
        # One that may be served and is too large for what is free is not passed.
        (TWO, [g(1, "b", 8)], [t(1, "a", 2), t(2, "c")], []),
        # Others that want the same work do not wait for one that is held back.
        (ONE, [g(1, "a")], [t(1, "a", work="w"), t(2, "b", work="w")], [2]),
        (ONE, [], [t(1, "a", work="w"), t(2, "b", work="w"), t(3, "c")], [1, 3]),
        (ONE, [g(1, "a", work="w")], [t(1, "b", work="w"), t(2, "c")], [2]),
    ],
)
def test_who_is_served(
    rules: PoolRules, held: list[Grant], waiting: list[Ticket], expected: list[int]
) -> None:
    assert served(snapshot(a_pool(rules, held, waiting))) == expected
    # The same in a pool that lists projects, neither of which has a limit or a guarantee.
    shared = a_pool(rules, held, waiting, shares=[ProjectShare(project="x")])
    assert sorted(served(snapshot(shared))) == expected


def test_new_requests_are_planned_as_stored_ones() -> None:
    state = a_pool(ONE, [g(1, "a")], [t(1, "a")])
    assert served(snapshot(state, t(2, "a"), t(3, "b"))) == [3]


def test_one_that_may_not_wait_holds_back_none_of_its_own() -> None:
    state = a_pool(TWO, [g(1, "a")], [])
    assert served(snapshot(state, t(1, "a", 2), t(2, "a"), impatient=[1])) == [2]
    assert served(snapshot(state, t(1, "a", 2), t(2, "a"))) == []


def test_what_the_decision_ends_is_not_held() -> None:
    state = a_pool(ONE, [g(1, "a")], [t(1, "a")])
    pool = PoolSnapshot(state, state.free, 9, ended=[uuid7(901)])
    assert served(pool) == [1]


def test_those_held_back_come_last_in_the_order() -> None:
    state = a_pool(ONE, [g(1, "a"), g(2, "x", 8)], [t(1, "a"), t(2, "b"), t(3, "b"), t(4, "c")])
    assert order(snapshot(state)) == [2, 4, 1, 3]


def test_hold_back_is_said_of_what_is_left_after_the_plan() -> None:
    pool = snapshot(a_pool(ONE, [], [t(1, "a")]))
    plan = BY_POOL.plan(pool, Instant(NOW))
    assert not plan.hold_back(t(1, "a"))
    assert plan.hold_back(t(7, "a"))
    assert not plan.hold_back(t(8, "b"))


def why(state: PoolState, number: int) -> Waiting:
    pool = PoolSnapshot.of(state)
    plan = BY_POOL.plan(pool, Instant(NOW))
    return why_waiting(pool, plan, state.tickets[uuid7(number)])


@pytest.mark.parametrize("shares", [(), (ProjectShare(project="x"),)], ids=["fifo", "shared"])
@pytest.mark.parametrize(
    ("rules", "held", "waiting", "of", "rule", "said"),
    [
        (ONE, [g(1, "a")], [t(1, "a")], 1, Rule.PER_HOLDER, "holder a has 1 of the 1 seats"),
        (ONE, [], [t(1, "a"), t(2, "a")], 2, Rule.PER_HOLDER, "take its holder to the most"),
        (TWO, [g(1, "a")], [t(1, "a", 2), t(2, "a")], 2, Rule.PER_HOLDER, "it is behind"),
        (PROJECT, [g(1, "a", 2)], [t(1, "b")], 1, Rule.PER_PROJECT, "project cv has 2 of"),
        (PROJECT, [], [t(1, "a", 2), t(2, "b")], 2, Rule.PER_PROJECT, "take its project to"),
        (PROJECT, [g(1, "a")], [t(1, "b", 2), t(2, "c")], 2, Rule.PER_PROJECT, "is behind"),
        (ONE, [g(1, "a"), g(2, "x", 8)], [t(1, "a"), t(2, "b")], 2, Rule.SEATS, "is next"),
        (ONE, [], [t(1, "a")], 1, Rule.NEXT, "the next decision grants it"),
    ],
)
def test_the_rule_that_decides(
    rules: PoolRules,
    held: list[Grant],
    waiting: list[Ticket],
    of: int,
    rule: Rule,
    said: str,
    shares: tuple[ProjectShare, ...],
) -> None:
    reason = why(a_pool(rules, held, waiting, shares=shares), of).reason
    assert reason.rule is rule
    assert said in reason.text
    if rule in {Rule.PER_HOLDER, Rule.PER_PROJECT}:
        assert f"(rule `{rule.value}`)" in str(reason)


HOLDERS, PROJECTS = st.sampled_from("abc"), st.sampled_from(["cv", "nlp"])
LIMITS = st.builds(AtMost, seats=st.none() | st.integers(1, 4))


@st.composite
def pools(draw: st.DrawFn) -> PoolState:
    """A pool with limits of each, some of it held, and some waiting."""
    rules = PoolRules(per_holder=draw(LIMITS), per_project=draw(LIMITS))
    held = [
        g(n, draw(HOLDERS), draw(st.integers(1, 3)), draw(PROJECTS))
        for n in range(draw(st.integers(0, 4)))
    ]
    most = min(each.seats or 3 for each in (rules.per_holder, rules.per_project))
    waiting = [
        t(
            *(n, draw(HOLDERS), draw(st.integers(1, min(3, most)))),
            project=draw(PROJECTS),
            priority=draw(st.integers(0, 1)),
            work=draw(st.sampled_from(["", "", "", "w"])),
        )
        for n in range(1, draw(st.integers(1, 8)))
    ]
    shares = [ProjectShare(project="cv")] if draw(st.booleans()) else []
    return a_pool(rules, held, waiting, draw(st.integers(1, 14)), shares)


ROUNDS_MAX = 8


@settings(max_examples=300, deadline=None)
@given(pools())
def test_no_plan_takes_anybody_over_a_limit_and_none_is_forgotten(state: PoolState) -> None:
    assert state.spec is not None
    rules, is_shared = state.spec.policy.rules, bool(state.spec.policy.projects)
    number = 50
    for _ in range(ROUNDS_MAX):
        pool = PoolSnapshot.of(state)
        plan = BY_POOL.plan(pool, Instant(NOW))
        after: list[Grant | Ticket] = [*state.grants.values(), *plan.serve]
        for one in plan.serve:
            of_holder = sum(each.seats for each in after if each.holder == one.holder)
            of_project = sum(each.seats for each in after if each.project == one.project)
            assert of_holder <= (rules.per_holder.seats or of_holder)
            assert of_project <= (rules.per_project.seats or of_project)
        assert sum(each.seats for each in plan.serve) <= state.free
        # All that wait are in the order, each once; and each is said why it does.
        assert sorted(ticket.grant_id for ticket in plan.order) == sorted(state.tickets)
        ids = {each.grant_id for each in plan.serve}
        for ticket in state.tickets.values():
            rule = why_waiting(pool, plan, ticket).reason.rule
            assert rule is not Rule.POLICY
            assert (rule is Rule.NEXT) == (ticket.grant_id in ids)
        if not plan.serve:
            break
        for ticket in plan.serve:
            number += 1
            state.remove_ticket(ticket.grant_id)
            held = g(number, ticket.holder, ticket.seats, ticket.project, ticket.work_key)
            state.put_grant(held)
    else:
        raise AssertionError("there is always more to serve")
    # Where seats are left, what waits is held back, behind one that is too large, or for work.
    waiting = list(state.tickets.values())
    back = held_back(rules, waiting, state.grants.values(), is_shared=is_shared)
    able = [
        each
        for each in waiting
        if each.grant_id not in back and not pool.is_work_held(each.work_key)
    ]
    assert not able or state.free < max(each.seats for each in able)
