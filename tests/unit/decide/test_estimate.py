"""The estimated wait: by the latest holds, and never below what the present ones contradict."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import POOL, a_grant

from seatkeeper.server.decide import HoldStats, outlook
from seatkeeper.server.decide.estimate import HOLDERS_MAX, RECENT_MAX, Outlook
from seatkeeper.server.domain import Basis, Grant, Instant, PoolSpec, PoolState

S = timedelta(seconds=1)
NOW = Instant(1_700_000_000_000)


def held_for(number: int, age: timedelta, seats: int = 1) -> Grant:
    """A grant that is as old as that."""
    granted_at = Instant(NOW - round(age / timedelta(milliseconds=1)))
    return replace(a_grant(number, seats=seats), granted_at=granted_at)


def pool(*grants: Grant, seats: int = 1) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, seats))
    for grant in grants:
        state.put_grant(grant)
    return state


def holds(*lengths: timedelta) -> HoldStats:
    stats = HoldStats()
    for length in lengths:
        stats = stats.with_hold(length)
    return stats


@pytest.mark.parametrize(
    ("ages", "seats", "lengths", "position", "estimate"),
    [
        ([0 * S], 1, [], 1, None),
        ([0 * S], 1, [10 * S], 1, 10 * S),
        ([4 * S], 1, [10 * S], 1, 6 * S),
        ([4 * S], 1, [10 * S], 3, 26 * S),
        ([60 * S], 1, [1 * S, 1 * S, 1 * S], 1, None),
        ([5 * S], 1, [1 * S, 1 * S, 20 * S], 1, 15 * S),
        ([60 * S, 2 * S], 2, [3 * S, 4 * S, 5 * S], 1, 2 * S),
        ([60 * S, 2 * S], 2, [3 * S, 4 * S, 5 * S], 2, 6 * S),
        ([1 * S, 3 * S], 2, [4 * S], 2, 3 * S),
        ([1 * S, 3 * S], 1, [4 * S], 1, 3 * S),
        ([], 1, [4 * S], 1, None),
        ([0 * S], 0, [4 * S], 1, None),
    ],
    ids=(
        *("nothing is known", "as long as usual", "less what has passed", "a place is a hold"),
        *(
            "longer than all",
            "as the long ones",
            "without the overdue",
            "the overdue stay away",
        ),
        *("the second to end", "a surplus goes first", "none is held", "no capacity"),
    ),
)
def test_an_estimate_stands_on_holds(
    ages: list[timedelta],
    seats: int,
    lengths: list[timedelta],
    position: int,
    estimate: timedelta | None,
) -> None:
    grants = [held_for(number, age) for number, age in enumerate(ages, start=1)]
    ahead = outlook(pool(*grants, seats=seats), holds(*lengths), NOW)
    assert ahead.wait(position) == estimate


def test_it_says_what_it_stands_on() -> None:
    state = pool(held_for(1, 60 * S), held_for(2, 2 * S), seats=2)
    basis = outlook(state, holds(3 * S, 4 * S, 50 * S), NOW).basis
    assert basis is not None
    assert (basis.holds, basis.hold_median, basis.holders, basis.overdue) == (3, 4 * S, 2, 1)


def test_a_grant_of_many_seats_frees_them_together() -> None:
    state = pool(held_for(1, 1 * S, seats=4), held_for(2, 0 * S), seats=5)
    ahead = outlook(state, holds(10 * S), NOW)
    assert [ahead.wait(place) for place in (1, 4, 5, 6)] == [9 * S, 9 * S, 10 * S, 19 * S]


def test_a_hold_that_ended_before_it_began_counts_as_none() -> None:
    assert holds(-S).usual == 0 * S


def test_the_latest_holds_count() -> None:
    stats = holds(*[100 * S] * 50, *[2 * S] * RECENT_MAX)
    assert (stats.usual, len(stats.recent)) == (2 * S, RECENT_MAX)


def test_of_very_many_holders_some_are_looked_at() -> None:
    many = 4 * HOLDERS_MAX
    state = pool(*(held_for(number, 1 * S) for number in range(many)), seats=many)
    ahead = outlook(state, holds(10 * S), NOW)
    assert ahead.basis is not None
    assert ahead.basis.holders == HOLDERS_MAX
    assert ahead.wait(many) == 9 * S
    assert ahead.wait(many + 8) == 19 * S


lengths = st.lists(st.integers(0, 100).map(lambda n: n * S), max_size=30)


@given(lengths, lengths, st.integers(1, 50))
def test_no_estimate_is_below_what_is_contradicted(
    recent: list[timedelta], ages: list[timedelta], position: int
) -> None:
    grants = [held_for(number, age) for number, age in enumerate(ages, start=1)]
    state = pool(*grants, seats=max(1, len(grants)))
    ahead = outlook(state, holds(*recent), NOW)
    longest = max(recent[-RECENT_MAX:], default=None)
    if longest is None or all(age > longest for age in ages):
        assert ahead.wait(position) is None
        return
    first, second = ahead.wait(position), ahead.wait(position + 1)
    assert first is not None
    assert second is not None
    assert 0 * S <= first <= second


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4)), min_size=1, max_size=6),
    st.integers(1, 30),
    st.integers(1, 200),
)
def test_a_place_is_served_when_so_many_seats_were_free(
    ends: list[tuple[int, int]], hold: int, place: int
) -> None:
    """Against the plain way: write down when each seat is free, again and again, and count."""
    free = sorted(
        end + round_ * hold
        for end, seats in ends
        for _ in range(seats)
        for round_ in range(place + 1)
    )
    ahead = Outlook(
        basis=Basis(holds=1, hold_median=hold * S, holders=len(ends), overdue=0),
        ends=tuple((end * S, seats) for end, seats in sorted(ends)),
    )
    assert ahead.wait(place) == free[place - 1] * S
