"""When seats are likely to be free: many futures are played through, and looked at side by side.

In each, every present hold ends as one of the latest holds did that lasted at least as long, and each
seat that is free goes to the next in the queue, who keeps it as long as one of the latest holds. Of
these times the middle is what is likely, and most of them lie within an interval.

Over all futures, each hold takes its possible lengths evenly (Latin hypercube sampling: McKay, Beckman
and Conover, 1979), so that a few futures do. Which goes with which comes from a table that is the same
everywhere: the same pool gives the same answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from heapq import heapify, heapreplace

from seatkeeper.server.domain.basis import EstimatedWait

FUTURES = 21
"""How many are played through."""
ORDERS = 509
"""Of so many orders one is used after the other; a prime number, so that none meets itself soon."""
OUTSIDE = 1
"""How many of them lie below the interval, and above it."""
PLACES_MAX = 128
"""Seats of which it is played through when they are free; beyond these, and two rounds over all that
are held, they become free as often as holds end on average."""
HOLDS_MIN = 5
"""Of fewer holds than that an interval would say nothing."""


class Futures:
    """Plays them through, as far as is asked for."""

    def __init__(self, present: Sequence[tuple[float, int]], holds: Sequence[float]) -> None:
        """``present``: how long each holder has held, and its seats; some.

        ``holds``: how long holds last, sorted; each present holder has held no longer than the
        longest. In seconds.
        """
        self._holds = holds
        self._mean = sum(holds) / len(holds)
        self._seats = sum(seats for _, seats in present)
        self._columns = len(present)
        ends = zip(
            *(self._ends(place, *each) for place, each in enumerate(present)), strict=True
        )
        self._worlds = [_World(list(world)) for world in ends]
        self._next: list[list[float]] = []
        """How long the next holds last, in each future."""

    def wait(self, seats: int) -> EstimatedWait:
        """Return how long it is likely to take until so many ``seats`` have become free."""
        played = min(seats, max(PLACES_MAX, 2 * self._seats))
        times = sorted(self._time(world, played) for world in range(FUTURES))
        rest = (seats - played) * self._mean / self._seats
        likely = times[FUTURES // 2] + rest
        if len(self._holds) < HOLDS_MIN:
            return EstimatedWait(timedelta(seconds=likely))
        # What few holds say of the average is itself uncertain, the more the more of them follow.
        wider = (1 + seats / len(self._holds)) ** 0.5
        scale = (seats / played) ** 0.5
        below = (likely - rest - times[OUTSIDE]) * wider * scale
        above = (times[-1 - OUTSIDE] + rest - likely) * wider * scale
        return EstimatedWait(
            timedelta(seconds=likely),
            timedelta(seconds=max(0.0, likely - below)),
            timedelta(seconds=likely + above),
        )

    def _ends(self, place: int, age: float, seats: int) -> list[tuple[float, int]]:
        """Return when a present hold ends, in each future, and its seats."""
        first = bisect_left(self._holds, age)
        lengths = _column(self._holds, place, first)
        return [(length - age, seats) for length in lengths]

    def _time(self, number: int, seats: int) -> float:
        world = self._worlds[number]
        while len(world.times) < seats:
            if world.steps == len(self._next):
                self._next.append(_column(self._holds, self._columns + world.steps))
            world.step(self._next[world.steps][number])
        return world.times[seats - 1]


class _World:
    """One future: when the first, second, third seat is free in it; as far as anybody has asked."""

    __slots__ = ("_heap", "steps", "times")

    def __init__(self, present: list[tuple[float, int]]) -> None:
        self._heap = present
        heapify(self._heap)
        self.times: list[float] = []
        self.steps = 0

    def step(self, hold: float) -> None:
        """Let the next holder end, and another hold its seats as long as that."""
        free_at, seats = self._heap[0]
        self.times.extend([free_at] * seats)
        heapreplace(self._heap, (free_at + hold, seats))
        self.steps += 1


def _column(lengths: Sequence[float], number: int, first: int = 0) -> list[float]:
    """Return one of the sorted ``lengths`` from ``first`` on for each future, all alike often."""
    count, most = len(lengths) - first, 2 * FUTURES
    return [lengths[first + (2 * rank + 1) * count // most] for rank in _ranks(number % ORDERS)]


@cache
def _ranks(number: int) -> tuple[int, ...]:
    """Return the numbers below ``FUTURES`` in an order that follows no pattern."""
    return tuple(sorted(range(FUTURES), key=lambda rank: _mixed(number * FUTURES + rank)))


def _mixed(number: int) -> int:
    """Return a number in which every bit depends on all of ``number`` (Mueller's 32-bit mixer)."""
    for _ in range(2):
        number = (number ^ (number >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    return number ^ (number >> 16)
