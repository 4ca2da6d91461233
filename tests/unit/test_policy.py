"""The order of service and the estimate of the wait, in tables."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.kit import a_ticket, uuid7

from seatkeeper.server.decide import HoldStats, Ticket, estimate_wait
from seatkeeper.server.decide.policy import serve


def t(number: int, seats: int = 1, priority: int = 0) -> Ticket:
    return a_ticket(number, seats=seats, priority=priority)


@pytest.mark.parametrize(
    ("stored", "new", "free", "served"),
    [
        ([], [], 3, []),
        ([t(1), t(2)], [], 0, []),
        ([t(1), t(2)], [], 1, [1]),
        ([t(1), t(2)], [], 5, [1, 2]),
        ([], [t(3)], 1, [3]),
        ([t(1)], [t(2)], 1, [1]),
        ([t(1)], [t(2)], 2, [1, 2]),
        ([t(1)], [t(2, priority=1)], 1, [2]),
        ([t(1, priority=1), t(2)], [t(3, priority=1)], 2, [1, 3]),
        ([t(1, priority=-1)], [t(2)], 1, [2]),
        ([t(1, seats=2), t(2)], [], 1, []),
        ([t(1, seats=2), t(2)], [], 2, [1]),
        ([t(1, seats=2), t(2)], [], 3, [1, 2]),
        ([t(1), t(2, seats=3), t(3)], [], 3, [1]),
        ([t(1, seats=2)], [t(2)], 1, []),
        ([t(1, seats=2)], [t(2, priority=1)], 1, [2]),
        ([], [t(1, seats=2), t(2)], 1, []),
        ([t(1)], [], -1, []),
    ],
)
def test_seats_go_to_the_next_in_line_and_nobody_is_passed_over(
    stored: list[Ticket], new: list[Ticket], free: int, served: list[int]
) -> None:
    found = serve(stored, new, free=free)
    assert [ticket.grant_id for ticket in found] == [uuid7(number) for number in served]


def test_who_would_not_wait_is_passed_over_when_he_wants_too_much() -> None:
    new = [t(1, seats=2), t(2), t(3)]
    found = serve([], new, free=1, impatient={uuid7(1), uuid7(3)})
    assert [ticket.grant_id for ticket in found] == [uuid7(2)]


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("position", "capacity", "mean", "estimate"),
    [
        (1, 1, None, None),
        (1, 0, MINUTE, None),
        (1, 1, MINUTE, MINUTE),
        (3, 1, MINUTE, 3 * MINUTE),
        (3, 6, MINUTE, MINUTE / 2),
        (1, 1, timedelta(0), timedelta(0)),
    ],
)
def test_the_wait_is_the_places_ahead_times_how_long_seats_are_held(
    position: int, capacity: int, mean: timedelta | None, estimate: timedelta | None
) -> None:
    assert estimate_wait(position, capacity, HoldStats(mean)) == estimate


def test_the_first_hold_counts_in_full_and_later_ones_a_fifth() -> None:
    stats = HoldStats().with_hold(10 * MINUTE)
    assert stats.mean == 10 * MINUTE
    assert stats.with_hold(20 * MINUTE).mean == 12 * MINUTE


def test_a_hold_that_ended_before_it_began_counts_as_none() -> None:
    assert HoldStats().with_hold(-MINUTE).mean == timedelta(0)
