"""From which lots the seats of a grant come: the order, and never more than a lot has."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.core.lot_use import (
    LotMarks,
    LotSeats,
    MarkedSeats,
    cost_so_far,
    counted,
    marks_of,
    room_in,
)
from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots, Price, PriceUnit

HOURLY = Price("0.80", "EUR", PriceUnit.SEAT_HOUR)


def lot(name: str, seats: int, began_at: int = 1, *, overdraft: int = 0) -> Lot:
    return Lot(
        name=name, seats=seats, state=LotState.IN_FORCE, began_at=began_at, overdraft=overdraft
    )


def burst(name: str, seats: int, began_at: int = 1) -> Lot:
    made = lot(name, seats, began_at)
    return replace(made, ends=10_000, kind=LotKind.BURST, price=HOURLY)


def marked(*grants: LotMarks) -> MarkedSeats:
    found = MarkedSeats()
    for each in grants:
        found.add(each)
    return found


def taken(lots: PoolLots, seats: int, held: int = 0, *grants: LotMarks) -> str:
    """Where so many seats come from, in few words."""
    there = marked(*grants)
    over = lots.overdraft - there.overdraft
    marks = marks_of(seats, room_in(lots, held, there), over)
    return ", ".join(marks.lines()) if marks is not None else ""


ACME, OLD, BURST = lot("acme", 2, 20), lot("old", 1, 10, overdraft=2), burst("rush", 2, 5)
ALL = PoolLots((BURST, ACME, OLD), seats=1)


@pytest.mark.parametrize(
    ("seats", "held", "grants", "found"),
    [
        (1, 0, [], ""),
        (2, 0, [], "1 of old"),
        (4, 0, [], "1 of old, 2 of acme"),
        (5, 0, [], "1 of old, 2 of acme, 1 of rush at 0.80 EUR/seat-hour"),
        (8, 0, [], "1 of old, 2 of acme, 2 of rush at 0.80 EUR/seat-hour, 2 of the overdraft"),
        # Without a mark, beyond those without a contract: an older node granted them.
        (1, 2, [], "1 of acme"),
        (1, 6, [], "1 of the overdraft"),
        # A contract's seat that was given back comes before a burst's.
        (
            2,
            3,
            [LotMarks((LotSeats("acme", 2, 20),))],
            "1 of old, 1 of rush at 0.80 EUR/seat-hour",
        ),
        # The name is another lot's by now: what is marked with it drains apart.
        (2, 2, [LotMarks((LotSeats("old", 1, 9),))], "1 of old, 1 of acme"),
        (1, 7, [LotMarks((), overdraft=1)], "1 of the overdraft"),
    ],
)
def test_seats_are_taken_in_an_order(
    seats: int, held: int, grants: list[LotMarks], found: str
) -> None:
    assert taken(ALL, seats, held, *grants) == found


def test_what_has_not_begun_or_is_over_has_no_seats() -> None:
    pending = replace(ACME, state=LotState.PENDING, began_at=None)
    ended = replace(BURST, state=LotState.ENDED)
    assert taken(PoolLots((pending, ended, OLD)), 1) == "1 of old"


def test_a_grant_that_ends_is_counted_no_more() -> None:
    marks = LotMarks((LotSeats("acme", 2, 20),), overdraft=1)
    there = marked(marks)
    assert (there.seats, there.overdraft) == (3, 1)
    there.add(marks, -1)
    assert there == MarkedSeats()


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(0, 2)), max_size=4),
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=30),
)
def test_no_lot_ever_has_more_marks_than_seats_and_overdraft_comes_last(
    drawn: list[tuple[bool, int, int]], plain: int, steps: list[tuple[int, bool]]
) -> None:
    """Seats are granted while there are any, and given back; in the middle all bursts end."""
    lots = PoolLots(
        tuple(
            burst(f"l{n}", seats, n) if is_burst else lot(f"l{n}", seats, n, overdraft=over)
            for n, (is_burst, seats, over) in enumerate(drawn)
        ),
        plain,
    )
    held: list[tuple[int, LotMarks | None]] = []
    for number, (seats, is_end) in enumerate(steps):
        if number == len(steps) // 2:
            over = tuple(
                replace(each, state=LotState.ENDED) if each.kind is LotKind.BURST else each
                for each in lots.lots
            )
            lots = replace(lots, lots=over)
        if is_end and held:
            del held[seats % len(held)]
            continue
        out = sum(each for each, _ in held)
        if seats > lots.in_force + lots.overdraft - out:
            continue
        there = marked(*(marks for _, marks in held if marks is not None))
        room = room_in(lots, out, there)
        marks = marks_of(seats, room, lots.overdraft - there.overdraft)
        held.append((seats, marks))
        if marks is not None and marks.overdraft:
            assert seats - marks.overdraft == sum(free for _, free in room), "none is left free"
        after = marked(*(each for _, each in held if each is not None))
        for each in lots.lots:
            if each.state is LotState.IN_FORCE:
                assert after.by_lot[each.name, each.began_at] <= each.seats
        assert after.overdraft <= lots.overdraft
        assert marks is None or marks.seats <= seats
        unmarked = sum(each for each, _ in held) - after.seats
        assert unmarked <= plain


def test_seats_of_each_lot_also_of_one_that_is_forgotten() -> None:
    there = marked(LotMarks((LotSeats("acme", 2, 20), LotSeats("gone", 1, 3))))
    found = counted(there.by_lot, ALL)
    assert [(each.lot, each.seats) for each in found] == [("gone", 1), ("acme", 2)]


def test_what_a_burst_has_cost_counts_all_of_its_seats() -> None:
    assert cost_so_far(replace(BURST, began_at=0), 3_600_000 // 2) == pytest.approx(0.8)
    yearly = Price("8766", "EUR", PriceUnit.SEAT_YEAR)
    assert cost_so_far(replace(BURST, began_at=0, price=yearly), 3_600_000) == pytest.approx(2)
    assert cost_so_far(replace(BURST, price=None), 5) is None
    assert cost_so_far(replace(BURST, state=LotState.ENDED), 5) is None
