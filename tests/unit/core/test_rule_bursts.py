"""The burst of a rule: within the hours and the budget of each month, whatever happens in between."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.core.burst_rule import HOUR_MILLIS, NO_RULE, BurstMonth, BurstRule
from seatkeeper.core.lot_messages import decode_lots, encode_lots
from seatkeeper.core.lots import (
    LOTS_MAX,
    Lot,
    LotKind,
    LotState,
    PoolLots,
    Price,
    PriceUnit,
    moved,
    succeeding,
)
from seatkeeper.core.rule_bursts import (
    by_month,
    cost_micros,
    left,
    month_of,
    month_start,
    obstacle,
    rule_faults,
    started,
)

HOURLY = Price("0.80", "EUR", PriceUnit.SEAT_HOUR)
RULE = BurstRule(
    seats=5,
    length=4 * HOUR_MILLIS,
    p95_wait=600_000,
    within=900_000,
    hours_per_month=10,
    price=HOURLY,
    budget="40",
)


def at(*day: int) -> int:
    return int(datetime(*day, tzinfo=UTC).timestamp()) * 1000  # type: ignore[arg-type,misc]  # six at most


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = at(2026, 11, 10, 12)


def begun(lots: PoolLots, now: int = NOON) -> PoolLots:
    found = started(lots, now)
    assert found is not None, obstacle(lots, now)
    return found[0]


def after(lots: PoolLots, now: int) -> PoolLots:
    return moved(lots, now)[0]


def test_a_burst_is_in_force_at_once_and_says_who_started_it() -> None:
    lots = begun(PoolLots(seats=4, rule=RULE))
    (burst,) = lots.lots
    assert (burst.name, burst.kind, burst.owner) == ("rule-1", LotKind.BURST, "rule burst")
    assert (burst.state, burst.is_by_rule, burst.price) == (LotState.IN_FORCE, True, HOURLY)
    assert (burst.began_at, burst.ends) == (NOON, NOON + RULE.length)
    assert lots.in_force == 9
    month = month_of(NOON)
    assert lots.months == (BurstMonth(month, RULE.length, 16_000_000, "EUR"),)
    assert left(lots, NOON) == (6.0, "24.00 EUR")


def test_one_at_a_time_and_the_next_when_it_is_over() -> None:
    lots = begun(PoolLots(rule=RULE))
    assert started(lots, NOON + 1) is None
    assert obstacle(lots, NOON + 1) == "a burst of the rule goes on"
    over = after(lots, NOON + RULE.length)
    again = begun(over, NOON + RULE.length)
    assert [lot.name for lot in again.lots] == ["rule-1"], "the one that has ended is forgotten"


def test_the_hours_of_a_month_are_not_passed_and_the_next_month_has_its_own() -> None:
    lots = PoolLots(rule=replace(RULE, budget=""))
    for day in (1, 2):
        lots = after(
            begun(after(lots, at(2026, 11, day)), at(2026, 11, day)), at(2026, 11, day, 9)
        )
    third = at(2026, 11, 3)
    assert started(lots, third) is None
    assert obstacle(lots, third) == "the 10 hours of 2026-11 do not suffice"
    assert started(lots, at(2026, 12, 1)) is not None


def test_the_budget_of_a_month_is_not_passed() -> None:
    lots = PoolLots(rule=replace(RULE, budget="20", hours_per_month=700))
    lots = after(begun(lots), NOON + RULE.length)
    assert obstacle(lots, NOON + RULE.length) == "the 20 EUR of 2026-11 do not suffice"


def test_a_burst_over_the_end_of_a_month_takes_of_both() -> None:
    begin = at(2026, 11, 30, 23)
    lots = begun(PoolLots(rule=RULE), begin)
    november, december = lots.months
    assert (str(november), november.millis) == ("2026-11", HOUR_MILLIS)
    assert (str(december), december.millis, december.cost_micros) == (
        *("2026-12", 3 * HOUR_MILLIS),
        12_000_000,
    )
    full = replace(december, millis=8 * HOUR_MILLIS)
    assert started(PoolLots(rule=RULE, months=(full,)), begin) is None


@pytest.mark.parametrize("stays", [True, False])
def test_what_an_administrator_does_gives_nothing_back(stays: bool) -> None:
    """Stopping it, another rule, another file of pools."""
    lots = begun(PoolLots(seats=4, rule=RULE))
    wanted = PoolLots(lots.lots if stays else (), 4, rule=replace(RULE, seats=1))
    then = succeeding(wanted, lots)
    assert then.months == lots.months
    assert [lot.is_by_rule for lot in then.lots] == ([True] if stays else [])
    assert succeeding(PoolLots(seats=4), lots).rule == RULE, "nothing is said of the rule"
    assert succeeding(PoolLots((Lot(name="acme", seats=1),), rule=NO_RULE), lots).rule is None
    assert not succeeding(PoolLots(seats=4, rule=NO_RULE), lots)


def test_a_request_cannot_say_that_the_rule_has_started_a_burst() -> None:
    burst = Lot(name="x", seats=9, ends=NOON, kind=LotKind.BURST, is_by_rule=True)
    assert not succeeding(PoolLots((burst,)), PoolLots()).lots[0].is_by_rule


def test_an_old_month_is_not_begun_anew_by_a_clock_that_is_far_behind() -> None:
    months = tuple(BurstMonth(month_of(NOON) + each) for each in (1, 2, 3))
    lots = PoolLots(rule=RULE, months=months)
    assert obstacle(lots, NOON) == "what was used of this month is not known any more"


def test_another_currency_waits_for_the_next_month() -> None:
    dollars = replace(RULE, price=replace(HOURLY, currency="USD"))
    lots = after(begun(PoolLots(rule=RULE)), NOON + RULE.length)
    assert obstacle(replace(lots, rule=dollars), NOON) == "2026-11 has bursts in EUR"


def test_there_is_no_room_for_more_than_so_many_lots() -> None:
    contracts = tuple(Lot(name=f"c{n}", seats=1) for n in range(LOTS_MAX))
    assert obstacle(PoolLots(contracts, rule=RULE), NOON) == "the pool has 32 lots"


@given(st.lists(st.integers(0, 90 * 24), max_size=60), st.integers(1, 40), st.integers(1, 30))
def test_no_month_is_ever_over_its_hours_or_its_budget(
    hours: list[int], length: int, seats: int
) -> None:
    """Clocks go to and fro, and bursts end by the clock that says so first."""
    rule = replace(
        RULE, seats=seats, length=length * HOUR_MILLIS, hours_per_month=60, budget="99"
    )
    lots = PoolLots(rule=rule)
    sums: dict[int, int] = {}
    costs: dict[int, float] = {}
    for hour in hours:
        now = at(2026, 11, 1) + hour * HOUR_MILLIS
        lots = after(lots, now)
        if (found := started(lots, now)) is None:
            continue
        lots = found[0]
        assert sum(lot.is_by_rule and lot.state is LotState.IN_FORCE for lot in lots.lots) == 1
        for month, millis in by_month(now, now + rule.length):
            sums[month] = sums.get(month, 0) + millis
            costs[month] = costs.get(month, 0) + millis / HOUR_MILLIS * seats * 0.8
    assert all(millis <= 60 * HOUR_MILLIS for millis in sums.values())
    assert all(cost <= 99 + 1e-6 for cost in costs.values())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seats": 0}, "seats"),
        ({"seats": 100_001}, "seats"),
        ({"length": 0}, "length"),
        ({"length": 1_500}, "length"),
        ({"length": 32 * 24 * HOUR_MILLIS}, "length"),
        ({"p95_wait": 999}, "p95_wait"),
        ({"within": 8 * 24 * HOUR_MILLIS}, "within"),
        ({"hours_per_month": 0}, "hours_per_month"),
        ({"hours_per_month": 745}, "hours_per_month"),
        ({"hours_per_month": 3}, "hours_per_month"),
        ({"budget": "1e3"}, "budget"),
        ({"budget": "15.99"}, "budget"),
        ({"price": None}, "budget"),
        ({"price": replace(HOURLY, per=PriceUnit.SEAT_YEAR)}, "budget"),
        ({"price": replace(HOURLY, amount="-1"), "budget": ""}, "price"),
    ],
)
def test_what_is_wrong_with_a_rule(change: dict[str, object], field: str) -> None:
    assert [*rule_faults(RULE)] == []
    changed = replace(RULE, **change)  # type: ignore[arg-type]  # of any field
    assert [each for each, _ in rule_faults(changed)] == [field]


def test_money_is_rounded_up_and_is_no_float() -> None:
    third = replace(RULE, seats=1, price=Price("0.000001", "EUR", PriceUnit.SEAT_HOUR))
    assert cost_micros(third, HOUR_MILLIS // 3) == 1
    assert cost_micros(RULE, HOUR_MILLIS) == 4_000_000
    assert cost_micros(replace(RULE, price=None), HOUR_MILLIS) == 0


@pytest.mark.parametrize("rule", [RULE, NO_RULE, None, replace(RULE, price=None, budget="")])
def test_a_rule_is_read_as_it_was_written(rule: BurstRule | None) -> None:
    lots = PoolLots((Lot(name="acme", seats=1, overdraft=2),), 3, rule=rule)
    lots = replace(lots, months=(BurstMonth(24_322, 5, 7, "EUR"),))
    assert decode_lots(encode_lots(lots)) == lots


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 12, 31)))
def test_months_are_those_of_the_calendar(moment: datetime) -> None:
    at = moment.replace(tzinfo=UTC)
    month = month_of((at - EPOCH) // timedelta(milliseconds=1))
    assert month == at.year * 12 + at.month - 1
    first = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert month_start(month) == (first - EPOCH) // timedelta(milliseconds=1)
