"""The order of service, in tables."""

from __future__ import annotations

import pytest
from tests.unit.kit import a_ticket, uuid7

from seatkeeper.server.domain import Ticket
from seatkeeper.server.policy.fifo_order import serve


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
