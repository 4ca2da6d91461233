"""Grants are marked with the lots that their seats come from; an overdraft is what is taken last."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.decide.test_decide import decided, granted_ids, only, pool
from tests.unit.kit import NOW, a_grant, a_ticket, acquire, release, uuid7

from seatkeeper.core.burst_rule import BurstRule
from seatkeeper.core.lot_use import LotMarks, LotSeats
from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Drain, Grant, Granted, Instant, PoolState, Ticket
from seatkeeper.server.store import records

ACME = Lot(name="acme", seats=1, state=LotState.IN_FORCE, began_at=1, overdraft=1)
BURST = Lot(
    name="rush", seats=1, ends=NOW + 9, kind=LotKind.BURST, state=LotState.IN_FORCE, began_at=2
)
OF_ACME = LotMarks((LotSeats("acme", 1, 1),))
OF_BURST = LotMarks((LotSeats("rush", 1, 2, LotKind.BURST),))
OVER = LotMarks(overdraft=1)
RULE = BurstRule(seats=1, length=1000, p95_wait=1000, within=8000, hours_per_month=1)


def with_lots(*held: Grant | Ticket, lots: PoolLots | None = None) -> PoolState:
    """One seat without a contract, one of a contract that allows another, one of a burst."""
    state = pool(*held)
    assert state.spec is not None
    state.spec = state.spec.with_lots(lots or PoolLots((BURST, ACME), 1))
    return state


def held(number: int, marks: LotMarks | None) -> Grant:
    return replace(a_grant(number, fence=number, session=f"s{number}"), marks=marks)


def test_each_grant_of_a_decision_is_marked_and_answered_with_its_mark() -> None:
    decision = decided(with_lots(), *(acquire(n, f"s{n}") for n in range(1, 6)))
    assert [grant.marks for grant in decision.grants] == [None, OF_ACME, OF_BURST, OVER]
    outcomes = [outcome for _, outcome in decision.outcomes if isinstance(outcome, Granted)]
    assert [outcome.grant for outcome in outcomes] == decision.grants
    assert len(decision.tickets) == 1


def test_one_request_may_come_from_several_lots() -> None:
    (grant,) = decided(with_lots(), acquire(1, seats=3)).grants
    assert grant.marks == LotMarks((*OF_ACME.lots, *OF_BURST.lots))


def test_what_is_given_back_in_the_same_decision_is_free_again() -> None:
    state = with_lots(
        *(held(1, None), held(2, OF_ACME), held(3, OF_BURST), held(4, OVER)),
        a_ticket(9, order=1, session="zoe"),
    )
    (grant,) = decided(state, release(2, "s2")).grants
    assert grant.marks == OF_ACME


def test_an_overdraft_is_used_while_no_other_seat_is_free_and_no_further() -> None:
    full = [held(1, None), held(2, OF_ACME), held(3, OF_BURST)]
    (grant,) = decided(with_lots(*full), acquire(9)).grants
    assert grant.marks == OVER
    assert not decided(with_lots(*full, held(4, OVER)), acquire(9)).grants
    assert granted_ids(decided(with_lots(*full[1:]), acquire(9))) == [uuid7(9)]


def test_a_request_for_more_than_are_in_force_is_not_for_the_overdraft() -> None:
    assert decided(with_lots(), acquire(1, seats=3)).grants
    assert not decided(with_lots(), acquire(1, seats=4)).tickets


def test_a_drained_pool_grants_no_overdraft_either() -> None:
    state = with_lots()
    assert state.spec is not None
    state.spec = replace(state.spec, drain=Drain("moved", "ada", 1))
    assert not decided(state, acquire(1)).grants


def test_seats_of_a_burst_that_is_over_drain_before_anything_is_granted() -> None:
    """Its marks are on no lot in force, so a contract's seat is free by marks: none may be granted."""
    over = replace(BURST, state=LotState.ENDED)
    strict = replace(ACME, overdraft=0)
    lots = PoolLots((over, strict), 1)
    state = with_lots(held(3, OF_BURST), held(4, None), lots=lots)
    assert not decided(state, acquire(9)).grants
    (grant,) = decided(state, acquire(9), release(4, "s4")).grants
    assert grant.marks is None
    (grant,) = decided(state, acquire(9), release(3, "s3")).grants
    assert grant.marks == OF_ACME


def test_a_pool_without_lots_has_records_without_marks_as_before() -> None:
    (grant,) = decided(pool(), acquire(1)).grants
    assert grant.marks is None
    record = records.grant_record(grant)
    assert not record.lots
    assert not record.overdraft
    marked = replace(grant, marks=LotMarks(OF_BURST.lots, 2))
    assert records.decode_grant(grant.grant_id, records.encode_grant(marked)) == marked


def test_how_long_a_grant_was_waited_for_is_counted_where_a_rule_looks_at_it() -> None:
    lots = PoolLots(seats=1, rule=RULE)
    ticket = replace(a_ticket(1, order=1), queued_at=Instant(NOW - 5_000))
    decision = decided(with_lots(ticket, lots=lots), acquire(2, "bert"))
    assert decision.guard.waits.slots[NOW // 1000] == (1, 1)
    value = records.encode_guard(decision.guard)
    assert records.decode_guard(value)[0].waits == decision.guard.waits
    plain = decided(with_lots(ticket), acquire(2, "bert")).guard
    assert not state_pb2.GuardRecord.FromString(records.encode_guard(plain)).HasField("waits")
    given_up = decided(with_lots(a_grant(9), ticket, lots=lots), due=[ticket])
    assert given_up.guard.waits.slots[NOW // 1000] == (1, 1)
    # Nothing else that a decision writes of the guard loses it.
    state = with_lots(lots=lots)
    state.guard = decision.guard
    assert decided(state, acquire(3), acquire(4)).guard.waits.slots[NOW // 1000] == (2, 1)


@given(
    st.lists(st.sampled_from([None, OF_ACME, OF_BURST, OVER]), max_size=5),
    st.lists(st.integers(1, 3), max_size=6),
)
def test_no_decision_grants_beyond_what_is_in_force_and_allowed(
    there: list[LotMarks | None], wanted: list[int]
) -> None:
    state = with_lots(*(held(n, marks) for n, marks in enumerate(there, start=1)))
    decision = decided(state, *(acquire(50 + n, seats=n2) for n, n2 in enumerate(wanted)))
    out = len(there) + sum(grant.seats for grant in decision.grants)
    assert not decision.grants or out <= 4
    for grant in decision.grants:
        for each in grant.marks.lots if grant.marks else ():
            marked = [g.marks for g in (*state.grants.values(), *decision.grants) if g.marks]
            on_it = sum(s.seats for m in marked for s in m.lots if s.key == each.key)
            assert on_it <= 1
    assert only(decided(state, release(77))) is not None
