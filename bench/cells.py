"""Simulate how evenly pools load many cells, where a few pools are much larger than all others.

Nothing is started: loads are drawn, and placed. A pool's load is what it asks of its cell, such as
operations a second. It is drawn from Pareto's distribution with exponent ``--alpha``: the smaller that
is, the more of all load is that of a few pools. No pool is larger than ``--largest`` cells can bear, as
one pool cannot be divided.

- ``hash_*``: each pool is in the cell that consistent hashing says.
- ``map_*``: an explicit map. A new pool goes to the cell with the least load; its own is not known
  then, and is taken for the median of all.
- ``moved_*``: the same map, after pools were moved (drained, one at a time) from the fullest cell to
  the emptiest while that helped. ``moves`` says how many, of ``pools``.
- ``added_*``: ten cells were added to those, and filled by moves alone.

Of each, ``max_over_mean`` is the load of the fullest cell over that of all, and ``p90_over_p10``
compares cells among themselves. Every figure is the median of ``--rounds`` draws.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from bench.report import median, notify, parser, percentile
from seatkeeper.core.ring import Ring

ADDED_CELLS = 10
MOVES_MAX = 100_000

Placed = list[list[float]]
"""The loads of the pools of each cell."""


def main() -> None:
    """Simulate, and print the result."""
    options = parser(__doc__)
    options.add_argument("--cells", type=int, default=100)
    options.add_argument("--pools", type=int, default=10_000)
    options.add_argument("--alpha", type=float, default=1.2)
    options.add_argument("--largest", type=float, default=0.5, help="of a cell's even share")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    rng = random.Random(given.seed)
    rounds = [
        one_round(
            heavy_tail(rng, given.pools, given.alpha, given.largest / given.cells), given.cells
        )
        for _ in range(given.rounds)
    ]
    figures = {key: median([each[key] for each in rounds]) for key in rounds[0]}
    about = {"cells": given.cells, "pools": given.pools, "alpha": given.alpha}
    notify(about | figures, given.json)


def heavy_tail(rng: random.Random, pools: int, alpha: float, largest: float) -> list[float]:
    """Return the loads of pools in no order; the sum is 1, and none is over ``largest``."""
    drawn = [rng.paretovariate(alpha) for _ in range(pools)]
    total = sum(drawn)
    cut = [min(each / total, largest) for each in drawn]
    return [each / sum(cut) for each in cut]


def one_round(loads: Sequence[float], cells: int) -> dict[str, float]:
    """Place the pools in every way; return how evenly that is."""
    mapped = by_map(loads, cells)
    moved, moves = moved_about(mapped)
    added, added_moves = moved_about([*moved, *([] for _ in range(ADDED_CELLS))])
    return {
        "largest_share_pct": 100 * max(loads) * cells,
        **evenness("hash", by_hash(loads, cells)),
        **evenness("map", mapped),
        **evenness("moved", moved),
        "moves": moves,
        **evenness("added", added),
        "added_moves": added_moves,
    }


def by_hash(loads: Sequence[float], cells: int) -> Placed:
    """Place each pool as consistent hashing says."""
    ring = Ring(1, {f"cell-{number}": "" for number in range(cells)})
    found: dict[str, list[float]] = {name: [] for name in ring.addresses}
    for number, load in enumerate(loads):
        found[str(ring.owner(f"pool-{number}"))].append(load)
    return list(found.values())


def by_map(loads: Sequence[float], cells: int) -> Placed:
    """Place each pool in the emptiest cell, without knowing its load."""
    expected = median(loads)
    placed: Placed = [[] for _ in range(cells)]
    believed = [0.0] * cells
    for load in loads:
        emptiest = min(range(cells), key=believed.__getitem__)
        placed[emptiest].append(load)
        # What came before has been measured meanwhile.
        believed[emptiest] = sum(placed[emptiest][:-1]) + expected
    return placed


def moved_about(placed: Placed) -> tuple[Placed, int]:
    """Move pools from the fullest cell to the emptiest while that helps; return how many moves."""
    cells = [sorted(loads) for loads in placed]
    sums = [sum(loads) for loads in cells]
    for moves in range(MOVES_MAX):
        fullest = max(range(len(sums)), key=sums.__getitem__)
        emptiest = min(range(len(sums)), key=sums.__getitem__)
        gap = sums[fullest] - sums[emptiest]
        # The one that halves the gap best. One as large as the gap would only swap the two.
        fitting = [load for load in cells[fullest] if load < gap]
        if gap < 0.02 * sum(sums) / len(sums) or not fitting:
            return cells, moves
        load = min(fitting, key=_distance_to(gap / 2))
        cells[fullest].remove(load)
        cells[emptiest].append(load)
        sums[fullest] -= load
        sums[emptiest] += load
    return cells, MOVES_MAX


def _distance_to(wanted: float) -> Callable[[float], float]:
    return lambda load: abs(load - wanted)


def evenness(name: str, placed: Placed) -> dict[str, float]:
    """Return how evenly cells are loaded."""
    sums = [sum(loads) for loads in placed]
    return {
        f"{name}_max_over_mean": max(sums) * len(sums) / sum(sums),
        f"{name}_p90_over_p10": percentile(sums, 90) / max(percentile(sums, 10), 1e-12),
    }


if __name__ == "__main__":
    main()
