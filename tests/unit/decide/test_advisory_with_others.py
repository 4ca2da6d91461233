"""Advisory pools, costs and hosts beside gangs, lots, reservations and longest holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.decide.test_advisory import PLAIN, a_pool, asks, decided, marks
from tests.unit.decide.test_gangs import of_gang, together
from tests.unit.kit import NOW, a_grant, a_ticket, changed, uuid7

from seatkeeper.core.counting import ClassCost, Counting
from seatkeeper.core.lot_use import LotMarks, LotSeats
from seatkeeper.core.lots import Lot, LotState, PoolLots
from seatkeeper.core.pool_rules import Who
from seatkeeper.core.reservations import (
    PoolWindows,
    Reservation,
    Schedule,
    Window,
    WindowState,
)
from seatkeeper.server.decide.weighing import weighed
from seatkeeper.server.domain import HoldRule, Instant, PoolPolicy, PoolState
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.snapshot import PoolSnapshot

CI = Reservation("ci", 1, Who(projects=("ci",)), Schedule("FREQ=DAILY", opens=0, closes=60))
BUILDERS = replace(CI, name="builders", who=Who(hosts=("Build-*",)))
ACME = Lot(name="acme", seats=1, state=LotState.IN_FORCE, began_at=1, overdraft=1)
OF_ACME = LotMarks((LotSeats("acme", 1, 1),))
COSTS = PoolPolicy(counting=Counting(costs=(ClassCost("a100", 3),)))


def in_a_window(
    policy: PoolPolicy, reservation: Reservation = CI, *, held: int = 0
) -> PoolState:
    """Two seats, one of which is kept."""
    state = a_pool(replace(policy, reservations=(reservation,)), held=held)
    assert state.spec is not None
    window = Window(reservation.name, NOW - 1, NOW + 3_600_000, WindowState.OPEN, NOW - 1)
    state.spec = replace(state.spec, windows=PoolWindows((window,)))
    return state


def with_lot(policy: PoolPolicy) -> PoolState:
    """One seat without a contract, and one of a contract that allows another."""
    state = a_pool(policy)
    assert state.spec is not None
    state.spec = state.spec.with_lots(PoolLots((ACME,), 1))
    return state


def test_a_reservation_keeps_nothing_back_and_is_the_mark_of_who_would_have_waited() -> None:
    decision = decided(in_a_window(PLAIN), asks(1), asks(2, "bob"))
    found = [
        grant.mark and (grant.mark.rule, grant.mark.seats_beyond) for grant in decision.grants
    ]
    assert found == [None, ("reservation ci", 0)]
    both = decided(in_a_window(PLAIN), asks(1), asks(2, "bob"), asks(3, "carl", "ci"))
    rules = {each: mark and mark.rule for each, mark in marks(both).items()}
    assert rules == {uuid7(1): None, uuid7(3): None, uuid7(2): "seats"}
    binding = decided(in_a_window(PoolPolicy()), asks(1), asks(2, "bob"))
    assert [grant.grant_id for grant in binding.grants] == [uuid7(1)]


def test_an_overdraft_is_not_taken_and_what_is_beyond_is_from_no_lot() -> None:
    commands = [asks(number) for number in (1, 2, 3, 4)]
    decision = decided(with_lot(PLAIN), *commands)
    assert [grant.marks for grant in decision.grants] == [None, OF_ACME, None, None]
    beyond = [grant.mark and grant.mark.seats_beyond for grant in decision.grants]
    assert beyond == [None, None, 1, 1]
    binding = decided(with_lot(PoolPolicy()), *commands)
    assert [grant.marks for grant in binding.grants] == [None, OF_ACME, LotMarks(overdraft=1)]


def test_one_that_binds_again_grants_nothing_before_its_surplus_is_back() -> None:
    state = with_lot(PLAIN)
    for grant in decided(state, *(asks(number) for number in (1, 2, 3, 4))).grants:
        state.put_grant(grant)
    assert state.spec is not None
    state.spec = replace(state.spec, policy=PoolPolicy())
    assert not decided(state, asks(5)).grants
    state.remove_grant(uuid7(4))
    assert not decided(state, asks(5)).grants, "3 are held of 2 and an overdraft of 1"
    state.remove_grant(uuid7(3))
    (grant,) = decided(state, asks(5)).grants
    assert grant.marks == LotMarks(overdraft=1)


def test_a_gang_is_granted_with_its_other_pools_alone_and_marked() -> None:
    state = a_pool(held=2)
    state.put_ticket(of_gang(1))
    state.put_ticket(of_gang(2))
    assert not decided(state).grants
    (grant,) = together(state, 1).grants
    assert (grant.grant_id, grant.mark and grant.mark.rule) == (uuid7(1), "seats")
    plan = BY_POOL.plan(PoolSnapshot.of(state), Instant(NOW))
    assert plan.hold_back(state.tickets[uuid7(1)])


def test_a_gang_pays_what_its_class_costs_and_stays_the_gang_it_is() -> None:
    ticket = changed(of_gang(1, seats=2), cost_class="a100")
    state = a_pool(COSTS, seats=6)
    state.put_ticket(weighed(state.spec, ticket))
    (grant,) = together(state, 1).grants
    assert (grant.seats, grant.attribution.cost) == (6, 3)
    assert grant.attribution.gang == ticket.gang


def test_the_longest_hold_of_an_advisory_pool_ends_grants_as_any_other() -> None:
    rule = HoldRule(longest=timedelta(minutes=2), warning=timedelta(seconds=10))
    state = a_pool(replace(PLAIN, hold=rule))
    old = replace(
        a_grant(1), granted_at=Instant(NOW - 600_000), heeds_within=timedelta(seconds=1)
    )
    state.put_grant(old)
    plan = BY_POOL.plan(PoolSnapshot.of(state), Instant(NOW))
    assert [each.grant.grant_id for each in plan.reclaim] == [uuid7(1)]


@pytest.mark.parametrize(
    ("host", "granted"), [("build-7", True), ("BUILD-7", True), ("desk", False), ("", False)]
)
def test_a_reservation_may_be_for_hosts(host: str, granted: bool) -> None:
    state = in_a_window(PoolPolicy(), BUILDERS, held=1)
    assert state.spec is not None
    assert state.spec.policy.looks_at_hosts
    state.put_ticket(changed(a_ticket(1), host=host))
    assert bool(decided(state).grants) is granted
