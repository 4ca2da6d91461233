"""Contracts, bursts, windows, costs, holds and advisory pools in a replay: tables and properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.replay.test_replay import BEGIN, a, grants

from seatkeeper.core import recurrence
from seatkeeper.core.burst_rule import BurstRule
from seatkeeper.core.counting import ClassCost, Counting
from seatkeeper.core.lot_use import LotMarks, LotSeats
from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots, Price, PriceUnit
from seatkeeper.core.pool_rules import Who
from seatkeeper.core.reservations import Reservation, Schedule
from seatkeeper.server.domain import (
    HoldRule,
    Instant,
    PoolPolicy,
    PoolSpec,
    ProjectShare,
    Refusal,
)
from seatkeeper.server.domain.state import Usage
from seatkeeper.server.replay.calendar import VAIN_MAX
from seatkeeper.server.replay.demand import Arrival, Beginning
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.replay import HEEDS_WITHIN, replay

SECOND = 1_000
RULE = BurstRule(
    seats=1,
    length=60 * SECOND,
    p95_wait=10 * SECOND,
    within=8 * SECOND,
    hours_per_month=1,
    price=Price("3600", "EUR", PriceUnit.SEAT_HOUR),
)


def at(seconds: float) -> int:
    return BEGIN + round(seconds * SECOND)


def lot(name: str, seats: int, begins: float | None = None, ends: float | None = None) -> Lot:
    begin, end = (None if each is None else at(each) for each in (begins, ends))
    return Lot(name=name, seats=seats, begins=begin, ends=end)


def pool(*lots: Lot, seats: int = 0, rule: BurstRule | None = None) -> PoolSpec:
    return PoolSpec("pool", seats).with_lots(PoolLots(lots, seats, rule=rule))


def kept(seats: int, opens: str, *, zone: str = "UTC", project: str = "ci") -> PoolSpec:
    """A pool of two seats that keeps some every day."""
    when = Schedule("FREQ=DAILY", *recurrence.read_times(opens), zone=zone)
    reservation = Reservation("nightly", seats, Who(projects=(project,)), when)
    return PoolSpec("pool", 2, policy=PoolPolicy(reservations=(reservation,)))


def dated(spec: PoolSpec, demand: Sequence[Arrival], begin: Beginning | None = None) -> Outcome:
    return replay(spec, demand, begin=begin, following=recurrence.following)


NEW_YEAR, JULY = 1_767_225_600_000, 1_782_864_000_000
"""Midnight in UTC, in winter and in summer."""


def on(day: int, *demand: Arrival) -> list[Arrival]:
    """The arrivals, from another midnight on."""
    return [replace(each, at=Instant(each.at - BEGIN + day)) for each in demand]


def served(outcome: Outcome) -> list[float]:
    """How long after the first arrival each was served."""
    began = outcome.began_at
    return [((each.granted_at or 0) - began) / SECOND for each in outcome.requests]


def moves(outcome: Outcome) -> list[tuple[float, str, str]]:
    return [((each.at - BEGIN) / SECOND, each.kind, each.name) for each in outcome.written]


def test_a_contract_that_ends_lowers_the_seats_and_takes_none_away() -> None:
    spec = pool(lot("acme", 1, ends=20), seats=1)
    outcome = dated(spec, [a(0, "a", 60), a(0, "b", 30), a(10, "c", 5)])
    assert moves(outcome) == [(0, "lot began", "acme"), (20, "lot ended", "acme")]
    # b gives its seat back at 30; that one is over, and so c waits for a's.
    assert grants(outcome) == [("a", 0), ("b", 0), ("c", 60)]
    assert (outcome.seats_least, outcome.seats_most, outcome.spec.seats) == (1, 2, 2)
    assert (outcome.surplus, outcome.idle, outcome.lots) == (10, 0, {"acme": 30})


def test_a_contract_that_begins_serves_who_waits_at_that_moment() -> None:
    spec = pool(lot("old", 1, ends=100), lot("new", 2, begins=50, ends=200))
    outcome = dated(spec, [a(0, "a", 150), a(1, "b", 10), a(2, "c", 10)])
    assert grants(outcome) == [("a", 0), ("b", 50), ("c", 50)]
    assert outcome.spec.seats == 1, "what was in force when it began"


def test_an_overdraft_is_used_when_no_seat_is_free_and_is_not_idle_before() -> None:
    spec = pool(replace(lot("acme", 1), overdraft=1))
    outcome = dated(spec, [a(0, "a", 10), a(4, "b", 10), a(5, "c", 1)])
    assert grants(outcome) == [("a", 0), ("b", 4), ("c", 10)]
    assert [each.lots.overdraft if each.lots else 0 for each in outcome.requests] == [0, 1, 0]
    assert (outcome.overdraft, outcome.surplus, outcome.held_max) == (10, 0, 2)
    # Of the seat in force, from 11 to 14, while the other one is held.
    assert outcome.idle == 3


def test_a_rule_starts_a_burst_when_waits_are_long_and_ends_it_on_time() -> None:
    outcome = dated(pool(seats=1, rule=RULE), [a(0, "a", 200), a(1, "b", 100)])
    (began, ended) = outcome.written
    assert (began.kind, ended.kind, began.is_by_rule) == ("lot began", "lot ended", True)
    # Waits are long from 11 s on, in eight slots of a second: that is known at 18 s.
    assert (began.at - BEGIN) / SECOND == 18
    assert ended.at - began.at == RULE.length
    assert grants(outcome) == [("a", 0), ("b", 18)]
    assert outcome.lots == {"rule-1": 100}, "b stays until its hold is over"


@pytest.mark.parametrize(
    ("hours", "budget", "bursts"), [(1, "", 60), (1, "120", 2), (1, "60", 1)]
)
def test_a_rule_starts_no_burst_beyond_the_hours_or_the_budget_of_a_month(
    hours: int, budget: str, bursts: int
) -> None:
    rule = replace(RULE, hours_per_month=hours, budget=budget)
    demand = [a(0, "a", 3 * 3600), *(a(1, "b", 55) for _ in range(70))]
    begun = [
        each for each in dated(pool(seats=1, rule=rule), demand).written if each.is_by_rule
    ]
    assert sum(each.kind == "lot began" for each in begun) == bursts


def test_a_window_keeps_seats_from_others_and_gives_them_back_when_it_closes() -> None:
    """It begins at midnight. For ci one seat is kept from 00:01 to 00:03."""
    demand = on(NEW_YEAR, a(0, "web", 30), a(61, "web", 300), a(62, "web", 10), a(90, "ci", 20))
    outcome = dated(kept(1, "00:01-00:03"), demand)
    assert served(outcome) == [0, 61, 180, 90]
    assert [(each.at - NEW_YEAR, each.kind) for each in outcome.written] == [
        (60 * SECOND, "window opened"),
        (180 * SECOND, "window closed"),
    ]
    assert outcome.kept == 120 - 20
    unplayed = replay(kept(1, "00:01-00:03"), demand)
    assert served(unplayed) == [0, 61, 62, 90]
    assert unplayed.written == ()


def test_windows_are_by_the_wall_clock_of_their_zone() -> None:
    winter, summer = (
        dated(
            kept(1, "02:00-03:00", zone="Europe/Berlin"),
            on(day, a(0, "web", 10), a(86_400, "web", 10)),
        ).written[0]
        for day in (NEW_YEAR, JULY)
    )
    assert (winter.at // 3_600_000 % 24, summer.at // 3_600_000 % 24) == (1, 0)


def test_one_that_waits_forever_does_not_keep_a_replay_from_ending() -> None:
    spec = replace(kept(1, "00:01-00:03"), seats=0)
    outcome = dated(spec, on(NEW_YEAR, a(0, "web", 10)))
    assert outcome.requests[0].is_waiting
    assert 0 < len(outcome.written) <= VAIN_MAX + 2


def test_seats_cost_what_their_class_costs_and_an_unknown_one_is_refused() -> None:
    costs = Counting(costs=(ClassCost("a100", 3), ClassCost("default", 1)))
    spec = PoolSpec("pool", 4, policy=PoolPolicy(counting=costs))
    demand = [
        a(0, "a", 10, cost_class="a100"),
        a(1, "b", 10, seats=2),
        a(2, "c", 1, cost_class="h100"),
    ]
    outcome = dated(spec, demand)
    assert grants(outcome) == [("a", 0), ("b", 10)]
    assert outcome.projects["a"].used == 30
    assert outcome.requests[2].refusal is Refusal.UNKNOWN_COST_CLASS


def test_in_an_advisory_pool_none_waits_and_what_would_have_is_counted() -> None:
    spec = PoolSpec("pool", 1, policy=PoolPolicy(counting=Counting(is_advisory=True)))
    outcome = dated(spec, [a(0, "a", 10), a(1, "b", 10), a(2, "c", 10, wait=0)])
    assert grants(outcome) == [("a", 0), ("b", 1), ("c", 2)]
    assert sum(outcome.marked.values()) == 2
    assert {refused for _, refused in outcome.marked} == {False, True}
    assert (outcome.held_max, outcome.surplus) == (3, 1 + 2 * 8 + 1)


def test_the_longest_hold_calls_seats_back_and_says_why() -> None:
    rule = HoldRule(timedelta(seconds=1), timedelta(seconds=60))
    spec = PoolSpec("pool", 1, policy=PoolPolicy(hold=rule))
    outcome = dated(spec, [a(0, "a", 500), a(1, "b", 5)])
    assert outcome.called_back == {"longest_hold": 1}
    (a_, b_) = outcome.requests
    assert (a_.ended_at or 0) - BEGIN == 60 * SECOND
    assert b_.granted_at == a_.ended_at
    longer = Beginning(
        at=Instant(at(10)),
        holders=[replace(a(0, "a", 500), extended=timedelta(seconds=100))],
    )
    extended = dated(spec, [], longer)
    assert (extended.holders[0].ended_at or 0) - BEGIN == 160 * SECOND
    assert HEEDS_WITHIN.total_seconds() == 15


def test_a_beginning_has_the_marks_of_its_holders() -> None:
    """One holds the burst's seat, and so the plain one is free when the burst has ended."""
    there = lot("burst-1", 1, ends=60)
    burst = replace(there, kind=LotKind.BURST, state=LotState.IN_FORCE, began_at=at(-5))
    spec = PoolSpec("pool", 1).with_lots(PoolLots((burst,), 1))
    marks = LotMarks((LotSeats("burst-1", 1, at(-5)),))
    begin = Beginning(at=Instant(at(0)), holders=[replace(a(-4, "a", 104), marks=marks)])
    outcome = dated(spec, [a(1, "b", 5), a(70, "c", 1)], begin)
    assert grants(outcome) == [("b", 1), ("c", 100)]
    assert outcome.lots == {"burst-1": 100}
    assert moves(outcome) == [(60, "lot ended", "burst-1")], "that it began was written before"


