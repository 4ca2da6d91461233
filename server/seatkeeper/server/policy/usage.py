"""What projects have used of a pool: half of it is forgotten in each half-life. Pure.

A decision brings it up to its own time and writes it with the guard; plans read what is written. So the
same pool has the same plan at any time, and clocks decide only how much is forgotten: one that is
behind forgets and adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from math import exp, log

from seatkeeper.server.domain import Guard, Instant, PoolState, Usage

SEAT_SECOND = 1_000
"""Milliseconds."""


def with_usage(pool: PoolState, now: Instant) -> Guard:
    """Return the guard of a pool with what was used up to now, if its policy looks at that."""
    policy = pool.spec.policy if pool.spec else None
    if policy is None or policy.usage_half_life is None or not policy.projects:
        return pool.guard
    held = {name: pool.projects.held.get(name, 0) for name in policy.shares}
    usage = advanced(pool.guard.usage, held, now, policy.usage_half_life)
    return replace(pool.guard, usage=usage)


def advanced(
    usage: Usage, held: Mapping[str, int], now: Instant, half_life: timedelta
) -> Usage:
    """Return usage as of ``now``, where projects have held so many seats since it was written.

    With the rate ``r = ln 2 / half-life``, seat time ``u`` becomes, after ``t``,
    ``u * exp(-r t) + held * (1 - exp(-r t)) / r``: the solution of ``du/dt = held - r u``. What falls
    under a seat second, and projects that are not in ``held``, are dropped.
    """
    rate = _rate(half_life)
    millis = max(0, now - usage.at) if usage.at else 0
    left = exp(-rate * millis)
    found = {
        name: round(usage.seat_millis.get(name, 0) * left + seats * (1 - left) / rate)
        for name, seats in held.items()
    }
    kept = {name: used for name, used in found.items() if used >= SEAT_SECOND}
    return Usage(max(now, usage.at), kept)


def mean_seats(usage: Usage, half_life: timedelta) -> Mapping[str, float]:
    """Return how many seats each project has held lately, as a mean over some half-lives.

    A constant number of seats ``n`` has the usage ``n / r`` in the end.
    """
    rate = _rate(half_life)
    return {name: used * rate for name, used in usage.seat_millis.items()}


def _rate(half_life: timedelta) -> float:
    return log(2) / (half_life / timedelta(milliseconds=1))
