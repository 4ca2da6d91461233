"""What open windows call back: a table, and what is true of every plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import NOW
from tests.unit.policy.test_reserving import BOB, CI, RULES, a_pool, ci, g, plan_of, snapshot, t

from seatkeeper.core.reservations import Reservation
from seatkeeper.server.decide import decide
from seatkeeper.server.domain import (
    Cause,
    Grant,
    Instant,
    Limits,
    PoolPolicy,
    PoolState,
    ProjectShare,
    Reclaim,
)
from seatkeeper.server.domain.reclaims import Reclaims
from seatkeeper.server.policy.by_pool import BY_POOL

NOTICE = 60_000
CALLS = replace(CI, notice=NOTICE)
BOBS = replace(BOB, notice=2 * NOTICE)
HEEDS = timedelta(seconds=15)


def able(number: int, seats: int = 1, project: str = "web", *, priority: int = 0) -> Grant:
    """A grant of another, whose client heeds reclaims."""
    grant = replace(g(number, "w", seats, project), heeds_within=HEEDS)
    return replace(grant, attribution=replace(grant.attribution, priority=priority))


def called(state: PoolState) -> list[int]:
    """The numbers of the grants that are called back, in order."""
    return [each.grant.fence for each in plan_of(snapshot(state)).reclaim]


FOUR = [able(1), able(2), able(3), able(4)]


@pytest.mark.parametrize(
    ("reservations", "held", "expected"),
    [
        # The youngest of the lowest priority, as many as the window lacks, and no more.
        ([CALLS], FOUR, [4, 3]),
        ([CALLS], [able(1), able(2, priority=-1), able(3), able(4)], [2, 4]),
        ([CALLS], [able(1), able(2), able(3)], [3]),
        ([CALLS], [able(1), able(2)], []),
        # Those whom it is for hold one: it lacks one.
        ([CALLS], [able(1), able(2), able(3), g(4, "c", 1, "ci")], [3]),
        # One large grant does, and the smaller before it stays.
        ([CALLS], [able(1, 3), able(2, 1)], [1]),
        # Whom another window is for keeps the seats that are kept for it.
        ([CALLS, BOBS], [able(1), able(2), able(3), replace(g(4, "bob"), heeds_within=HEEDS)], [3, 2]),
        # A window without a notice takes none; nor does it take from one with a notice.
        ([CI], FOUR, []),
        ([CALLS, BOB], FOUR, [4, 3]),
        ([CI, BOBS], FOUR, [4]),
        # Clients that do not know reclaims keep their seats.
        ([CALLS], [able(1), g(2), g(3), g(4)], [1]),
        ([CALLS], [g(1), g(2), g(3), g(4)], []),
    ],
)  # fmt: skip  # a case a line
def test_what_a_window_lacks_is_called_back(
    reservations: Sequence[Reservation], held: Sequence[Grant], expected: list[int]
) -> None:
    state = a_pool(reservations, held, [])
    assert sorted(called(state)) == sorted(expected)
    plan = plan_of(snapshot(state))
    assert all(each.cause is Cause.RESERVATION for each in plan.reclaim)
    assert called(a_pool(reservations, held, [], is_open=[])) == [], "not before it opens"


def test_seats_that_those_whom_it_is_for_get_now_are_not_lacking() -> None:
    """One seat is free, which is ci's at once: one more is lacking, and is called back."""
    state = a_pool([CALLS], [able(1), able(2), able(3)], [ci(9)])
    assert [ticket.number for ticket in plan_of(snapshot(state)).serve] == [9]
    assert called(state) == [3]
    other = a_pool([CALLS], [able(1), able(2), able(3)], [t(9)])
    assert called(other) == [3], "and one for others is not served"


def test_guarantees_of_others_stand() -> None:
    shares = (ProjectShare(project="web", guaranteed=2), ProjectShare(project="ci"))
    policy = PoolPolicy(shares, rules=RULES)
    state = a_pool(
        [CALLS], [able(1), able(2), able(3, 1, "x"), able(4, 1, "x")], [], policy=policy
    )
    assert sorted(called(state)) == [3, 4]
    deep = a_pool([CALLS], [able(1), able(2), able(3), able(4, 1, "x")], [], policy=policy)
    assert sorted(called(deep)) == [3, 4], "web keeps the two that it is guaranteed"


def test_what_is_called_back_already_comes_first_and_is_withdrawn_when_not_needed() -> None:
    state = a_pool([CALLS], FOUR, [])
    running = {FOUR[0].grant_id: Reclaim(1, Instant(NOW), HEEDS, "", Cause.RESERVATION, "x")}
    state.guard = replace(state.guard, reclaims=Reclaims(running, (), 1))
    assert sorted(called(state)) == [1, 4]
    decision = decide(state, [], Instant(NOW), Limits(), [], policy=BY_POOL)
    assert FOUR[3].grant_id in decision.guard.reclaims.running
    (new,) = (each for each in decision.guard.reclaims.running.values() if each.number == 2)
    assert new.within == timedelta(milliseconds=NOTICE) + HEEDS
    assert "kept for project ci" in new.message
    state.remove_grant(FOUR[1].grant_id)
    state.remove_grant(FOUR[2].grant_id)
    state.guard = decision.guard
    after = decide(state, [], Instant(NOW), Limits(), [], policy=BY_POOL)
    assert after.guard.reclaims.running == {}, "what it lacked is free"


@settings(max_examples=150, deadline=None)
@given(
    held=st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["web", "ci", "x"]), st.booleans()),
        max_size=6,
    ),
    seats=st.integers(0, 8),
    notices=st.tuples(st.booleans(), st.booleans()),
)
def test_never_more_than_is_lacking_and_never_of_those_it_is_for(
    held: list[tuple[int, str, bool]], seats: int, notices: tuple[bool, bool]
) -> None:
    grants = [
        replace(g(number, "w", size, project), heeds_within=HEEDS if heeds else None)
        for number, (size, project, heeds) in enumerate(held, start=1)
    ]
    reservations = [
        replace(each, notice=NOTICE if calls else 0)
        for each, calls in zip((CI, BOB), notices, strict=True)
    ]
    state = a_pool(reservations, grants, [], seats)
    wanted = [each.grant for each in plan_of(snapshot(state)).reclaim]
    own = sum(each.seats for each in grants if each.project == "ci")
    kept = max(0, CI.seats - own) + BOB.seats
    calling = (max(0, CI.seats - own) if notices[0] else 0) + (BOB.seats if notices[1] else 0)
    lacking = min(calling, kept - state.free)
    assert all(each.project != "ci" and each.heeds_within is not None for each in wanted)
    total = sum(each.seats for each in wanted)
    if lacking <= 0:
        assert not wanted
    for each in wanted:
        assert total - each.seats < lacking, "none could be left out"
    can = sum(each.seats for each in grants if each.heeds_within and each.project != "ci")
    assert total >= min(lacking, can) or lacking <= 0 or not seats
