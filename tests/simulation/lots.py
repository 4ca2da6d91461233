"""Contracts and bursts in simulation: drawn for some seeds, and checked in all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.world import EPOCH

from seatkeeper.core.burst_rule import BurstRule
from seatkeeper.core.lots import NO_LOTS, Lot, LotKind, PoolLots, Price, PriceUnit
from seatkeeper.core.rule_bursts import rule_faults

LOTS_SHARE = 0.4
"""Share of the seeds in which pools have lots."""
OVERDRAFT_SHARE = 0.4
"""Share of the contracts that allow an overdraft."""
RULE_SHARE = 0.4
"""Share of the pools with lots whose rule starts bursts."""
SKEW_MILLIS = 60_000
"""How far a clock in simulation is ahead, at most: see ``Faults._jump_clock``."""
GRACE_MILLIS = 13_000
"""How late, after all has recovered, what is due may be written."""


def lots_of(seed: int) -> Callable[[int], PoolLots]:
    """Return what draws the lots of a seed's pools of so many seats without a contract."""
    own = random.Random(f"lots of {seed}")
    if own.random() >= LOTS_SHARE:
        return lambda seats: NO_LOTS
    return lambda seats: drawn_lots(own, seats)


def drawn_lots(rng: random.Random, seats: int) -> PoolLots:
    """Draw lots that begin and end while a seed runs; some begin, or end, in one moment."""
    moments = [_millis(rng.uniform(2.0, 34.0)) for _ in range(3)]
    lots: list[Lot] = []
    for number in range(rng.randrange(1, 5)):
        begins, ends = sorted(rng.choice([*moments, _millis(rng.uniform(0, 40))]) for _ in "be")
        lot = Lot(
            name=f"lot-{number}",
            seats=rng.choice([1, 1, 2, 3]),
            begins=rng.choice([begins, begins, None]),
            ends=max(ends, begins + 1),
            kind=rng.choice(list(LotKind)),
        )
        if lot.kind is LotKind.BASE and rng.random() < OVERDRAFT_SHARE:
            lot = replace(lot, overdraft=rng.choice([1, 1, 2]))
        lots.append(lot)
    rule = drawn_rule(rng) if rng.random() < RULE_SHARE else None
    return PoolLots(tuple(lots), seats, rule=rule)


def drawn_rule(rng: random.Random) -> BurstRule:
    """Draw a rule that starts a few bursts while a seed runs, as its budget allows."""
    seats, length = rng.choice([1, 2]), 1_000 * rng.choice([1, 3, 6])
    # A seat costs 1 EUR a second.
    budget = rng.choice(["", "8", str(seats * length // 1_000)])
    rule = BurstRule(
        seats=seats,
        length=length,
        p95_wait=1_000 * rng.choice([1, 2]),
        within=1_000 * rng.choice([1, 2, 4]),
        hours_per_month=1,
        price=Price("3600", "EUR", PriceUnit.SEAT_HOUR),
        budget=budget,
    )
    return rule if not [*rule_faults(rule)] else replace(rule, budget="")


def most_of(lots: PoolLots) -> int:
    """Return the most seats that lots can add: a clock that is ahead begins one before another ends."""
    there = sum(lot.seats + lot.overdraft for lot in lots.lots)
    return there + (lots.rule.seats if lots.rule else 0)


def _millis(seconds: float) -> int:
    return int((EPOCH + seconds) * 1000)
