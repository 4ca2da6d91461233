"""A rule that starts bursts, as text: in options, in ``pools.yaml``, and for people."""

from __future__ import annotations

import re

from seatkeeper.core.burst_rule import BurstRule

_BUDGET = re.compile(r"(\S+) (\S+)", re.ASCII)
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def parse_budget(text: str) -> tuple[str, str]:
    """Return amount and currency of a budget such as ``500 EUR``. Raises ``ValueError``."""
    found = _BUDGET.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no budget of a month, as 500 EUR")
    return found[1], found[2]


def length_text(millis: int) -> str:
    """Return the shortest text that `parse_length` reads as this length: ``90m`` is ``1h30m``."""
    left, found = millis // 1000, ""
    for unit, seconds in _UNITS:
        whole, left = divmod(left, seconds)
        found += f"{whole}{unit}" if whole else ""
    return found or "0s"


def rule_texts(rule: BurstRule) -> dict[str, str | int]:
    """Return what a rule says, by the keys of ``pools.yaml``; empty: there is no rule."""
    if not rule:
        return {}
    found: dict[str, str | int] = {
        "when.p95_wait": length_text(rule.p95_wait),
        "when.for": length_text(rule.within),
        "seats": rule.seats,
        "length": length_text(rule.length),
        "hours_per_month": rule.hours_per_month,
    }
    if rule.price is not None:
        found["price"] = str(rule.price)
        found |= {"budget": f"{rule.budget} {rule.price.currency}"} if rule.budget else {}
    return found
