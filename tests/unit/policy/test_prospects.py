"""What is said beside the rule to one that waits for seats: overdraft, bursts, contracts, reclaims."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.kit import NOW, uuid7
from tests.unit.policy.test_shares import TWO, a_pool, held, t

from seatkeeper.core.burst_rule import HOUR_MILLIS, BurstMonth, BurstRule
from seatkeeper.core.lot_use import LotMarks
from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots
from seatkeeper.core.rule_bursts import month_of
from seatkeeper.server.domain import Drain, Guard, Instant, PoolState, Reclaim
from seatkeeper.server.domain.reclaims import Reclaims
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import why_waiting

ACME = Lot(name="acme", seats=1, state=LotState.IN_FORCE, began_at=1)
RULE = BurstRule(
    seats=2, length=HOUR_MILLIS, p95_wait=600_000, within=900_000, hours_per_month=1
)
BY_RULE = Lot(
    name="rule-1",
    seats=2,
    kind=LotKind.BURST,
    ends=NOW + 60_000,
    state=LotState.IN_FORCE,
    began_at=1,
    is_by_rule=True,
)


def with_lots(
    *lots: Lot, holds: int, over: int = 0, rule: BurstRule | None = None, wants: int = 1
) -> PoolState:
    """A pool of these lots, of which so many seats are held, and so many of them as overdraft."""
    state = a_pool(t(5, "cv", wants), shares=[], seats=0)
    assert state.spec is not None
    state.spec = state.spec.with_lots(PoolLots(lots, 0, rule=rule))
    for number in range(holds):
        is_over = number < over
        marks = LotMarks(overdraft=1) if is_over else None
        state.put_grant(replace(held(number, "cv", 1), marks=marks))
    return state


def why(state: PoolState) -> Reason:
    snapshot = PoolSnapshot.of(state)
    plan = BY_POOL.plan(snapshot, Instant(NOW))
    return why_waiting(snapshot, plan, state.tickets[uuid7(5)], Instant(NOW)).reason


OVER = replace(ACME, overdraft=1)
LATER = replace(
    ACME, name="next", state=LotState.PENDING, began_at=None, begins=NOW + 3_600_000
)
FULL = PoolLots((ACME,), months=(BurstMonth(month_of(NOW), HOUR_MILLIS),), rule=RULE)


@pytest.mark.parametrize(
    ("state", "rule", "said"),
    [
        # What is held beyond the seats in force, as contracts allow, is no surplus.
        (with_lots(OVER, holds=2, over=1), Rule.SEATS, "0 of 1 and an overdraft of 1 are free"),
        (with_lots(OVER, holds=2, over=1), Rule.SEATS, "of an overdraft of 1, 1 is held"),
        (with_lots(OVER, holds=3, over=1), Rule.DRAINING, "3 seats are held of a pool of 2"),
        (
            with_lots(replace(ACME, state=LotState.ENDED), ACME, holds=2),
            Rule.DRAINING,
            "a contract or a burst of it has ended",
        ),
        (with_lots(ACME, LATER, holds=1), Rule.SEATS, "1 seat more is in force (lot next)"),
        (with_lots(LATER, holds=0), Rule.CLOSED, "no contract of the pool is in force"),
        (with_lots(LATER, holds=0), Rule.CLOSED, "in 1 h 0 min, 1 seat more"),
        (
            with_lots(ACME, holds=1, rule=RULE),
            Rule.SEATS,
            "a burst of 2 seats begins when 95 in 100 requests do not wait for less than 10 min",
        ),
        (
            with_lots(ACME, BY_RULE, holds=3, rule=RULE),
            Rule.SEATS,
            "starts no burst now: a burst of the rule goes on",
        ),
    ],
)
def test_what_is_said_beside_the_rule(state: PoolState, rule: Rule, said: str) -> None:
    reason = why(state)
    assert reason.rule is rule
    assert said in reason.text


def test_a_month_without_hours_left_is_said() -> None:
    state = with_lots(ACME, holds=1)
    assert state.spec is not None
    state.spec = state.spec.with_lots(FULL)
    assert "the 1 hours of 2023-11 do not suffice" in why(state).text


def test_a_drained_pool_says_only_that() -> None:
    state = with_lots(ACME, holds=1, rule=RULE)
    assert state.spec is not None
    state.spec = replace(state.spec, drain=Drain("moved", "anna", Instant(NOW)))
    assert why(state).rule is Rule.DRAINED
    assert "burst" not in why(state).text


def test_seats_that_are_called_back_for_ones_project_are_counted() -> None:
    state = a_pool(t(5, "nlp"), shares=TWO, seats=4, holds={"cv": 4})
    (grant_id,) = state.grants
    reclaim = Reclaim(1, Instant(NOW), timedelta(seconds=60), "nlp")
    state.guard = Guard(reclaims=Reclaims({grant_id: reclaim}))
    assert "4 seats are called back for project nlp" in why(state).text
    state.guard = Guard(reclaims=Reclaims({grant_id: replace(reclaim, project="other")}))
    assert "called back" not in why(state).text


def test_what_a_seat_costs_is_said() -> None:
    state = with_lots(ACME, holds=1, wants=4)
    ticket = state.tickets[uuid7(5)]
    attribution = replace(ticket.attribution, cost=4, cost_class="a100")
    state.put_ticket(replace(ticket, attribution=attribution))
    assert "counts as 4, by the costs of class a100" in why(state).text


def test_one_that_no_seat_would_help_learns_of_none() -> None:
    state = with_lots(ACME, holds=1, rule=RULE)
    ticket = state.tickets[uuid7(5)]
    attribution = replace(ticket.attribution, work_key="w")
    state.put_ticket(replace(ticket, attribution=attribution))
    grant = next(iter(state.grants.values()))
    state.put_grant(replace(grant, attribution=replace(grant.attribution, work_key="w")))
    assert why(state).rule is Rule.WORK
    assert "burst" not in why(state).text
