"""What counts as growth."""

from __future__ import annotations

import os

import pytest
from tests.chaos.growth import (
    FDS_MAX,
    RSS_BYTES_MAX,
    SLOPE_SECONDS_MIN,
    Growth,
    Look,
    checked,
)

MIB = 1 << 20
OLD = 2 * SLOPE_SECONDS_MIN


def looks(*rss: int, fds: tuple[int, ...] = (), seconds: float = OLD) -> list[Look]:
    step = seconds / (len(rss) - 1)
    opened = fds or (50,) * len(rss)
    return [
        Look(number * step, mib * MIB, count)
        for number, (mib, count) in enumerate(zip(rss, opened, strict=True))
    ]


@pytest.mark.parametrize(
    "seen",
    [
        looks(20, 100, 101, 100, 102),  # it warmed up
        looks(100, 100, 300, 100, 100),  # a crowd came and went
        looks(100, 100, 150, 200, 250, seconds=SLOPE_SECONDS_MIN / 2),  # too young to decide
        looks(100, 100, 100, 100, 100, fds=(50, 50, 300, 60, 70)),
    ],
)
def test_what_stays_as_it_is_passes(seen: list[Look]) -> None:
    assert list(checked("node", seen)) == []


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (looks(100, 100, 150, 200, 250), "grew from 100 to 250 MiB"),
        (
            looks(100, 100, 100, 100, 100, fds=(50, 50, 100, 150, 200)),
            "50 files open, then 200",
        ),
        (looks(1, 1, (RSS_BYTES_MAX >> 20) + 1, 1, 1), "in memory"),
        (looks(1, 1, 1, fds=(1, FDS_MAX + 1, 1)), "files open"),
    ],
)
def test_what_grows_is_said(seen: list[Look], said: str) -> None:
    (violation,) = checked("node", seen)
    assert said in violation.message


def test_processes_are_looked_at_while_they_live() -> None:
    growth = Growth()
    growth.look({"me": os.getpid(), "missing": 2**22 - 1})
    ((name, pid),) = growth.looks
    assert (name, pid) == ("me", os.getpid())
    assert growth.looks[name, pid][0].rss > 0
