"""Advisory pools in decisions: all is granted, and marked where a binding pool would not grant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, changed, release, uuid7

from seatkeeper.core.counting import ClassCost, Counting
from seatkeeper.core.pool_rules import AtMost, PoolRules, Who
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Acquire,
    Command,
    Denied,
    Drain,
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
from seatkeeper.server.domain.advisory import AdvisoryCounts, AdvisoryMark
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.snapshot import PoolSnapshot

ADVISORY = Counting(is_advisory=True)
PLAIN = PoolPolicy(counting=ADVISORY)
ONE_EACH = PoolPolicy(rules=PoolRules(per_holder=AtMost(seats=1)), counting=ADVISORY)
CV_ALONE = PoolPolicy(rules=PoolRules(include=Who(projects=("cv",))), counting=ADVISORY)
NO_BOB = PoolPolicy(rules=PoolRules(exclude=Who(holders=("bob",))), counting=ADVISORY)
ONE_FOR_CV = PoolPolicy((ProjectShare(project="cv", limit=1),), counting=ADVISORY)
TWO_CLASSES = PoolPolicy(counting=replace(ADVISORY, costs=(ClassCost("a100", 3),)))


def a_pool(policy: PoolPolicy = PLAIN, *, seats: int = 2, held: int = 0) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, seats, policy=policy))
    if held:
        state.put_grant(changed(a_grant(900, seats=held, session="x"), holder="x", project="x"))
    return state


def asks(number: int, holder: str = "ann", project: str = "cv", **more: object) -> Acquire:
    more = {"holder": holder, "project": project, **more}
    return changed(acquire(number, session=holder), **more)


def decided(state: PoolState, *commands: Command, now: int = NOW) -> Decision:
    return decide(state, commands, Instant(now), Limits())


def marks(decision: Decision) -> dict[str, AdvisoryMark | None]:
    return {grant.grant_id: grant.mark for grant in decision.grants}


@pytest.mark.parametrize(
    ("policy", "held", "request_", "expected"),
    [
        (PLAIN, 0, asks(1), None),
        (PLAIN, 1, asks(1), None),
        (PLAIN, 2, asks(1), ("seats", 1, False)),
        (PLAIN, 1, asks(1, seats=2), ("seats", 1, False)),
        (PLAIN, 5, asks(1, seats=2), ("seats", 2, False)),
        (PLAIN, 2, asks(1, may_wait=False), ("seats", 1, True)),
        (PLAIN, 0, asks(1, seats=5), ("capacity", 3, True)),
        (PLAIN, 2, asks(1, seats=5), ("capacity", 5, True)),
        (NO_BOB, 0, asks(1, "bob"), ("exclude", 0, True)),
        (NO_BOB, 0, asks(1, "ann"), None),
        (CV_ALONE, 2, asks(1, project="nlp"), ("include", 1, True)),
        (ONE_EACH, 0, asks(1, seats=2), ("per_holder", 0, True)),
        (ONE_EACH, 0, asks(1), None),
        (ONE_FOR_CV, 0, asks(1, seats=2), ("limit", 0, True)),
        (PLAIN, 0, asks(1, cost_class="a100"), ("cost_class", 0, True)),
        (TWO_CLASSES, 0, asks(1, cost_class="t4"), ("cost_class", 0, True)),
        (TWO_CLASSES, 0, asks(1, cost_class="a100"), ("capacity", 1, True)),
    ],
)
def test_what_is_marked_and_how(
    policy: PoolPolicy, held: int, request_: Acquire, expected: tuple[str, int, bool] | None
) -> None:
    decision = decided(a_pool(policy, held=held), request_)
    (grant,) = decision.grants
    assert isinstance(decision.outcomes[0][1], Granted)
    found = grant.mark and (grant.mark.rule, grant.mark.seats_beyond, grant.mark.is_refusal)
    assert found == expected
    if grant.mark is not None:
        assert grant.mark.message
        assert "(rule" not in grant.mark.message


def test_what_a_limit_of_each_holds_back_is_marked_though_seats_are_free() -> None:
    decision = decided(a_pool(ONE_EACH, seats=4), asks(1), asks(2), asks(3, "bob"))
    found = {each: mark and mark.rule for each, mark in marks(decision).items()}
    assert found == {uuid7(1): None, uuid7(2): "per_holder", uuid7(3): None}
    assert marks(decision)[uuid7(2)].seats_beyond == 0  # type: ignore[union-attr]  # above


def test_a_mark_names_the_holder_and_the_seats() -> None:
    (grant,) = decided(a_pool(held=2), asks(1)).grants
    assert grant.mark is not None
    assert grant.mark.message == "it wants 1 seat, and 2 of 2 were held"
    (grant,) = decided(a_pool(NO_BOB), asks(1, "bob")).grants
    assert grant.mark is not None
    assert "holder bob is excluded" in grant.mark.message


@pytest.mark.parametrize("closed", ["closed", "drained"])
def test_a_closed_or_drained_pool_grants_nothing_also_where_it_is_advisory(closed: str) -> None:
    state = a_pool(seats=0 if closed == "closed" else 2)
    assert state.spec is not None
    if closed == "drained":
        state.spec = replace(state.spec, drain=Drain("moved", "root", NOW))
    decision = decided(state, asks(1), asks(2, may_wait=False))
    assert not decision.grants
    assert isinstance(decision.outcomes[0][1], Queued)
    assert isinstance(decision.outcomes[1][1], Denied)


def test_those_who_wait_for_the_work_of_another_wait_here_too() -> None:
    first, second = asks(1, work_key="w"), asks(2, "bob", work_key="w")
    decision = decided(a_pool(held=2), first, second)
    assert [grant.grant_id for grant in decision.grants] == [uuid7(1)]
    assert [ticket.grant_id for ticket in decision.tickets] == [uuid7(2)]


def test_what_waits_when_a_pool_begins_to_count_only_is_granted_in_order() -> None:
    state = a_pool(held=2)
    for number in (1, 2, 3):
        state.put_ticket(a_ticket(number, session=f"s{number}"))
    plan = BY_POOL.plan(PoolSnapshot.of(state), Instant(NOW))
    assert [ticket.grant_id for ticket in plan.serve] == [uuid7(1), uuid7(2), uuid7(3)]
    decision = decided(state)
    assert [grant.grant_id for grant in decision.grants] == [uuid7(1), uuid7(2), uuid7(3)]
    assert all(grant.mark is not None for grant in decision.grants)


def test_a_pool_that_binds_again_drains_its_surplus() -> None:
    state = a_pool(seats=1)
    for grant in decided(state, asks(1), asks(2, "bob"), asks(3, "carl")).grants:
        state.put_grant(grant)
    assert state.spec is not None
    state.spec = replace(state.spec, policy=PoolPolicy())
    decision = decided(state, asks(4, "dan"), release(1, "ann"), release(2, "bob"))
    assert not decision.grants
    assert [ticket.grant_id for ticket in decision.tickets] == [uuid7(4)]


def test_seats_are_never_called_back_for_those_who_would_wait() -> None:
    plan = BY_POOL.plan(PoolSnapshot.of(a_pool(held=2)), Instant(NOW))
    assert (plan.reclaim, plan.next_wake) == ((), None)


# What is counted ------------------------------------------------------------------------------


def counts(decision: Decision) -> AdvisoryCounts:
    assert decision.guard.advisory is not None
    return decision.guard.advisory


def test_what_is_counted() -> None:
    state = a_pool(seats=1)
    first = decided(state, asks(1), asks(2, "bob"), asks(3, "carl", may_wait=False))
    assert counts(first) == AdvisoryCounts(
        Instant(NOW), waited=1, refused=1, seats_most=2, over_since=Instant(NOW)
    )
    for grant in first.grants:
        state.put_grant(grant)
    state.guard = first.guard
    second = decided(state, release(1, "ann"), release(2, "bob"), now=NOW + 5_000)
    found = counts(second)
    assert (found.over_longest, found.over_since, found.waited) == (5_000, 0, 1)


def test_a_time_beyond_the_seats_that_ended_with_a_session_counts_up_to_the_last_decision() -> (
    None
):
    state = a_pool(seats=1, held=1)
    first = decided(state, asks(1))
    state.guard = first.guard  # the grant ended with its session: the view does not have it
    second = decided(state, asks(2, "bob"), now=NOW + 9_000)
    assert counts(second).over_longest == 0
    assert counts(second).over_since == NOW + 9_000


def test_what_was_counted_stays_while_the_pool_binds_and_begins_anew_after_that() -> None:
    state = a_pool(held=2)
    state.guard = decided(state, asks(1)).guard
    assert state.spec is not None
    state.spec = replace(state.spec, policy=PoolPolicy())
    bound = decided(state, asks(2, "bob"), now=NOW + 10)
    assert (counts(bound).waited, counts(bound).until) == (1, NOW + 10)
    state.guard = bound.guard
    assert counts(decided(state, asks(3, "carl"), now=NOW + 20)) == counts(bound)
    state.spec = replace(state.spec, policy=PLAIN)
    again = counts(decided(state, now=NOW + 30))
    assert (again.since, again.until, again.waited) == (NOW + 30, 0, 0)


def test_a_pool_that_never_was_advisory_counts_nothing() -> None:
    assert decided(a_pool(PoolPolicy()), asks(1)).guard.advisory is None


# Properties -----------------------------------------------------------------------------------

POLICIES = (
    PoolPolicy(),
    PoolPolicy(rules=PoolRules(per_holder=AtMost(seats=2))),
    PoolPolicy(rules=PoolRules(exclude=Who(holders=("bob",)))),
    PoolPolicy(
        (ProjectShare(project="cv", guaranteed=1, limit=2), ProjectShare(project="nlp"))
    ),
)
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "carl"]),
        st.sampled_from(["cv", "nlp"]),
        st.integers(1, 3),
        st.booleans(),
        st.integers(0, 1),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(st.sampled_from(POLICIES), st.integers(1, 4), st.integers(0, 5), REQUESTS)
def test_all_is_granted_and_what_a_binding_pool_would_grant_is_what_is_not_marked(
    policy: PoolPolicy,
    seats: int,
    held: int,
    requests: list[tuple[str, str, int, bool, int]],
) -> None:
    commands = [
        changed(
            acquire(number, session=holder, seats=wanted, may_wait=may_wait, priority=priority),
            holder=holder,
            project=project,
        )
        for number, (holder, project, wanted, may_wait, priority) in enumerate(requests, 1)
    ]
    state = a_pool(replace(policy, counting=ADVISORY), seats=seats, held=held)
    decision = decided(state, *commands)
    assert {grant.grant_id for grant in decision.grants} == {c.grant_id for c in commands}
    assert not decision.tickets
    so_far = held
    for grant in sorted(decision.grants, key=lambda each: each.fence):
        beyond = min(grant.seats, max(0, so_far + grant.seats - seats))
        so_far += grant.seats
        assert beyond == (grant.mark.seats_beyond if grant.mark else 0)
    binding = decided(a_pool(policy, seats=seats, held=held), *commands)
    unmarked = [grant.grant_id for grant in decision.grants if grant.mark is None]
    assert unmarked == [grant.grant_id for grant in binding.grants]
    for command, outcome in binding.outcomes:
        if isinstance(outcome, Denied):
            mark = marks(decision)[command.grant_id]
            assert mark is not None
            assert mark.is_refusal
            if outcome.reason is Refusal.NOT_ALLOWED:
                assert mark.rule in ("include", "exclude")
    found = [grant.mark for grant in decision.grants if grant.mark is not None]
    assert counts(decision).waited + counts(decision).refused == len(found)


def test_a_ticket_of_a_pool_that_only_counts_is_served_at_once_by_every_plan() -> None:
    """The loop wakes for what the decision does: also where more is held than there is."""
    tickets: list[Ticket] = [a_ticket(number, session=f"s{number}") for number in range(1, 200)]
    state = a_pool(held=9)
    for ticket in tickets:
        state.put_ticket(ticket)
    plan = BY_POOL.plan(PoolSnapshot.of(state, grants_max=1), Instant(NOW))
    assert [ticket.grant_id for ticket in plan.serve] == [uuid7(1)]
    decision = decided(state)
    assert decision.unserved
    assert len(decision.grants) == Limits().writes_max // 2
