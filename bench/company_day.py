"""A company's working day: who asks for a seat of which pool, when, and how long it is held.

Eight projects with five pools each. Builds come from build machines, each of which works for one
project and runs several builds at once. They come as working hours have them, with a peak before and
one after lunch, and none in the last minutes. At the start of the day a hundred pods ask for the 20
seats of one pool. Pools have as many seats as are needed at the peaks on average, so there is a queue
at the peaks, and it is served the same day.

Pure: a day is a function of a seed, and so is what dies in it. ``ideal`` says what waits a service
would have that takes no time.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

HOUR = 3600.0
HOURS = 10.0
PROJECTS = 8
POOLS_PER_PROJECT = 5
MACHINES_PER_PROJECT = 12
PODS = 100
POD_SEATS = 20
POD_SECONDS = 30.0
"""The pods ask within so long."""
HOLD_SECONDS = 450.0
"""Mean time that a seat is held."""
HOLD_SPREAD = 0.5
"""Of a pool's holds: the standard deviation of their logarithm."""
HOLD_SECONDS_MIN, HOLD_SECONDS_MAX = 60.0, 1200.0
FILL = 0.99
"""Seats held at the peaks on average, of those that a pool has."""
PROFILE = (
    *((0.0, 0.6), (0.1, 1.1), (0.24, 1.4), (0.38, 1.35), (0.45, 0.75), (0.52, 0.85)),
    *((0.62, 1.4), (0.76, 1.35), (0.86, 0.7), (0.95, 0.0)),
)
"""How many builds come at which part of the day, against each other; straight between."""
GRID = 2000
"""Parts of the day in which as many builds come as in the middle of each."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What is shared."""

    name: str
    project: str
    seats: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One transaction: a build that asks for a seat, waits, holds it and gives it back."""

    at: float
    """Seconds since the day began."""
    session: str
    """The machine or the pod that asks."""
    pool: str
    hold: float


@dataclass(frozen=True, slots=True)
class Death:
    """A node is killed, and started again under its id."""

    at: float
    node: int
    """Its number, from 0."""
    back_at: float


@dataclass(frozen=True)
class Day:
    """What happens on one day. Times are in seconds of the day."""

    seconds: float
    pools: tuple[Pool, ...]
    asks: tuple[Ask, ...]
    """In order of time."""

    @property
    def seats(self) -> dict[str, int]:
        """The seats of each pool."""
        return {pool.name: pool.seats for pool in self.pools}

    @property
    def projects(self) -> dict[str, str]:
        """Who is charged for each pool."""
        return {pool.name: pool.project for pool in self.pools}

    @property
    def machines(self) -> list[str]:
        """The sessions that live all day: those that ask more than once."""
        seen: dict[str, int] = {}
        for ask in self.asks:
            seen[ask.session] = seen.get(ask.session, 0) + 1
        return [name for name, count in seen.items() if count > 1]

    def part(self, begin: float, end: float) -> Day:
        """Return what happens between two moments, as a day of its own."""
        asks = tuple(
            replace(ask, at=ask.at - begin) for ask in self.asks if begin <= ask.at < end
        )
        return Day(end - begin, self.pools, asks)

    def compressed(self, speedup: float) -> Day:
        """Return the same day, so many times faster."""
        asks = tuple(
            replace(ask, at=ask.at / speedup, hold=ask.hold / speedup) for ask in self.asks
        )
        return Day(self.seconds / speedup, self.pools, asks)


@dataclass(frozen=True)
class Served:
    """What a service does with a day."""

    waits: list[float]
    held_max: int


def working_day(seed: int, *, transactions: int = 50_000, hours: float = HOURS) -> Day:
    """Return the day of a seed: the same for the same seed.

    The holds stay as long as they are, whatever the number of transactions and of hours: seats are as
    many as are needed.
    """
    rng, seconds = random.Random(seed), hours * HOUR
    builds = transactions - PODS
    shares = _shares(rng)
    times = _arrivals(rng, builds, seconds)
    peak = max(weight for _, weight in PROFILE) / _area() * builds / seconds
    pools = [
        Pool(name, project, max(1, round(peak * share * hold / FILL)))
        for name, project, share, hold in shares
    ]
    burst = min(range(len(pools)), key=lambda index: abs(pools[index].seats - POD_SEATS))
    pools[burst] = replace(pools[burst], seats=POD_SEATS)
    chosen = rng.choices(shares, [share for _, _, share, _ in shares], k=builds)
    asks = [
        Ask(at, _machine(rng, project), name, _hold(rng, hold))
        for at, (name, project, _, hold) in zip(times, chosen, strict=True)
    ]
    asks += [
        Ask(
            rng.uniform(0.0, POD_SECONDS),
            f"pod-{number}",
            pools[burst].name,
            _hold(rng, shares[burst][3]),
        )
        for number in range(PODS)
    ]
    return Day(seconds, tuple(pools), tuple(sorted(asks, key=lambda ask: ask.at)))


def deaths(seed: int, nodes: int, seconds: float, away: float) -> tuple[Death, ...]:
    """Return which node is killed in the middle of each quarter of a day, and back after ``away``.

    None where there is one node, of which the clients could only wait for the return.
    """
    if nodes < 2:
        return ()
    order = random.Random(seed).sample(range(nodes), nodes)
    moments = [(2 * quarter + 1) / 8 * seconds for quarter in range(4)]
    return tuple(
        Death(at, order[quarter % nodes], at + away) for quarter, at in enumerate(moments)
    )


def ideal(day: Day) -> Served:
    """Serve every pool first come, first served, without any delay."""
    free = {pool.name: [0.0] * pool.seats for pool in day.pools}
    waits, moves = [], []
    for ask in day.asks:
        begins = max(ask.at, free[ask.pool][0])
        heapq.heapreplace(free[ask.pool], begins + ask.hold)
        waits.append(begins - ask.at)
        moves += [(begins, 1), (begins + ask.hold, -1)]
    return Served(waits, max(accumulate(change for _, change in sorted(moves)), default=0))


def _shares(rng: random.Random) -> list[tuple[str, str, float, float]]:
    """Return of each pool its name, its project, its share of all builds, and its mean hold."""
    drawn = [
        (
            f"tool-{project}-{number}",
            f"project-{project}",
            1 / ((1 + 0.2 * project) * (1 + 0.4 * number)),
            HOLD_SECONDS * rng.uniform(0.6, 1.4),
        )
        for project in range(PROJECTS)
        for number in range(POOLS_PER_PROJECT)
    ]
    total = sum(share for _, _, share, _ in drawn)
    mean = sum(share * hold for _, _, share, hold in drawn) / total
    return [
        (name, project, share / total, hold * HOLD_SECONDS / mean)
        for name, project, share, hold in drawn
    ]


def _machine(rng: random.Random, project: str) -> str:
    return f"{project}-machine-{rng.randrange(MACHINES_PER_PROJECT)}"


def _hold(rng: random.Random, mean: float) -> float:
    drawn = rng.lognormvariate(-(HOLD_SPREAD**2) / 2, HOLD_SPREAD) * mean
    return min(max(drawn, HOLD_SECONDS_MIN), HOLD_SECONDS_MAX)


def _weight(part: float) -> float:
    """Return the profile at a part of the day."""
    for (left, low), (right, high) in pairwise(PROFILE):
        if left <= part < right:
            return low + (high - low) * (part - left) / (right - left)
    return 0.0


def _area() -> float:
    return sum(_weight((cell + 0.5) / GRID) for cell in range(GRID)) / GRID


def _arrivals(rng: random.Random, count: int, seconds: float) -> Sequence[float]:
    """Draw so many moments of a day, in order."""
    sums = list(accumulate(_weight((cell + 0.5) / GRID) for cell in range(GRID)))
    return sorted(
        (bisect_left(sums, rng.uniform(0.0, sums[-1])) + rng.random()) / GRID * seconds
        for _ in range(count)
    )
