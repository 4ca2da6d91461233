"""The simulation of many cells: nothing is lost in it, and moves help."""

from __future__ import annotations

import random

import pytest
from bench.cells import by_hash, by_map, evenness, heavy_tail, moved_about, one_round

LOADS = heavy_tail(random.Random(3), 500, alpha=1.2, largest=0.05)


def test_loads_are_shares_and_their_tail_is_heavy() -> None:
    assert sum(LOADS) == pytest.approx(1.0)
    assert sum(sorted(LOADS)[-50:]) > 0.35, "a tenth of the pools has over a third of all load"


def test_every_pool_is_in_one_cell_however_it_is_placed() -> None:
    mapped = by_map(LOADS, 10)
    for placed in (by_hash(LOADS, 10), mapped, moved_about(mapped)[0]):
        assert len(placed) == 10
        assert sorted(load for loads in placed for load in loads) == sorted(LOADS)


def test_moves_make_cells_even_and_end() -> None:
    moved, moves = moved_about([LOADS, *([] for _ in range(9))])
    assert moves < len(LOADS)
    assert evenness("moved", moved)["moved_max_over_mean"] < 1.1


def test_cells_that_are_even_are_left_alone() -> None:
    assert moved_about([[1.0], [1.0]]) == ([[1.0], [1.0]], 0)


def test_a_pool_that_cannot_be_divided_is_not_moved_to_and_fro() -> None:
    assert moved_about([[1.0], [0.0]])[1] == 0


def test_a_round_says_how_each_way_compares() -> None:
    figures = one_round(LOADS, 10)
    ways = [figures[f"{way}_max_over_mean"] for way in ("hash", "map", "moved")]
    assert ways == sorted(ways, reverse=True)
    assert figures["moves"] > 0
