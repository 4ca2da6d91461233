"""What projects have used: forgotten by halves, and never by the time of a plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import NOW
from tests.unit.policy.test_shares import a_pool, held, numbers, plan, share, t

from seatkeeper.server.decide import decide
from seatkeeper.server.domain import (
    Guard,
    Instant,
    Limits,
    PoolPolicy,
    PoolSpec,
    PoolState,
    Usage,
)
from seatkeeper.server.policy.usage import advanced, mean_seats, with_usage
from seatkeeper.server.store import records

HOUR = timedelta(hours=1)
HOUR_MILLIS = 3_600_000
SHARES = (share("cv"), share("nlp"))


def pool(usage: Usage, *, holds: dict[str, int] | None = None, seats: int = 2) -> PoolState:
    state = a_pool(t(1, "cv"), t(2, "nlp"), shares=[*SHARES], seats=seats, holds=holds)
    assert state.spec is not None
    state.spec = replace(state.spec, policy=PoolPolicy(SHARES, HOUR))
    state.guard = Guard(5, 5, usage=usage)
    return state


def test_half_is_forgotten_in_a_half_life_and_what_is_held_adds_up() -> None:
    begin = Usage(NOW, {"cv": HOUR_MILLIS})
    after = advanced(begin, {"cv": 0, "nlp": 2}, Instant(NOW + HOUR_MILLIS), HOUR)
    assert after.at == NOW + HOUR_MILLIS
    assert after.seat_millis["cv"] == HOUR_MILLIS // 2
    # Two seats for an hour, of which the first minutes are half forgotten: 2 h / ln 2 / 2.
    assert after.seat_millis["nlp"] == pytest.approx(HOUR_MILLIS / 0.693147, rel=1e-6)


def test_seats_that_are_held_for_long_are_their_mean() -> None:
    usage = Usage(NOW, {})
    for hour in range(1, 30):
        usage = advanced(usage, {"cv": 3}, Instant(NOW + hour * HOUR_MILLIS), HOUR)
    assert mean_seats(usage, HOUR)["cv"] == pytest.approx(3, rel=1e-6)


@given(
    used=st.integers(0, 10**12),
    seats=st.integers(0, 100),
    steps=st.lists(st.integers(1, 10**7), min_size=1, max_size=8),
)
def test_it_does_not_matter_how_often_it_is_written(
    used: int, seats: int, steps: list[int]
) -> None:
    usage = Usage(NOW, {"cv": used})
    at = NOW
    for step in steps:
        at = Instant(at + step)
        usage = advanced(usage, {"cv": seats}, at, HOUR)
    once = advanced(Usage(NOW, {"cv": used}), {"cv": seats}, at, HOUR)
    found = usage.seat_millis.get("cv", 0)
    assert found == pytest.approx(once.seat_millis.get("cv", 0), abs=1_000 * (len(steps) + 1))


def test_a_clock_that_is_behind_changes_nothing() -> None:
    begin = Usage(Instant(NOW + 5_000), {"cv": 9_000})
    assert advanced(begin, {"cv": 4}, NOW, HOUR) == begin


def test_who_has_used_less_comes_first_whatever_the_time() -> None:
    state = pool(Usage(NOW, {"cv": HOUR_MILLIS}))
    assert numbers([*plan(state).serve]) == [2, 1]
    assert numbers([*plan(pool(Usage(NOW, {"nlp": HOUR_MILLIS}))).serve]) == [1, 2]


def test_a_project_that_is_not_listed_does_not_come_before_those_that_have_used_their_share() -> (
    None
):
    """It holds three, the others two each, and did so all the time."""
    used = {"cv": 2, "nlp": 2}
    steady = {name: round(2 * HOUR_MILLIS / 0.693147) for name in used}
    state = pool(Usage(NOW, steady), holds={"cv": 2, "nlp": 2, "asr": 3}, seats=8)
    state.put_ticket(t(0, "asr"))
    assert numbers([*plan(state).serve]) == [1]


def test_each_decision_writes_it_and_a_pool_that_does_not_look_at_it_has_none() -> None:
    state = pool(Usage(NOW, {}), holds={"cv": 1}, seats=3)
    decision = decide(state, [], Instant(NOW + 60_000), Limits())
    assert decision.guard.usage.at == NOW + 60_000
    assert decision.guard.usage.seat_millis["cv"] == pytest.approx(60_000, rel=0.01)
    assert decision.guard.fence == 7
    read, _ = records.decode_guard(records.encode_guard(decision.guard))
    assert read == decision.guard
    assert state.spec is not None
    state.spec = PoolSpec(state.spec.name, 3, policy=PoolPolicy(SHARES))
    assert with_usage(state, NOW) is state.guard


def test_projects_that_are_listed_no_longer_are_forgotten() -> None:
    state = pool(Usage(NOW, {"gone": HOUR_MILLIS, "cv": 5_000}))
    state.put_grant(held(7, "stranger", 1))
    found = with_usage(state, Instant(NOW + 1_000)).usage
    assert found.seat_millis.keys() == {"cv"}
