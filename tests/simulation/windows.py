"""Windows of reservations in simulation: drawn for some seeds, and checked in all."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from tests.policies.windows_kept import drawn_reservations
from tests.simulation.world import EPOCH

from seatkeeper.core.reservations import PoolWindows, Reservation, Window
from seatkeeper.server.domain import PoolPolicy

WINDOWS_SHARE = 0.35
"""Share of the seeds in which pools keep seats for some."""
CALLING_SHARE = 0.3
"""Of their reservations, those that call back what they lack: they open at once."""
LAST_END = 25.0
"""Seconds after which no window that is written beforehand is open."""


def with_reservations(
    seed: int, policies: Callable[[int], PoolPolicy]
) -> Callable[[int], PoolPolicy]:
    """Return what draws the policies of a seed's pools, with reservations in some seeds.

    Draws of its own, so that what happens in seeds without them stays as it is.
    """
    own = random.Random(f"reservations of {seed}")
    if own.random() >= WINDOWS_SHARE:
        return policies

    notices = random.Random(f"notices of {seed}")

    def drawn(seats: int) -> PoolPolicy:
        policy = policies(seats)
        found = drawn_reservations(own, seats, projects=bool(policy.projects))
        calling = tuple(
            replace(each, notice=notices.randint(1_000, 3_000))
            if notices.random() < CALLING_SHARE
            else each
            for each in found
        )
        return replace(policy, reservations=calling) if found else policy

    return drawn


def drawn_windows(seed: int, pool: str, reservations: Iterable[Reservation]) -> PoolWindows:
    """Draw a window of each that opens and closes while a seed runs; of some, nodes plan the first."""
    own = random.Random(f"windows of {pool} in {seed}")
    found = []
    for each in reservations:
        begins, ends = sorted(own.uniform(1.0, LAST_END) for _ in "be")
        if own.random() < 0.9:
            found.append(Window(each.name, _millis(begins), _millis(ends) + 1))
    return PoolWindows(tuple(found))


def _millis(seconds: float) -> int:
    return int((EPOCH + seconds) * 1000)
