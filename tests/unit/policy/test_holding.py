"""Which grants are called back for no project: revoked ones, and those held for too long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant
from tests.unit.policy.test_reclaiming import PROJECTS, RULE, TTL, held, wants

from seatkeeper.server.domain import (
    Cause,
    Grant,
    HoldRule,
    Holds,
    Instant,
    PoolPolicy,
    PoolSpec,
    PoolState,
    Reclaim,
    ReclaimRule,
    Reclaims,
    Revoke,
)
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.holding import CALLED_MAX
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot

LONGEST, WARNING = timedelta(minutes=60), timedelta(minutes=10)
HOLD = HoldRule(WARNING, longest=LONGEST)
IDLE = HoldRule(WARNING, idle=timedelta(minutes=30))
BEGINS = LONGEST - WARNING - TTL
"""After how long a holder is called back, so that the seats end after the longest hold."""
SECOND = timedelta(seconds=1)


def a_revoke(reason: str = "for the release") -> Revoke:
    return Revoke(reason, "anna", NOW, timedelta(seconds=60), TTL)


def holding(
    *grants: Grant,
    rule: HoldRule | None = HOLD,
    holds: Mapping[str, Mapping[int, Any]] | None = None,
    running: Mapping[int, Reclaim] | None = None,
    reclaim: ReclaimRule | None = None,
    seats: int = 400,
) -> PoolState:
    """``holds``: what is said of grants, and ``running``: what is called back, by number."""
    projects = PROJECTS if reclaim is not None else ()
    policy = PoolPolicy(projects, reclaim=reclaim, hold=rule)
    state = PoolState(spec=PoolSpec(POOL, seats, policy=policy))
    for grant in grants:
        state.put_grant(grant)
    said: dict[str, Any] = {
        name: {a_grant(number).grant_id: value for number, value in values.items()}
        for name, values in (holds or {}).items()
    }
    called = {a_grant(number).grant_id: each for number, each in (running or {}).items()}
    number = max((each.number for each in called.values()), default=0)
    state.guard = replace(
        state.guard,
        holds=Holds(**said),
        reclaims=Reclaims(called, (), number),
    )
    return state


def plan(state: PoolState, now: int = NOW) -> Plan:
    return BY_POOL.plan(PoolSnapshot.of(state), Instant(now))


def wanted(state: PoolState, now: int = NOW) -> dict[int, Cause]:
    """Return what is called back, by number, and why."""
    return {each.grant.fence: each.cause for each in plan(state, now).reclaim}


def old(number: int, held_for: timedelta, heeds: timedelta | None = TTL) -> Grant:
    return held(number, "cv", held_for=held_for, heeds=heeds)


def called(at: timedelta = timedelta(0), cause: Cause = Cause.LONGEST) -> Reclaim:
    """Return a reclaim that was decided so long before now."""
    decided_at = Instant(NOW - at // timedelta(milliseconds=1))
    return Reclaim(1, decided_at, WARNING + TTL, "", cause, "too long")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(holding(old(1, BEGINS)), {1: Cause.LONGEST}, id="at its time"),
        pytest.param(holding(old(1, BEGINS - SECOND)), {}, id="a second before"),
        pytest.param(holding(old(1, BEGINS), rule=None), {}, id="no rule"),
        pytest.param(holding(old(1, BEGINS), rule=IDLE), {}, id="no longest hold"),
        pytest.param(
            holding(old(1, BEGINS, heeds=None)), {}, id="its client does not know reclaims"
        ),
        pytest.param(
            holding(old(1, BEGINS), holds={"extended": {1: SECOND}}), {}, id="it was extended"
        ),
        pytest.param(
            holding(old(1, BEGINS + SECOND), holds={"extended": {1: SECOND}}),
            {1: Cause.LONGEST},
            id="it was extended, and that is over",
        ),
        pytest.param(
            holding(
                old(1, BEGINS), holds={"extended": {1: LONGEST}}, running={1: called(SECOND)}
            ),
            {},
            id="extended when it was called back already",
        ),
        pytest.param(
            holding(old(1, BEGINS - SECOND), running={1: called()}),
            {},
            id="called back too early for the rule as it is now",
        ),
        pytest.param(
            holding(old(1, BEGINS - SECOND), running={1: called(-SECOND)}),
            {1: Cause.LONGEST},
            id="by a node whose clock is ahead",
        ),
        pytest.param(
            holding(
                old(1, BEGINS - SECOND),
                running={1: replace(called(LONGEST), caused_at=Instant(NOW + 1_000))},
            ),
            {1: Cause.LONGEST},
            id="called back for something else before",
        ),
        pytest.param(
            holding(old(1, BEGINS - SECOND), running={1: called(-SECOND, Cause.GUARANTEE)}),
            {},
            id="called back for something else",
        ),
        pytest.param(
            holding(old(1, SECOND), rule=None, holds={"revokes": {1: a_revoke()}}),
            {1: Cause.REVOKED},
            id="revoked in a pool without a rule",
        ),
        pytest.param(
            holding(old(1, SECOND, heeds=None), rule=None, holds={"revokes": {1: a_revoke()}}),
            {},
            id="revoked, and its client has not answered",
        ),
        pytest.param(
            holding(old(1, BEGINS), holds={"revokes": {1: a_revoke()}}),
            {1: Cause.REVOKED},
            id="revoked, and too long",
        ),
        pytest.param(
            holding(
                old(1, BEGINS - SECOND),
                holds={"revokes": {1: a_revoke()}},
                running={1: called(SECOND)},
            ),
            {1: Cause.REVOKED},
            id="revoked, and called back before its time",
        ),
        pytest.param(
            holding(old(1, BEGINS), holds={"revokes": {1: a_revoke()}}, running={1: called()}),
            {1: Cause.LONGEST},
            id="revoked when it was called back for its time",
        ),
        pytest.param(
            holding(old(1, SECOND), rule=IDLE, holds={"idle": {1: timedelta(minutes=30)}}),
            {1: Cause.IDLE},
            id="idle",
        ),
        pytest.param(
            holding(old(1, SECOND), rule=IDLE, holds={"idle": {1: timedelta(minutes=29)}}),
            {},
            id="idle for less than the rule says by now",
        ),
        pytest.param(
            holding(old(1, SECOND), rule=HOLD, holds={"idle": {1: timedelta(minutes=30)}}),
            {},
            id="idle, which the pool does not look at",
        ),
    ],
)
def test_what_is_called_back(state: PoolState, expected: dict[int, Cause]) -> None:
    assert wanted(state) == expected


def test_a_node_looks_again_when_the_next_one_is_due() -> None:
    state = holding(old(1, BEGINS - 2 * SECOND), old(2, BEGINS - 5 * SECOND), old(3, BEGINS))
    assert plan(state).next_wake == NOW + 2_000
    assert wanted(state, NOW + 2_000) == {1: Cause.LONGEST, 3: Cause.LONGEST}
    assert plan(holding(old(1, BEGINS))).next_wake is None


def test_seats_that_are_lent_are_called_back_beside_those_held_for_too_long() -> None:
    grants = [old(number, BEGINS if number == 1 else LONGEST / 4) for number in (1, 2, 3, 4)]
    state = holding(*grants, reclaim=RULE, seats=4)
    state.put_ticket(wants(9, "nlp"))
    assert wanted(state) == {1: Cause.LONGEST, 4: Cause.GUARANTEE}


def test_those_that_are_due_longest_come_first_and_not_all_at_once() -> None:
    grants = [old(number, LONGEST + number * SECOND) for number in range(1, CALLED_MAX + 3)]
    found = wanted(holding(*grants))
    assert len(found) == CALLED_MAX
    assert found.keys() == set(range(3, CALLED_MAX + 3))
    one_running = holding(*grants, running={1: called()})
    assert wanted(one_running).keys() == {1, *range(4, CALLED_MAX + 3)}


HELD_FOR = st.integers(0, 4000).map(lambda seconds: timedelta(seconds=seconds))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(HELD_FOR, st.booleans()), max_size=6),
    st.dictionaries(st.integers(0, 6), HELD_FOR, max_size=3),
    st.integers(0, 600_000),
)
def test_time_only_adds_and_a_slower_clock_undoes_nothing(
    ages: list[tuple[timedelta, bool]], extended: dict[int, timedelta], skew: int
) -> None:
    grants = [
        old(number, age, TTL if heeds else None) for number, (age, heeds) in enumerate(ages)
    ]
    state = holding(*grants, holds={"extended": extended})
    found = wanted(state)
    for grant in grants:
        more = extended.get(grant.fence, timedelta(0))
        is_due = NOW - grant.granted_at >= (BEGINS + more) / timedelta(milliseconds=1)
        assert (grant.fence in found) is (is_due and grant.heeds_within is not None)
    assert found.keys() <= wanted(state, NOW + skew).keys()
    running = {number: replace(called(), number=number + 1, decided_at=NOW) for number in found}
    stands = holding(*grants, holds={"extended": extended}, running=running)
    assert found.keys() <= wanted(stands, NOW - skew).keys()
