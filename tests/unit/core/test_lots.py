"""What a pool's capacity is a sum of: what is written when, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.core.lots import (
    DAY_MILLIS,
    LOT_SEATS_MAX,
    NO_LOTS,
    Lot,
    LotKind,
    LotState,
    LotStep,
    PoolLots,
    Price,
    PriceUnit,
    lots_faults,
    moved,
    next_move,
    succeeding,
)

DAY = DAY_MILLIS
RANK = {state: rank for rank, state in enumerate(LotState)}
PRICE = Price("1250.50", "EUR", PriceUnit.SEAT_YEAR)
ACME = Lot(name="acme", seats=16, begins=100 * DAY, ends=465 * DAY, price=PRICE, owner="ml")
BURST = Lot(name="burst", seats=4, ends=101 * DAY, kind=LotKind.BURST)


def in_force(*lots: Lot, seats: int = 0) -> PoolLots:
    return PoolLots(tuple(replace(lot, state=LotState.IN_FORCE) for lot in lots), seats)


def steps(lots: PoolLots, now: int) -> list[tuple[LotStep, str]]:
    return [(move.step, move.lot.name) for move in moved(lots, now)[1]]


def test_only_what_is_written_counts() -> None:
    lots = PoolLots((ACME, replace(BURST, state=LotState.ENDED)), seats=4)
    assert lots.in_force == 4
    assert in_force(ACME, BURST, seats=4).in_force == 24


def test_a_lot_begins_in_its_first_millisecond_and_ends_in_the_first_after_it() -> None:
    lots = PoolLots((ACME,))
    assert steps(lots, 100 * DAY - 1) == []
    begun, moves = moved(lots, 100 * DAY)
    assert [move.step for move in moves] == [LotStep.BEGAN]
    assert (begun.in_force, begun.lots[0].began_at) == (16, 100 * DAY)
    said = replace(begun, lots=(replace(begun.lots[0], announced_days=1),))
    assert steps(said, 465 * DAY - 1) == []
    ended, moves = moved(said, 465 * DAY)
    assert [move.step for move in moves] == [LotStep.ENDED]
    assert (ended.in_force, ended.lots[0].ended_at) == (0, 465 * DAY)


def test_a_lot_whose_time_went_by_unseen_never_has_seats() -> None:
    ended, moves = moved(PoolLots((ACME,)), 500 * DAY)
    assert [move.step for move in moves] == [LotStep.ENDED]
    assert (ended.in_force, ended.lots[0].began_at) == (0, None)


def test_a_clock_that_is_behind_undoes_nothing() -> None:
    begun, _ = moved(PoolLots((ACME,)), 100 * DAY)
    assert moved(begun, 0) == (begun, ())
    ended, _ = moved(begun, 465 * DAY)
    assert moved(ended, 100 * DAY) == (ended, ())


@pytest.mark.parametrize(
    ("days_left", "announced", "days"),
    [(31, 0, 0), (30, 0, 30), (29, 30, 0), (7, 30, 7), (5, 0, 7), (1, 7, 1), (0.5, 1, 0)],
)
def test_an_end_is_announced_once_for_each_of_30_7_and_1_days(
    days_left: float, announced: int, days: int
) -> None:
    lots = in_force(replace(ACME, announced_days=announced))
    after, moves = moved(lots, int((465 - days_left) * DAY))
    assert [move.step for move in moves] == ([LotStep.ENDS_SOON] if days else [])
    assert after.lots[0].announced_days == (days or announced)
    assert moved(after, int((465 - days_left) * DAY)) == (after, ())


def test_a_short_contract_is_announced_by_half_of_its_life_and_a_burst_not_at_all() -> None:
    short = replace(ACME, ends=110 * DAY)
    assert steps(in_force(short), 105 * DAY) == []
    assert steps(in_force(short), 109 * DAY) == [(LotStep.ENDS_SOON, "acme")]
    assert steps(in_force(BURST), 101 * DAY - 1) == []


def test_a_lot_of_the_same_dates_goes_on_and_one_of_others_begins_anew() -> None:
    before, _ = moved(PoolLots((ACME,), 2), 100 * DAY)
    more = replace(ACME, seats=20, owner="others")
    after = succeeding(PoolLots((more, BURST), 3), before)
    assert (after.lots[0].state, after.lots[0].seats) == (LotState.IN_FORCE, 20)
    assert (after.lots[1].state, after.in_force) == (LotState.PENDING, 23)
    longer = succeeding(PoolLots((replace(ACME, ends=500 * DAY),)), before)
    assert longer.lots[0].state is LotState.PENDING
    said = replace(ACME, state=LotState.ENDED, ended_at=5)
    assert succeeding(PoolLots((said,)), NO_LOTS).lots == (ACME,)
    assert succeeding(PoolLots((), 9), before) == NO_LOTS


def test_the_most_seats_are_those_of_the_dates_that_overlap() -> None:
    following = replace(ACME, name="next", begins=ACME.ends, ends=None, seats=20)
    assert PoolLots((ACME, following), 4).most == 24
    with_burst = PoolLots((ACME, following, replace(BURST, ends=466 * DAY)), 4)
    assert (with_burst.most, with_burst.guaranteed_most) == (28, 24)


def test_from_when_on_guarantees_are_not_covered() -> None:
    lots = in_force(ACME, seats=4)
    assert lots.shortfall(20, now=200 * DAY) == (465 * DAY, 4)
    assert lots.shortfall(4, now=200 * DAY) is None
    assert lots.shortfall(20, now=50 * DAY) == (50 * DAY, 4)


LOTS = st.builds(
    Lot,
    name=st.sampled_from(["a", "b", "c"]),
    seats=st.integers(1, 5),
    begins=st.none() | st.integers(0, 100).map(lambda day: day * DAY),
    ends=st.integers(101, 200).map(lambda day: day * DAY),
    kind=st.sampled_from(LotKind),
)
TIMES = st.lists(st.integers(0, 220 * DAY), max_size=8)


@given(st.lists(LOTS, max_size=4).map(tuple), TIMES)
def test_whatever_clocks_show_states_move_one_way_and_what_is_due_is_what_moves(
    lots: tuple[Lot, ...], times: list[int]
) -> None:
    now, written = PoolLots(lots, 2), 0
    for at in times:
        due = next_move(now)
        after, moves = moved(now, at)
        assert bool(moves) == (due is not None and due <= at)
        for one, other in zip(now.lots, after.lots, strict=True):
            assert RANK[other.state] >= RANK[one.state]
            assert other.occurrence == one.occurrence
        assert moved(after, at) == (after, ())
        now, written = after, written + len(moves)
    assert written <= 5 * len(lots)


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"seats": 0}, "seats", "0 is not from 1"),
        ({"seats": -4}, "seats", "-4 is not from 1"),
        ({"seats": LOT_SEATS_MAX + 1}, "seats", "is not from 1"),
        ({"ends": 100 * DAY}, "until", "is not after `from`"),
        ({"ends": 99 * DAY}, "until", "is not after `from`"),
        ({"begins": -DAY}, "from", "between the years"),
        ({"kind": LotKind.BURST, "ends": None}, "until", "a burst needs an end"),
        ({"price": replace(PRICE, amount="-1")}, "price", "'-1' is not a decimal number"),
        ({"price": replace(PRICE, amount="1e9")}, "price", "is not a decimal number"),
        ({"price": replace(PRICE, amount="1.1234567")}, "price", "is not a decimal number"),
        ({"price": replace(PRICE, currency="eur")}, "price", "is not a currency"),
    ],
)
def test_a_lot_that_makes_no_sense_is_refused(
    change: dict[str, object], field: str, reason: str
) -> None:
    lots = (BURST, replace(ACME, **change))  # type: ignore[arg-type]  # of any field
    (fault,) = lots_faults(lots)
    assert fault[:2] == (1, field)
    assert reason in fault[2]


def test_two_lots_of_one_name_and_too_many_seats_at_once_are_refused() -> None:
    assert list(lots_faults((ACME, ACME))) == [(1, "name", "acme is listed twice")]
    large = replace(ACME, seats=LOT_SEATS_MAX)
    assert list(lots_faults((large,))) == []
    (fault,) = lots_faults((large,), seats=1)
    assert fault[1] == "seats"
