"""A rule that starts bursts, as an option says it."""

from __future__ import annotations

import pytest

from seatkeeper.client.admin.burst_rules import EXAMPLE, parse_burst_rule
from seatkeeper.client.admin.changes import as_asked, change_spec, new_spec
from seatkeeper.client.admin.lots import parse_lot
from seatkeeper.core.errors import InvalidArgument, ServiceTooOld
from seatkeeper.v1 import pool_service_pb2 as pb


def test_it_is_read() -> None:
    rule = parse_burst_rule(f"{EXAMPLE},price=0.80 EUR/seat-hour, budget=500 EUR")
    assert (rule.seats, rule.hours_per_month, rule.budget) == (4, 40, "500")
    assert (rule.length.seconds, rule.p95_wait.seconds, rule.within.seconds) == (7200, 600, 900)
    assert rule.price == pb.LotPrice(
        amount="0.80", currency="EUR", per=pb.LOT_PRICE_UNIT_SEAT_HOUR
    )
    assert parse_burst_rule("none") == pb.BurstRule()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not one of seats, length"),
        ("seats=1", "gives no hours_per_month="),
        (f"{EXAMPLE},seats=2", "is not one of"),
        (EXAMPLE.replace("seats=4", "seats=four"), "seats=four is no whole number"),
        (EXAMPLE.replace("2h", "two"), "'two' is no length of time"),
        (f"{EXAMPLE},price=1", "is no price"),
        (f"{EXAMPLE},budget=500 EUR", "give a price in EUR, too"),
        (f"{EXAMPLE},price=1 USD/seat-hour,budget=5 EUR", "give a price in EUR, too"),
        (f"{EXAMPLE},price=1 USD/seat-hour,budget=5", "is no budget of a month"),
    ],
)
def test_what_cannot_be_read(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match="burst rule") as error:
        parse_burst_rule(text)
    assert why in str(error.value)


def test_an_overdraft_of_a_contract() -> None:
    assert parse_lot("name=acme,seats=2,overdraft=3").overdraft == 3
    with pytest.raises(InvalidArgument, match="overdraft=-1 is no number"):
        parse_lot("name=acme,seats=2,overdraft=-1")


def test_a_new_pool_with_a_rule_and_one_whose_seats_or_rule_change() -> None:
    rule = parse_burst_rule(EXAMPLE)
    spec = new_spec("p", 3, {"burst_rule": rule})
    assert (spec.lots.seats, spec.lots.burst_rule) == (3, rule)
    change_spec(spec, {"seats": 5})
    assert (spec.seats, spec.HasField("lots")) == (5, False), "nothing is said of the rule"
    change_spec(spec, {"burst_rule": rule})
    assert (spec.seats, spec.lots.seats, spec.lots.burst_rule) == (5, 5, rule)
    change_spec(spec, {"burst_rule": pb.BurstRule()})
    assert (spec.seats, spec.lots.HasField("burst_rule"), spec.lots.burst_rule.seats) == (
        *(5, True),
        0,
    )


@pytest.mark.parametrize("what", ["rule", "overdraft"])
def test_a_node_that_left_it_out_is_too_old(what: str) -> None:
    lots = pb.PoolLots(burst_rule=parse_burst_rule(EXAMPLE))
    if what == "overdraft":
        lots = pb.PoolLots(lots=[parse_lot("name=a,seats=1,overdraft=1")])
    asked = pb.PoolSpec(name="p", seats=1, lots=lots)
    made = pb.PoolSpec(name="p", seats=1, lots=pb.PoolLots(lots=[pb.Lot(name="a", seats=1)]))
    with pytest.raises(ServiceTooOld):
        as_asked(pb.Pool(spec=made), asked)
    assert as_asked(pb.Pool(spec=asked), asked).spec == asked
