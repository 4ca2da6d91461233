"""The rule of a pool that starts bursts, in ``pools.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from seatkeeper.core.burst_rule import BurstRule
from seatkeeper.core.lot_messages import encode_lots, read_price
from seatkeeper.core.lots import PoolLots, Price
from seatkeeper.core.rule_bursts import rule_faults
from seatkeeper.core.rule_messages import rule_in
from seatkeeper.core.rule_text import parse_budget, rule_texts
from seatkeeper.v1 import pool_service_pb2 as pb

_PLACES = {"within": "when.for", "p95_wait": "when.p95_wait"}


def burst_rule_of(said: Mapping[str, Any]) -> tuple[pb.BurstRule, list[tuple[str, str]]]:
    """Return the rule that the keys of `burst` say, and what is wrong as a whole: key and reason.

    Every key that is needed is there, and reads as what it takes.
    """
    price, budget = said.get("price"), ""
    faults: list[tuple[str, str]] = []
    if "budget" in said:
        budget, currency = parse_budget(said["budget"])
        if isinstance(price, Price) and price.currency != currency:
            faults.append(("budget", f"is in {currency}, and the price in {price.currency}"))
    when = said["when"]
    rule = BurstRule(
        seats=said["seats"],
        length=_millis(said["length"]),
        p95_wait=_millis(when["p95_wait"]),
        within=_millis(when["for"]),
        hours_per_month=said["hours_per_month"],
        price=price,
        budget=budget,
    )
    faults += ((_PLACES.get(field, field), why) for field, why in rule_faults(rule))
    return encode_lots(PoolLots(rule=rule)).burst_rule, faults


def burst_values(spec: pb.PoolSpec) -> dict[str, str | int]:
    """Return what a pool's rule says, by its keys in the file; empty: it has none."""
    rule = rule_in(spec.lots, read_price)
    return rule_texts(rule) if rule else {}


def burst_lines(spec: pb.PoolSpec) -> Iterator[str]:
    """Yield the lines of the file that say a pool's rule."""
    values = burst_values(spec)
    if not values:
        return
    yield "    burst:"
    yield f"      when: {{p95_wait: {values.pop('when.p95_wait')}, for: {values.pop('when.for')}}}"
    for key, value in values.items():
        yield f"      {key}: {value}"


def _millis(duration: Duration) -> int:
    return duration.seconds * 1000
