"""Between a rule that starts bursts and its message: see ``lot_messages``."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.duration_pb2 import Duration

from seatkeeper.core.burst_rule import NO_RULE, BurstMonth, BurstRule
from seatkeeper.core.lots import Price
from seatkeeper.v1 import pool_service_pb2 as pb

MILLIS_MAX = 1 << 50
"""A longer time than any rule may say; more of a request is read as this, and refused."""


def fill_rule(
    message: pb.PoolLots,
    rule: BurstRule | None,
    months: tuple[BurstMonth, ...],
    fill_price: Callable[[pb.LotPrice, Price], None],
) -> None:
    """Say a rule, and what its bursts take of months, in the message for a pool's lots."""
    if rule is not None:
        said = message.burst_rule
        said.SetInParent()
        if rule:
            said.seats, said.hours_per_month = rule.seats, rule.hours_per_month
            said.length.FromMilliseconds(rule.length)
            said.p95_wait.FromMilliseconds(rule.p95_wait)
            said.within.FromMilliseconds(rule.within)
            said.budget = rule.budget
            if rule.price is not None:
                fill_price(said.price, rule.price)
    for each in months:
        message.burst_months.add(
            month=each.month,
            millis=each.millis,
            cost_micros=each.cost_micros,
            currency=each.currency,
        )


def rule_in(
    message: pb.PoolLots, read_price: Callable[[pb.LotPrice], Price]
) -> BurstRule | None:
    """Return the rule in a message; `NO_RULE`: it says that there is none; None: it says nothing."""
    if not message.HasField("burst_rule"):
        return None
    said = message.burst_rule
    if said == pb.BurstRule():
        return NO_RULE
    return BurstRule(
        seats=said.seats,
        length=_millis(said.length),
        p95_wait=_millis(said.p95_wait),
        within=_millis(said.within),
        hours_per_month=said.hours_per_month,
        price=read_price(said.price) if said.HasField("price") else None,
        budget=said.budget,
    )


def months_in(message: pb.PoolLots) -> tuple[BurstMonth, ...]:
    """Return what bursts of the rule take of months, by a message."""
    return tuple(
        BurstMonth(each.month, each.millis, each.cost_micros, each.currency)
        for each in message.burst_months
    )


def _millis(duration: Duration) -> int:
    exact = duration.seconds * 1000 + duration.nanos // 1_000_000
    return max(-1, min(exact, MILLIS_MAX))
