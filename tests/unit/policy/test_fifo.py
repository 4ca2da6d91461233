"""The order of service of every pool today, in tables."""

from __future__ import annotations

import pytest
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, uuid7

from seatkeeper.server.domain import Instant, PoolSpec, PoolState, Ticket
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.snapshot import PoolSnapshot


def t(number: int, seats: int = 1, priority: int = 0, session: str = "anna") -> Ticket:
    return a_ticket(number, seats=seats, priority=priority, session=session)


def a_pool(*stored: Ticket, free: int, held: int = 0) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, max(0, free + held)))
    if held:
        state.put_grant(a_grant(900, seats=held))
    for ticket in stored:
        state.put_ticket(ticket)
    return state


def snapshot(
    state: PoolState,
    *new: Ticket,
    grants_max: int = 99,
    impatient: frozenset[str] = frozenset(),
) -> PoolSnapshot:
    return PoolSnapshot(state, state.free, 99, grants_max, new=new, impatient=impatient)


def served(pool: PoolSnapshot) -> list[str]:
    return [ticket.grant_id for ticket in FIFO.plan(pool, Instant(NOW)).serve]


def ids(*numbers: int) -> list[str]:
    return [uuid7(number) for number in numbers]


@pytest.mark.parametrize(
    ("stored", "new", "free", "expected"),
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
def test_seats_go_to_the_next_in_line_and_no_ticket_is_passed_over(
    stored: list[Ticket], new: list[Ticket], free: int, expected: list[int]
) -> None:
    assert served(snapshot(a_pool(*stored, free=free), *new)) == ids(*expected)


def test_a_request_that_may_not_wait_is_passed_over_when_it_wants_too_much() -> None:
    new = [t(1, seats=2), t(2), t(3)]
    pool = snapshot(a_pool(free=1), *new, impatient=frozenset(ids(1, 3)))
    assert served(pool) == ids(2)


def test_a_lowered_capacity_that_drains_serves_none() -> None:
    state = a_pool(t(1), free=0, held=3)
    state.spec = PoolSpec(POOL, 2)
    assert served(snapshot(state)) == []


def test_tickets_of_dead_sessions_are_neither_served_nor_counted() -> None:
    state = a_pool(t(1, session="bert"), t(2), t(3, session="bert"), t(4), free=1)
    state.dead_sessions.add("bert")
    plan = FIFO.plan(snapshot(state), Instant(NOW))
    assert [ticket.grant_id for ticket in plan.serve] == ids(2)
    assert [ticket.grant_id for ticket in plan.order] == ids(2, 4)
    assert [plan.order.position(state.tickets[each]) for each in ids(1, 2, 3, 4)] == [
        None,
        1,
        None,
        2,
    ]


def test_a_ticket_that_has_gone_has_no_position() -> None:
    state = a_pool(t(1), free=0)
    plan = FIFO.plan(snapshot(state), Instant(NOW))
    state.remove_ticket(uuid7(1))
    assert plan.order.position(t(1)) is None


def test_new_requests_have_their_place_among_the_stored_ones() -> None:
    state = a_pool(t(1), t(3, priority=-1), free=0)
    plan = FIFO.plan(snapshot(state, t(4, priority=2), t(5)), Instant(NOW))
    assert [ticket.grant_id for ticket in plan.order] == ids(4, 1, 5, 3)


def test_what_a_decision_ends_holds_and_wants_nothing() -> None:
    state = a_pool(t(1), t(2), free=0, held=1)
    ended = frozenset(ids(1, 900))
    pool = PoolSnapshot(state, 1, 2, ended=ended)
    assert list(pool.grants()) == []
    assert served(pool) == ids(2)


def test_it_holds_none_back_and_waits_for_no_time() -> None:
    plan = FIFO.plan(snapshot(a_pool(t(1, seats=2), t(2), free=1)), Instant(NOW))
    assert not any(plan.hold_back(ticket) for ticket in plan.order)
    assert plan.next_wake is None
    assert not plan.reclaim


class Counting(dict[str, Ticket]):
    """Tickets that count how often one is looked at."""

    looks = 0

    def __getitem__(self, key: str) -> Ticket:
        self.looks += 1
        return super().__getitem__(key)


@pytest.mark.parametrize(("free", "grants_max", "looks"), [(0, 99, 0), (3, 99, 3), (50, 7, 7)])
def test_a_plan_costs_the_same_however_many_wait(
    free: int, grants_max: int, looks: int
) -> None:
    state = a_pool(*(t(number) for number in range(1, 2_001)), free=free)
    state.tickets = counting = Counting(state.tickets)
    plan = FIFO.plan(snapshot(state, grants_max=grants_max), Instant(NOW))
    assert len(plan.serve) == looks
    assert plan.order.position(t(1_000)) == 1_000
    assert counting.looks == looks