def test_a_beginning_has_what_projects_used() -> None:
    shares = tuple(ProjectShare(project=name) for name in ("a", "b"))
    spec = PoolSpec("pool", 1, policy=PoolPolicy(shares, timedelta(hours=1)))
    queue = [a(-1, "a", 5), a(-1, "b", 5)]
    for used, first in (("a", "b"), ("b", "a")):
        usage = Usage(Instant(at(0)), {used: 3_600_000})
        begin = Beginning(at=Instant(at(0)), queue=queue, usage=usage)
        assert grants(dated(spec, [], begin))[0][0] == first


@st.composite
def specs(draw: st.DrawFn) -> PoolSpec:
    lots = tuple(
        replace(
            lot(f"lot-{n}", draw(st.integers(1, 3)), begins, begins + draw(st.integers(1, 60))),
            overdraft=draw(st.integers(0, 1)),
        )
        for n in range(draw(st.integers(0, 3)))
        for begins in [draw(st.integers(-20, 60))]
    )
    rule = replace(RULE, length=7 * SECOND, p95_wait=SECOND) if draw(st.booleans()) else None
    seats = draw(st.integers(0, 2))
    spec = PoolSpec("pool", seats)
    return spec.with_lots(PoolLots(lots, seats, rule=rule)) if lots or rule else spec


