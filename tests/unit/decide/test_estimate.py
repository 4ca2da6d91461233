"""The estimated wait: by the latest holds, and never below what the present ones contradict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from heapq import heapify, heapreplace
from random import Random
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import POOL, a_grant, a_ticket

from seatkeeper.server.decide import HoldStats, forecast, outlook
from seatkeeper.server.decide.estimate import HOLDERS_MAX, RECENT_MAX, Outlook
from seatkeeper.server.decide.futures import HOLDS_MIN, PLACES_MAX, Futures
from seatkeeper.server.domain import (
    Attribution,
    Basis,
    Grant,
    Instant,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
)
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.snapshot import PoolSnapshot

S = timedelta(seconds=1)
Lasts: TypeAlias = Callable[[Random], float]
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


def likely(ahead: Outlook, seats: int) -> timedelta | None:
    """How long it is likely to take until so many seats are free."""
    wait = ahead.wait(seats)
    return None if wait is None else timedelta(seconds=round(wait.likely.total_seconds(), 6))


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
        ([1 * S], 2, [4 * S], 2, 3 * S),
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
        *("the second to end", "a surplus goes first", "one is free yet", "none is held"),
        "no capacity",
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
    assert likely(ahead, position) == estimate


def test_it_says_what_it_stands_on() -> None:
    state = pool(held_for(1, 60 * S), held_for(2, 2 * S), seats=2)
    basis = outlook(state, holds(3 * S, 4 * S, 50 * S), NOW).basis
    assert basis is not None
    assert (basis.holds, basis.hold_median, basis.holders, basis.overdue) == (3, 4 * S, 2, 1)


def test_a_grant_of_many_seats_frees_them_together() -> None:
    state = pool(held_for(1, 1 * S, seats=4), held_for(2, 0 * S), seats=5)
    ahead = outlook(state, holds(10 * S), NOW)
    assert [likely(ahead, place) for place in (1, 4, 5, 6)] == [9 * S, 9 * S, 10 * S, 19 * S]


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
    assert likely(ahead, many) == 9 * S
    assert likely(ahead, many + 8) == 19 * S


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
    assert 0 * S <= first.likely <= second.likely
    if first.low is None or first.high is None:
        assert len(recent) < HOLDS_MIN
    else:
        assert 0 * S <= first.low <= first.likely <= first.high


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), min_size=1, max_size=6),
    st.integers(30, 60),
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
    held = sum(seats for _, seats in ends)
    played = max(PLACES_MAX, 2 * held)
    ahead = Outlook(
        basis=Basis(holds=1, hold_median=hold * S, holders=len(ends), overdue=0),
        futures=Futures([(float(hold - end), seats) for end, seats in ends], [float(hold)]),
    )
    if place <= played:
        assert likely(ahead, place) == free[place - 1] * S
    else:
        after = free[played - 1] + (place - played) * hold / held
        assert likely(ahead, place) == timedelta(seconds=round(after, 6))


def equal(rng: Random) -> float:
    return rng.uniform(9, 11)


def exponential(rng: Random) -> float:
    return rng.expovariate(0.1)


def log_normal(rng: Random) -> float:
    return rng.lognormvariate(2, 1)


def of_two_kinds(rng: Random) -> float:
    return rng.choice((1, 1, 1, 30)) * rng.uniform(0.9, 1.1)


def waited(rng: Random, lasts: Lasts, seats: int, place: int) -> tuple[Outlook, timedelta]:
    """A pool that has been full for long, and how long the ticket at ``place`` really waits."""
    state, ends = pool(seats=seats), []
    for number in range(seats):
        # At a time that means nothing one finds a long hold more likely than a short one.
        lengths = [lasts(rng) for _ in range(50)]
        (length,) = rng.choices(lengths, weights=lengths)
        age = rng.random() * length
        state.put_grant(held_for(number, timedelta(seconds=age)))
        ends.append(length - age)
    stats = holds(*(timedelta(seconds=lasts(rng)) for _ in range(RECENT_MAX)))
    heapify(ends)
    for _ in range(place):
        wait = heapreplace(ends, ends[0] + lasts(rng))
    return outlook(state, stats, NOW), timedelta(seconds=wait)


@pytest.mark.parametrize("lasts", [equal, exponential, log_normal, of_two_kinds])
def test_four_of_five_waits_are_within_the_interval(lasts: Lasts) -> None:
    """And the estimate is no further off on one side than on the other."""
    within, longer, tries = 0, 0, 0
    for seed, (seats, place) in enumerate([(1, 1), (1, 5), (4, 1), (4, 10), (20, 5), (20, 40)]):
        rng = Random(seed)
        for _ in range(40):
            ahead, truth = waited(rng, lasts, seats, place)
            wait = ahead.wait(place)
            if wait is None or wait.low is None or wait.high is None:
                continue  # the only holder is at it for longer than any before
            tries += 1
            within += wait.low <= truth <= wait.high
            longer += truth > wait.likely
    print(f"{lasts.__name__}: {within / tries:.2f} within, {longer / tries:.2f} longer")
    assert tries > 200
    assert 0.75 < within / tries < 0.95
    assert 0.35 < longer / tries < 0.65


def test_each_ticket_waits_for_the_seats_of_those_before_it() -> None:
    state = pool(held_for(1, 1 * S), held_for(2, 3 * S), held_for(3, 5 * S), seats=3)
    for number, seats in ((10, 1), (11, 2), (12, 1)):
        state.put_ticket(a_ticket(number, seats=seats))
    shown = forecast(state, BY_POOL.plan(PoolSnapshot.of(state), NOW), holds(10 * S), NOW)
    found = [place.wait.likely / S for _, place in shown.line() if place.wait is not None]
    assert found == pytest.approx([5, 9, 15])
    (last,) = (ticket for ticket in state.tickets.values() if ticket.number == 12)
    assert shown.place(last) == list(shown.line())[2][1]


def test_a_project_under_its_guarantee_waits_for_the_next_seat_only() -> None:
    """It asks last, and the other project holds all seats, and waits for more."""
    mine, other = Attribution("h", "mine"), Attribution("h", "other")
    state = pool(*(held_for(number, number * S) for number in (1, 2, 3)), seats=3)
    shares = ProjectShare(project="mine", guaranteed=1), ProjectShare(project="other")
    state.spec = PoolSpec(
        POOL,
        3,
        policy=PoolPolicy(projects=shares),
    )
    for grant in list(state.grants.values()):
        state.remove_grant(grant.grant_id)
        state.put_grant(replace(grant, attribution=other))
    for number in (10, 11, 12):
        state.put_ticket(replace(a_ticket(number), attribution=other))
    last = replace(a_ticket(13), attribution=mine)
    state.put_ticket(last)
    shown = forecast(state, BY_POOL.plan(PoolSnapshot.of(state), NOW), holds(10 * S), NOW)
    place = shown.place(last)
    assert place is not None
    assert place.wait is not None
    assert (place.position, place.wait.likely) == (1, 7 * S)
    found = [other.wait.likely / S for _, other in shown.line() if other.wait is not None]
    assert found == pytest.approx([7, 8, 9, 17])


def test_of_holders_with_very_different_seats_those_looked_at_count_by_their_seats() -> None:
    many = 2 * HOLDERS_MAX
    seats = [1 if number % 2 == 0 else 100 for number in range(many)]
    grants = [held_for(n, (n % 10) * S, seats=each) for n, each in enumerate(seats)]
    ahead = outlook(pool(*grants, seats=sum(seats)), holds(*[10 * S] * 10), NOW)
    # A tenth of all seats is free after each second.
    found = likely(ahead, sum(seats) // 2)
    assert found is not None
    assert 3 * S <= found <= 7 * S
