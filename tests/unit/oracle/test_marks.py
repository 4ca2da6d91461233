"""The checker of marks and of bursts by a rule: bad histories are reported, good ones are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.core.test_rule_bursts import NOON, RULE, begun

from seatkeeper.core.burst_rule import HOUR_MILLIS
from seatkeeper.core.counting import Counting
from seatkeeper.core.lot_messages import encode_seats
from seatkeeper.core.lot_use import LotSeats
from seatkeeper.core.lots import Lot, LotState, PoolLots, Price, PriceUnit, moved
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.bursts import check_bursts
from seatkeeper.oracle.history import FaultKind, replay
from seatkeeper.oracle.stored import guard_key, pool_key
from seatkeeper.server.domain import PoolPolicy, PoolSpec
from seatkeeper.server.store import Change, Entry, records

POOL = "p"
ACME = Lot(name="acme", seats=2, state=LotState.IN_FORCE, began_at=1, overdraft=1)
OF_ACME = LotSeats("acme", 1, 1)


def spec(revision: int, lots: PoolLots) -> Change:
    value = records.encode_spec(PoolSpec(POOL, lots.seats).with_lots(lots))
    return Change(pool_key(POOL), Entry(pool_key(POOL), value, revision), revision)


def granted(revision: int, seats: int, *lots: LotSeats, over: int = 0) -> list[Change]:
    record = state_pb2.GrantRecord(session_id=f"s{revision}", seats=seats, fence=revision)
    record.lots.extend(map(encode_seats, lots))
    record.overdraft = over
    key, guard = f"seatkeeper/seats/{POOL}/grants/g{revision}", guard_key(POOL)
    decision = state_pb2.GuardRecord(fence=revision, decision_id=revision).SerializeToString()
    return [
        Change(guard, Entry(guard, decision, revision), revision),
        Change(key, Entry(key, record.SerializeToString(), revision), revision),
    ]


def lapsed(revision: int, grant: int) -> Change:
    return Change(f"seatkeeper/seats/{POOL}/grants/g{grant}", None, revision)


def faults(*history: Change, seats: int = 1, lot: Lot = ACME) -> list[str]:
    changes = [spec(1, PoolLots((lot,), seats)), *history]
    found = replay(changes)[POOL].faults
    assert all(fault.kind in (FaultKind.OVER_GRANT, FaultKind.REWRITTEN) for fault in found)
    return [fault.message for fault in found]


FULL = [*granted(2, 1), *granted(3, 2, replace(OF_ACME, seats=2))]


def test_a_history_in_order() -> None:
    assert faults(*FULL, *granted(4, 1, over=1)) == []
    assert faults(*granted(2, 3, replace(OF_ACME, seats=2))) == []


@pytest.mark.parametrize(
    ("history", "fault"),
    [
        ([*FULL, *granted(4, 2, over=2)], "5 seats out of a pool of 3 and an overdraft of 1"),
        (granted(2, 1, over=1), "the overdraft is used while 0 of 3 seats in force are held"),
        (
            granted(2, 3, replace(OF_ACME, seats=3)),
            "3 seats are marked with lot acme, which has 2",
        ),
        (granted(2, 1, replace(OF_ACME, lot="x")), "marked with lot x, which is not in force"),
        (granted(2, 1, replace(OF_ACME, began_at=7)), "lot acme, which is not in force"),
        (granted(2, 1, OF_ACME, over=1), "has more seats marked than it has"),
        (granted(2, 2), "2 seats without a mark, and 1 without a contract"),
    ],
)
def test_a_history_that_is_wrong(history: list[Change], fault: str) -> None:
    assert any(fault in each for each in faults(*history)), faults(*history)


def test_a_node_that_knows_no_marks_leaves_seats_without() -> None:
    """It serves no pool that has an overdraft."""
    assert faults(*granted(2, 2), lot=replace(ACME, overdraft=0)) == []


def test_an_overdraft_may_be_used_by_a_decision_that_does_not_know_of_an_end() -> None:
    assert faults(*FULL, lapsed(4, 2), *granted(5, 1, over=1)) == []
    known = [*FULL, lapsed(4, 2), *granted(5, 1), *granted(6, 1, over=1), lapsed(7, 6)]
    assert faults(*known) == []
    late = faults(
        *FULL, lapsed(4, 2), *granted(5, 1), lapsed(6, 5), *granted(7, 1), lapsed(8, 3)
    )
    assert late == []
    seen = [*FULL, lapsed(4, 3), *granted(5, 1, OF_ACME), *granted(6, 1, over=1)]
    assert any("the overdraft is used while 2 of 3" in each for each in faults(*seen))


def advisory(revision: int, lots: PoolLots) -> Change:
    policy = PoolPolicy(counting=Counting(is_advisory=True))
    value = records.encode_spec(PoolSpec(POOL, 0, policy=policy).with_lots(lots))
    return Change(pool_key(POOL), Entry(pool_key(POOL), value, revision), revision)


def test_what_an_advisory_pool_grants_beyond_its_seats_is_from_no_lot() -> None:
    def found(last: list[Change]) -> list[str]:
        replayed = replay([advisory(1, PoolLots((ACME,), 1)), *FULL, *last])[POOL]
        return [each.message for each in replayed.faults if each.kind is FaultKind.OVER_GRANT]

    assert found(granted(4, 2)) == []
    assert "an overdraft of 0" in found(granted(4, 1, over=1))[0]
    assert "which has 2" in found(granted(4, 1, OF_ACME))[0]


def test_a_mark_is_not_written_again() -> None:
    rewritten = granted(2, 1, OF_ACME)[1]
    again = Change(rewritten.key, Entry(rewritten.key, rewritten.entry.value, 3), 3)  # type: ignore[union-attr]  # it is written
    assert faults(*granted(2, 1, OF_ACME), again) == []
    other = granted(2, 1)[1]
    again = Change(other.key, Entry(other.key, other.entry.value, 3), 3)  # type: ignore[union-attr]  # it is written
    assert any("was" in each for each in faults(*granted(2, 1, OF_ACME), again))


def after(lots: PoolLots, now: int) -> PoolLots:
    return moved(lots, now)[0]


def test_bursts_of_a_rule() -> None:
    first = begun(PoolLots(rule=RULE))
    ended = after(first, NOON + 4 * HOUR_MILLIS)
    second = begun(ended, NOON + 4 * HOUR_MILLIS)
    assert list(check_bursts([spec(1, first), spec(2, ended), spec(3, second)])) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"is_by_rule": True, "name": "two"}, "2 bursts of one rule are in force"),
        ({"seats": 9}, "has 9 seats for 4:00:00"),
        ({"ends": NOON + 1}, "has 5 seats for 0:00:00.001"),
        ({"began_at": NOON + 1, "ends": NOON + 1 + RULE.length}, ""),
    ],
)
def test_a_burst_that_is_not_what_the_rule_says(change: dict[str, object], fault: str) -> None:
    lots = begun(PoolLots(rule=RULE))
    other = replace(lots.lots[0], **change)  # type: ignore[arg-type]  # of any field
    there = (*lots.lots, other) if "name" in change else (other,)
    found = list(check_bursts([spec(1, replace(lots, lots=there))]))
    assert len(found) == bool(fault)
    assert not found or fault in found[0]


def test_a_budget_may_be_used_up_to_the_last_cent() -> None:
    """A second is no finite part of an hour in decimals."""
    price = Price("3600", "EUR", PriceUnit.SEAT_HOUR)
    rule = replace(RULE, seats=1, length=1_000, price=price, budget="6")
    lots, history = PoolLots(rule=rule), []
    for number in range(6):
        lots = begun(after(lots, NOON + 1_000 * number), NOON + 1_000 * number)
        history.append(spec(number + 1, lots))
    assert list(check_bursts(history)) == []


def test_more_hours_or_money_than_a_month_has() -> None:
    begins = (NOON, NOON + RULE.length, NOON + 2 * RULE.length)
    history = []
    for number, begin in enumerate(begins, start=1):
        lots = begun(PoolLots(rule=replace(RULE, budget="")), begin)
        history.append(spec(number, replace(lots, rule=replace(RULE, budget="40"))))
    hours, cost = check_bursts(history)
    assert "bursts of 12:00:00 in (2026, 11), over 10 h" in hours
    assert "in (2026, 11), over 40" in cost
    (none,) = check_bursts([spec(1, replace(lots, rule=None))])
    assert "there is no rule" in none


def test_how_far_a_grant_goes_beyond_is_kept_apart_from_what_drains() -> None:
    beyond = replay([spec(1, PoolLots((ACME,), 1)), *FULL, *granted(4, 3, over=1)])[POOL]
    assert (beyond.over_capacity_max, beyond.surplus_max) == (2, 2)
    ended = replace(ACME, state=LotState.ENDED, ended_at=5)
    lowered = [spec(1, PoolLots((ACME,), 1)), *FULL, spec(4, PoolLots((ended,), 1))]
    drains = replay([*lowered, lapsed(5, 2)])[POOL]
    assert (drains.over_capacity_max, drains.surplus_max) == (0, 2)
    assert drains.is_correct
