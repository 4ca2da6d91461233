"""A drained pool: decision by decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.decide.test_decide import answers, decided, granted_ids, only, pool
from tests.unit.kit import NOW, a_grant, a_ticket, acquire, release, uuid7

from seatkeeper.server.decide import HoldStats, outlook
from seatkeeper.server.domain import Denied, Drain, Instant, PoolState, Refusal

DRAIN = Drain("the licence server is moved", "anna", NOW)


def drained(*records: object, seats: int = 1) -> PoolState:
    state = pool(*records, seats=seats)  # type: ignore[arg-type]  # grants and tickets
    assert state.spec is not None
    state.spec = replace(state.spec, drain=DRAIN)
    return state


def opened(state: PoolState) -> PoolState:
    assert state.spec is not None
    state.spec = replace(state.spec, drain=None)
    return state


def test_nothing_is_granted_and_those_who_wait_keep_their_places() -> None:
    state = drained(a_grant(9), a_ticket(1), seats=3)
    decision = decided(state, acquire(2, "bert"))
    assert (granted_ids(decision), answers(decision)) == ([], {0: "Queued"})
    assert state.free == 0
    assert granted_ids(decided(opened(state))) == [uuid7(1)]


def test_one_that_does_not_wait_is_denied_with_the_reason() -> None:
    command = replace(acquire(1), may_wait=False)
    denied = only(decided(drained(seats=3), command))
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.POOL_DRAINED
    assert denied.message.startswith(
        "the pool is drained, by anna: the licence server is moved;"
    )
    assert denied.retry_after is not None


def test_a_holder_keeps_its_seats_and_may_give_them_back() -> None:
    state = drained(a_grant(9), a_ticket(1))
    decision = decided(state, release(9))
    assert decision.grants_ended == [uuid7(9)]
    assert granted_ids(decision) == []
    assert answers(decided(state, acquire(9))) == {0: "Granted"}, "asked again, as after a loss"


def test_what_its_specification_can_never_serve_is_denied_as_before() -> None:
    """Unlike a closed one, it has its seats."""
    assert answers(decided(drained(seats=2), acquire(1, seats=3))) == {0: "TOO_MANY_SEATS"}


def test_a_wait_runs_out_as_ever() -> None:
    ticket = a_ticket(1, wait=timedelta(seconds=5))
    decision = decided(drained(ticket, seats=2), due=[ticket])
    assert decision.tickets_ended == [uuid7(1)]


def test_no_estimate_is_made_for_one() -> None:
    holds = HoldStats().with_hold(timedelta(seconds=9))
    state = drained(a_grant(9), a_ticket(1))
    assert outlook(state, holds, Instant(NOW)).wait(1) is None
    assert outlook(opened(state), holds, Instant(NOW)).wait(1) is not None


@pytest.mark.parametrize("may_wait", [True, False])
@given(st.lists(st.integers(1, 3), max_size=6), st.integers(0, 6), st.integers(1, 3))
def test_whatever_waits_nothing_is_granted(
    may_wait: bool, waiting: list[int], seats: int, asked: int
) -> None:
    tickets = [a_ticket(n, seats=wants) for n, wants in enumerate(waiting, start=1)]
    state = drained(*tickets, seats=seats)
    decision = decided(state, replace(acquire(90, seats=asked), may_wait=may_wait))
    assert not decision.grants
    assert not decision.unserved, "or the loop would decide again and again"
