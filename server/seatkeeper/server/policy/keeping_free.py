"""Seats that are kept free for a gang which has waited for long, in the plan of any policy.

The gang's ticket takes its place in the order, as if it could be served, and is not: so those who come
before it are served first, and those behind it wait until the seats that it wants are free, and beyond
that have what is left. Which policy a pool has makes no difference.

That it is over is read off the clock: until then seats are idle, and no promise hangs on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot


def running(pool: PoolSnapshot, now: Instant) -> HoldBack | None:
    """Return the gang's ticket that seats are kept free for; None: there is none, or it is over."""
    kept = pool.state.guard.hold_back
    if kept is None or now >= kept.until or kept.grant_id not in pool.state.tickets:
        return None
    return None if kept.grant_id in pool.ended else kept


def keeping_free(
    planned: Callable[[PoolSnapshot, Instant], Plan], pool: PoolSnapshot, now: Instant
) -> Plan:
    """Return the plan of a policy, with those held back who come behind such a gang."""
    kept = running(pool, now)
    if kept is None or kept.grant_id in pool.joined:
        return planned(pool, now)
    joined = {kept.grant_id, *pool.joined}
    plan = planned(replace(pool, joined=joined), now)
    return replace(
        plan,
        serve=[each for each in plan.serve if each.grant_id != kept.grant_id],
        next_wake=kept.until if plan.next_wake is None else min(plan.next_wake, kept.until),
    )
