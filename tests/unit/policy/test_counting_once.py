"""Seats that several grants share are called back as a whole, or not at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.unit.kit import NOW, POOL, uuid7
from tests.unit.policy.test_reclaiming import LONG_AGO, PROJECTS, RULE, a_pool, held, wants

from seatkeeper.core.pool_rules import Who
from seatkeeper.core.reservations import (
    PoolWindows,
    Reservation,
    Schedule,
    Window,
    WindowState,
)
from seatkeeper.server.decide import outlook
from seatkeeper.server.decide.estimate import HoldStats
from seatkeeper.server.domain import Cause, Grant, PoolPolicy, PoolState, Ticket
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.snapshot import PoolSnapshot, group_in

SOON = timedelta(seconds=5)


def shared(grant: Grant, who: str = "x") -> Grant:
    """Make a grant one of a group."""
    return replace(grant, group=(("project", grant.project), ("holder", who)))


def counting(
    *requests: Grant | Ticket, called: tuple[int, ...] = (), seats: int = 4
) -> PoolState:
    state = a_pool(*requests, called=called, seats=seats)
    assert state.spec is not None
    policy = replace(state.spec.policy, count_once=("holder",))
    state.spec = replace(state.spec, policy=policy)
    return state


def wanted(state: PoolState) -> list[int]:
    plan = BY_POOL.plan(PoolSnapshot.of(state), NOW)
    return sorted(each.grant.fence for each in plan.reclaim)


FULL = (held(1, "cv"), held(2, "cv"))


def test_all_of_a_group_are_called_back_or_none() -> None:
    two = (shared(held(3, "cv")), shared(held(4, "cv")), held(5, "cv"))
    assert wanted(counting(*FULL, *two, wants(9, "nlp"))) == [5], "the youngest"
    older = (shared(held(8, "cv")), shared(held(7, "cv")), held(5, "cv"))
    assert wanted(counting(*FULL, *older, wants(9, "nlp"))) == [7, 8]


def test_a_group_of_which_one_does_not_know_reclaims_is_no_victim() -> None:
    two = (shared(held(8, "cv")), shared(held(7, "cv", heeds=None)), held(5, "cv"))
    assert wanted(counting(*FULL, *two, wants(9, "nlp"))) == [5]


def test_a_seat_is_held_since_the_first_of_those_who_share_it() -> None:
    young = shared(held(8, "cv", held_for=SOON))
    assert wanted(counting(*FULL, held(6, "cv"), young, wants(9, "nlp"))) == [6]
    old = shared(held(7, "cv", held_for=LONG_AGO))
    assert wanted(counting(*FULL, held(6, "cv"), young, old, wants(9, "nlp"))) == [7, 8]


def test_each_of_them_counts_for_the_hour() -> None:
    two = (shared(held(8, "cv")), shared(held(7, "cv")))
    state = counting(*FULL, held(6, "cv"), *two, wants(9, "nlp"))
    assert state.spec is not None
    rule = replace(RULE, hourly=1)
    state.spec = replace(state.spec, policy=replace(state.spec.policy, reclaim=rule))
    assert wanted(state) == []


def test_what_is_called_back_stays_so_and_has_no_new_members() -> None:
    two = (shared(held(8, "cv"), "s1@host"), shared(held(7, "cv"), "s1@host"))
    third = replace(wants(10, "cv"), session_id="other")
    joins = replace(third, attribution=replace(third.attribution, holder="s1@host"))
    before = counting(*FULL, held(6, "cv"), *two, joins)
    assert group_in(before, joins)
    assert [t.grant_id for t in BY_POOL.plan(PoolSnapshot.of(before), NOW).serve] == [uuid7(10)]
    after = counting(*FULL, held(6, "cv"), *two, joins, wants(9, "nlp"), called=(7, 8))
    assert wanted(after) == [7, 8]
    assert not group_in(after, joins)
    assert not BY_POOL.plan(PoolSnapshot.of(after), NOW).serve


def test_one_that_would_join_waits_for_the_decision_that_calls_its_group_back() -> None:
    two = (shared(held(8, "cv"), "s1@host"), shared(held(7, "cv"), "s1@host"))
    third = wants(10, "cv")
    joins = replace(third, attribution=replace(third.attribution, holder="s1@host"))
    state = counting(*FULL, held(6, "cv"), *two, joins, wants(9, "nlp"))
    plan = BY_POOL.plan(PoolSnapshot.of(state), NOW)
    assert [each.grant.fence for each in plan.reclaim] == [8, 7]
    assert not plan.serve


def test_nothing_is_called_back_of_what_kept_seats_are_among() -> None:
    group = shared(held(8, "cv"))
    state = counting(*FULL, held(6, "cv"), group, wants(9, "nlp"))
    state.kept["gone"] = replace(shared(held(7, "cv")), grant_id="gone")
    state.groups.add(state.kept["gone"])
    assert wanted(state) == [6]


def test_a_guarantee_counts_them_once() -> None:
    """Of four seats that the project's processes hold, two are in use: it is within its guarantee."""
    mine = [shared(held(n, "cv"), f"h{n % 2}") for n in range(1, 5)]
    state = counting(*mine, held(6, "asr"), held(7, "asr"), wants(9, "nlp"))
    assert state.held == 4
    assert wanted(state) == [7]


def test_a_window_calls_back_all_of_a_group() -> None:
    who = Who(projects=("nlp",))
    reservation = Reservation(
        "night", 1, who, Schedule("FREQ=DAILY", opens=0, closes=60), notice=5_000
    )
    window = Window("night", NOW - 1000, NOW + 60_000, WindowState.OPEN, NOW - 1000)
    policy = PoolPolicy(PROJECTS[:0], reservations=(reservation,), count_once=("holder",))
    two = (shared(held(8, "cv")), shared(held(7, "cv")))
    state = a_pool(*FULL, held(3, "cv"), *two)
    assert state.spec is not None
    state.spec = replace(state.spec, policy=policy, windows=PoolWindows((window,)))
    plan = BY_POOL.plan(PoolSnapshot.of(state), NOW)
    assert {each.cause for each in plan.reclaim} == {Cause.RESERVATION}
    assert sorted(each.grant.fence for each in plan.reclaim) == [7, 8]


def test_an_estimate_counts_them_once() -> None:
    two = (shared(held(8, "cv")), shared(held(7, "cv")))
    state = counting(*two, seats=1)
    holds = HoldStats((timedelta(minutes=9), timedelta(minutes=10)))
    found = outlook(state, holds, NOW)
    assert found.basis is not None
    assert found.basis.holders == 1
    assert (found.surplus, found.share) == (0, 1.0)
    assert state.spec is not None
    assert state.spec.name == POOL
