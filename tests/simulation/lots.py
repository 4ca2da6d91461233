"""Contracts and bursts in simulation: drawn for some seeds, and checked in all."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.simulation.world import EPOCH

from seatkeeper.core.lots import NO_LOTS, Lot, LotKind, PoolLots

LOTS_SHARE = 0.4
"""Share of the seeds in which pools have lots."""
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
    lots = []
    for number in range(rng.randrange(1, 5)):
        begins, ends = sorted(rng.choice([*moments, _millis(rng.uniform(0, 40))]) for _ in "be")
        lot = Lot(
            name=f"lot-{number}",
            seats=rng.choice([1, 1, 2, 3]),
            begins=rng.choice([begins, begins, None]),
            ends=max(ends, begins + 1),
            kind=rng.choice(list(LotKind)),
        )
        lots.append(lot)
    return PoolLots(tuple(lots), seats)


def _millis(seconds: float) -> int:
    return int((EPOCH + seconds) * 1000)
