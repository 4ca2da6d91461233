"""When nodes start a burst by themselves, and what such bursts take of a month. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seatkeeper.core.lots import Price

SECOND_MILLIS, HOUR_MILLIS, DAY_MILLIS = 1_000, 3_600_000, 86_400_000
WAIT_MAX_MILLIS = 90 * DAY_MILLIS
WITHIN_MAX_MILLIS = 7 * DAY_MILLIS
LENGTH_MAX_MILLIS = 31 * DAY_MILLIS
HOURS_MAX = 744
"""Of a month of 31 days."""
MONTHS_KEPT = 3
"""Months of which it is known what bursts have taken: clocks may be in two of them at once."""
RULE_OWNER = "rule burst"
"""What such a burst says of its owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstRule:
    """When a burst is started, and which. Times are milliseconds."""

    seats: int
    """0: there is no rule, and a change that says so takes away the one there was."""
    length: int = 0
    p95_wait: int = 0
    """It is started when more than one request in twenty has waited so long ..."""
    within: int = 0
    """... in each eighth of this time."""
    hours_per_month: int = 0
    price: Price | None = None
    budget: str = ""
    """The most that such bursts cost in a month, in the currency of the price; empty: no bound."""

    def __bool__(self) -> bool:
        """Return whether there is a rule."""
        return self.seats > 0


NO_RULE = BurstRule(seats=0)


@dataclass(frozen=True, slots=True)
class BurstMonth:
    """What bursts that a rule has started take of a month, by their planned ends."""

    month: int
    """The year times 12, plus the month from 0 on, in UTC."""
    millis: int = 0
    cost_micros: int = 0
    currency: str = ""

    def __str__(self) -> str:
        """Return which month it is: ``2026-11``."""
        return f"{self.month // 12:04}-{self.month % 12 + 1:02}"
