"""The rule that starts bursts, and overdrafts, in ``pools.yaml``: read, refused, written, planned."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.client.pools_file import plan, read_pools, write_pools
from seatkeeper.client.pools_file.schema import AMOUNT_PATTERN, LENGTH_PATTERN
from seatkeeper.core.burst_rule import HOUR_MILLIS, BurstRule
from seatkeeper.core.instants import parse_length
from seatkeeper.core.lot_messages import decode_lots, encode_lots
from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots, Price, PriceUnit
from seatkeeper.core.rule_bursts import MICROS, cost_micros, rule_faults
from seatkeeper.core.rule_text import length_text
from seatkeeper.v1 import pool_service_pb2 as pb

HEAD = "version: 1\npools:\n  p:\n    seats: 4\n    burst:\n"
WHOLE = {
    "when": "{p95_wait: 10m, for: 15m}",
    "seats": "5",
    "length": "4h",
    "hours_per_month": "40",
    "price": "0.80 EUR/seat-hour",
    "budget": "500 EUR",
}
RULE = BurstRule(
    seats=5,
    length=4 * HOUR_MILLIS,
    p95_wait=600_000,
    within=900_000,
    hours_per_month=40,
    price=Price("0.80", "EUR", PriceUnit.SEAT_HOUR),
    budget="500",
)


def text(**change: str | None) -> str:
    keys = {**WHOLE, **change}
    lines = (f"      {key}: {value}\n" for key, value in keys.items() if value is not None)
    return HEAD + "".join(lines)


def test_a_rule_is_read_and_written_as_it_was() -> None:
    file = read_pools(text().encode())
    assert not file.faults
    spec = file.pools["p"]
    assert decode_lots(spec.lots) == PoolLots(seats=4, rule=RULE)
    assert "".join(text().splitlines(True)[4:]) in write_pools([spec])
    assert read_pools(write_pools([spec]).encode()).pools["p"] == spec


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"when": None}, "6:7: pools.p.burst: a burst needs `when`"),
        ({"seats": None}, "a burst needs `seats`"),
        ({"when": "{p95_wait: 10m}"}, "pools.p.burst.when: `when` needs `for`"),
        (
            {"when": "{p95_wait: soon, for: 15m}"},
            "6:24: pools.p.burst.when.p95_wait: 'soon' is no",
        ),
        (
            {"when": "{p95_wait: 10m, for: 8d}"},
            "6:34: pools.p.burst.when.for: is not a number of",
        ),
        ({"seats": "0"}, "7:14: pools.p.burst.seats: 0 is not from 1 to 100000"),
        ({"length": "[4h]"}, "8:15: pools.p.burst.length: a list, where a length of time"),
        ({"length": "32d"}, "8:15: pools.p.burst.length: is not a number of whole seconds"),
        ({"hours_per_month": "745"}, "9:24: pools.p.burst.hours_per_month: 745 is not from 1"),
        ({"hours_per_month": "3"}, "are fewer than one burst takes, so none would ever start"),
        ({"price": "1 EUR/seat"}, "10:14: pools.p.burst.price: '1 EUR/seat' is no price"),
        ({"price": None}, "11"),
        (
            {"budget": "500"},
            "11:15: pools.p.burst.budget: '500' is no budget of a month, as 500 EUR",
        ),
        ({"budget": "500 USD"}, "pools.p.burst.budget: is in USD, and the price in EUR"),
        ({"budget": "1 EUR"}, "is less than one burst costs, so none would ever start"),
        ({"budget": "-1 EUR"}, "is not a decimal number from 0 on"),
        ({"bugdet": "1"}, "a burst has no key 'bugdet': did you mean `budget`?"),
    ],
)
def test_what_is_refused_with_its_place(change: dict[str, str | None], fault: str) -> None:
    file = read_pools(text(**change).encode())
    assert not file.pools
    if fault == "11":  # the budget, one line higher: there is no price
        fault = "10:15: pools.p.burst.budget: needs a price for a seat-hour"
    assert len(file.faults) == 1, file.faults
    assert fault in str(file.faults[0])


def test_an_overdraft_is_of_a_contract() -> None:
    body = "    lots:\n      acme: {seats: 2, overdraft: 1}\n"
    file = read_pools(("version: 1\npools:\n  p:\n    seats: 1\n" + body).encode())
    (spec,) = file.pools.values()
    assert spec.lots.lots[0].overdraft == 1
    assert body in write_pools([spec])
    assert read_pools(body.replace("overdraft: 1", "overdraft: -1").encode()).faults


def live(lots: PoolLots) -> pb.Pool:
    spec = pb.PoolSpec(name="p", seats=lots.in_force, lots=encode_lots(lots))
    return pb.Pool(spec=spec, revision=7)


def test_a_plan_says_what_changes_of_the_rule_and_takes_away_what_the_file_has_not() -> None:
    wanted = read_pools(text(seats="6").encode()).pools
    there = PoolLots(seats=4, rule=RULE)
    (change,) = plan(wanted, [live(there)]).changes
    assert [str(value) for value in change.values] == ["~ burst.seats: 5 -> 6"]
    (same,) = plan(read_pools(text().encode()).pools, [live(there)]).changes
    assert not same.values
    none = read_pools(b"version: 1\npools:\n  p:\n    seats: 4\n").pools
    (gone,) = plan(none, [live(there)]).changes
    assert "- burst.budget: 500 EUR" in [str(value) for value in gone.values]
    assert gone.spec is not None
    assert gone.spec.lots.HasField("burst_rule")
    assert not gone.spec.lots.burst_rule.seats


def test_applying_a_file_neither_starts_nor_stops_the_burst_of_a_rule() -> None:
    burst = Lot(
        name="rule-1",
        seats=5,
        ends=9,
        kind=LotKind.BURST,
        state=LotState.IN_FORCE,
        began_at=1,
        is_by_rule=True,
    )
    there = PoolLots((burst,), 4, rule=replace(RULE, seats=1))
    (change,) = plan(read_pools(text().encode()).pools, [live(there)]).changes
    assert change.spec is not None
    assert decode_lots(change.spec.lots).lots == (burst,)


def _millis(days: int) -> st.SearchStrategy[int]:
    return st.integers(1, days * 86_400).map(lambda seconds: seconds * 1_000)


@st.composite
def rules(draw: st.DrawFn) -> BurstRule:
    """Any rule that a node takes."""
    length = draw(_millis(31))
    least = -(-length // HOUR_MILLIS)
    rule = BurstRule(
        seats=draw(st.integers(1, 100)),
        length=length,
        p95_wait=draw(_millis(90)),
        within=draw(_millis(7)),
        hours_per_month=draw(st.integers(least, 744)),
        price=RULE.price,
    )
    enough = -(-cost_micros(rule, length) // MICROS)
    more = draw(st.sampled_from(["", ".5", ".000001"]))
    return replace(rule, budget=draw(st.sampled_from(["", f"{enough}{more}"])))


@given(rules())
def test_every_rule_that_a_node_takes_is_read_as_it_is_written(rule: BurstRule) -> None:
    assert not [*rule_faults(rule)]
    spec = pb.PoolSpec(name="p", seats=4, lots=encode_lots(PoolLots(seats=4, rule=rule)))
    file = read_pools(write_pools([spec]).encode())
    assert not file.faults
    assert file.pools["p"].lots == spec.lots


@given(st.integers(0, 10**8))
def test_a_length_is_read_as_it_is_written(seconds: int) -> None:
    written = length_text(seconds * 1000)
    assert parse_length(written).total_seconds() == seconds
    assert re.fullmatch(LENGTH_PATTERN, written)


def test_the_schema_knows_amounts() -> None:
    assert re.fullmatch(AMOUNT_PATTERN, "500 EUR")
    assert not re.fullmatch(AMOUNT_PATTERN, "500")