@st.composite
def demands(draw: st.DrawFn) -> list[Arrival]:
    return [
        a(
            draw(st.integers(0, 60)),
            draw(st.sampled_from("abc")),
            draw(st.integers(0, 30)),
            seats=draw(st.integers(1, 2)),
            wait=draw(st.sampled_from([None, 0, 20])),
        )
        for _ in range(draw(st.integers(1, 12)))
    ]


@settings(max_examples=150, deadline=None)
@given(specs(), demands())
def test_no_grant_is_beyond_what_is_in_force_then(
    spec: PoolSpec, demand: list[Arrival]
) -> None:
    outcome = dated(spec, demand)
    assert outcome == dated(spec, demand), "the same arguments give the same outcome"
    begun: dict[tuple[str, int | None], int] = {}
    overdrafts = {each.name: each.overdraft for each in spec.lots.lots}
    events = sorted(
        (moment, order, each)
        for order, moment, each in (
            *((0, each.at, number) for number, each in enumerate(outcome.written)),
            *(
                (order, moment, number)
                for number, each in enumerate(outcome.requests)
                for order, moment in ((1, each.ended_at), (2, each.granted_at))
                if moment is not None and each.granted_at is not None
            ),
        )
    )
    plain = spec.lots.seats if spec.lots else spec.seats
    held, ended = 0, set()
    for _, order, number in events:
        if order == 0:
            move = outcome.written[number]
            key = (move.name, move.began_at)
            if move.kind == "lot began":
                begun[key] = move.seats
            else:
                begun.pop(key, None)
            continue
        request = outcome.requests[number]
        if order == 1:
            ended.add(number)
            # One of no length ends in the moment of its grant.
            held -= request.arrival.seats if request.granted_at != request.ended_at else 0
        elif request.granted_at != request.ended_at:
            held += request.arrival.seats
            most = plain + sum(begun.values()) + sum(overdrafts.get(n, 0) for n, _ in begun)
            assert held <= most


def test_seats_are_called_back_so_that_they_are_free_when_a_window_begins() -> None:
    """For ci two seats from 00:10 on, with a notice of a minute: it opens at 00:08."""
    spec = kept(2, "00:10-00:20")
    (reservation,) = spec.policy.reservations
    calls = replace(reservation, notice=60 * SECOND)
    spec = replace(spec, policy=PoolPolicy(reservations=(calls,)))
    demand = on(
        NEW_YEAR,
        a(0, "web", 3600),
        a(1, "web", 490),
        a(2, "web", 30),
        a(610, "ci", 60, seats=2),
    )
    outcome = dated(spec, demand)
    assert [each.at - NEW_YEAR for each in outcome.written] == [480 * SECOND, 1200 * SECOND]
    assert outcome.called_back == {"reservation": 1}
    first, second, third, of_ci = outcome.requests
    assert 480 < ((first.ended_at or 0) - NEW_YEAR) / SECOND <= 600
    assert ((second.ended_at or 0) - NEW_YEAR) / SECOND == 491, "it ended by itself"
    assert of_ci.wait_millis == 0
    assert ((third.granted_at or 0) - NEW_YEAR) / SECOND == 1200, (
        "what was freed early was kept"
    )
