"""When nodes start a burst of a pool, as text and as a message."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.client.admin.rule_values import values_in
from seatkeeper.core.burst_rule import BurstRule
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import parse_length, parse_price
from seatkeeper.core.lot_messages import encode_lots
from seatkeeper.core.lots import PoolLots, Price
from seatkeeper.core.rule_text import parse_budget
from seatkeeper.v1 import pool_service_pb2 as pb

EXAMPLE = "seats=4,length=2h,p95_wait=10m,for=15m,hours_per_month=40"
_LENGTHS = {"length": "length", "p95_wait": "p95_wait", "for": "within"}
_WHOLE = ("seats", "hours_per_month")
_KEYS = ("seats", *_LENGTHS, "hours_per_month", "price", "budget")


def parse_burst_rule(text: str) -> pb.BurstRule:
    """Return what ``text`` says: ``seats=4,length=2h,p95_wait=10m,for=15m,hours_per_month=40``.

    Besides, ``price=0.80 EUR/seat-hour`` and ``budget=500 EUR`` of a month. ``none``: an empty message.
    Raises `InvalidArgument` for what cannot be read; whether values make sense is for a node to say.
    """
    if not (given := values_in("burst rule", text, _KEYS, EXAMPLE)):
        return pb.BurstRule()
    for key in (*_WHOLE, *_LENGTHS):
        if key not in given:
            raise InvalidArgument(
                f"burst rule: {text[:100]!r} gives no {key}=, as in {EXAMPLE}"
            )
    whole = {key: _whole(key, given[key]) for key in _WHOLE}
    try:
        lengths = {field: _millis(given[key]) for key, field in _LENGTHS.items()}
        price = parse_price(given["price"]) if "price" in given else None
        budget = _budget(given["budget"], price) if "budget" in given else ""
    except ValueError as error:
        raise InvalidArgument(f"burst rule: {error}") from error
    rule = BurstRule(**whole, **lengths, price=price, budget=budget)
    return encode_lots(PoolLots(rule=rule)).burst_rule


def _budget(text: str, price: Price | None) -> str:
    amount, currency = parse_budget(text)
    if price is None or price.currency != currency:
        raise ValueError(f"the budget is in {currency}: give a price in {currency}, too")
    return amount


def _millis(text: str) -> int:
    return parse_length(text) // timedelta(milliseconds=1)


def _whole(key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidArgument(f"burst rule: {key}={text[:100]} is no whole number from 0 on")
    return int(text)
