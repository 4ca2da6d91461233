"""Whether the bursts that a rule started are what the rule says, and within its months. Pure.

The months are added up here anew, from the bursts that the history has, and not read from what nodes
say of them.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from seatkeeper.oracle.stored import IN_FORCE, PREFIX, located, read_grant
from seatkeeper.server.store import Change
from seatkeeper.v1 import pool_service_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR, _MILLI = timedelta(hours=1), timedelta(milliseconds=1)
_Month = tuple[int, int]


class _Rule:
    """The rule of one pool, and what its bursts have taken of each month."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int]] = set()
        self._hours: dict[_Month, timedelta] = {}
        self._cost: dict[_Month, Fraction] = {}

    def faults(self, lots: pool_service_pb2.PoolLots) -> Iterator[str]:
        ruled = [lot for lot in lots.lots if lot.is_by_rule]
        in_force = [lot for lot in ruled if lot.state == IN_FORCE]
        if len(in_force) > 1:
            yield f"{len(in_force)} bursts of one rule are in force"
        for lot in ruled:
            key = lot.name, lot.began_at.ToMilliseconds()
            if key not in self._seen:
                self._seen.add(key)
                yield from self._new(lot, lots.burst_rule)

    def _new(
        self, lot: pool_service_pb2.Lot, rule: pool_service_pb2.BurstRule
    ) -> Iterator[str]:
        if not rule.seats:
            yield f"burst {lot.name} was started, and there is no rule"
            return
        begins, ends = (
            _EPOCH + timedelta(milliseconds=at.ToMilliseconds())
            for at in (lot.began_at, lot.ends_at)
        )
        if (lot.seats, ends - begins) != (rule.seats, rule.length.ToTimedelta()):
            yield f"burst {lot.name} has {lot.seats} seats for {ends - begins}"
        while begins < ends:
            month = begins.year, begins.month
            days = monthrange(*month)[1]
            over = datetime(*month, days, tzinfo=UTC) + timedelta(days=1)
            part = min(ends, over) - begins
            self._hours[month] = self._hours.get(month, timedelta()) + part
            cost = (
                Fraction(rule.price.amount or 0)
                * lot.seats
                * Fraction(part // _MILLI, _HOUR // _MILLI)
            )
            self._cost[month] = self._cost.get(month, Fraction(0)) + cost
            if self._hours[month] > rule.hours_per_month * _HOUR:
                yield f"bursts of {self._hours[month]} in {month}, over {rule.hours_per_month} h"
            if rule.budget and self._cost[month] > Fraction(rule.budget):
                cost = self._cost[month]
                yield f"bursts for {float(cost):.6f} in {month}, over {rule.budget}"
            begins += part


def count_lots(changes: Iterable[Change], prefix: str = PREFIX) -> tuple[int, int]:
    """Return how many bursts rules have started, and how many grants have seats of an overdraft."""
    bursts: set[tuple[str, str, int]] = set()
    overdrawn: set[tuple[str, str]] = set()
    for pool, kind, name, change in located(changes, prefix):
        if change.entry is not None and kind == "spec":
            lots = pool_service_pb2.PoolSpec.FromString(change.entry.value).lots.lots
            ruled = (lot for lot in lots if lot.is_by_rule)
            bursts |= {(pool, lot.name, lot.began_at.ToMilliseconds()) for lot in ruled}
        elif change.entry is not None and kind == "grants":
            is_over = read_grant(name, change.entry.value).overdraft > 0
            overdrawn |= {(pool, name)} if is_over else set()
    return len(bursts), len(overdrawn)


def check_bursts(changes: Iterable[Change], prefix: str = PREFIX) -> Iterator[str]:
    """Yield all that is wrong with the bursts that rules have started."""
    rules: dict[str, _Rule] = {}
    for pool, kind, _, change in located(changes, prefix):
        if kind != "spec":
            continue
        lots = pool_service_pb2.PoolLots()
        if change.entry is not None:
            lots = pool_service_pb2.PoolSpec.FromString(change.entry.value).lots
        if not lots.lots and not lots.burst_rule.seats:
            rules.pop(pool, None)  # what its bursts have taken is not kept with plain seats
            continue
        for fault in rules.setdefault(pool, _Rule()).faults(lots):
            yield f"{pool}, revision {change.revision}: {fault}"
