"""Which grants are called back because a window is open, and others hold the seats that it keeps.

Only where the reservation has a notice. Its window is written to be open by so much earlier, so that
seats which become free from then on are kept, and those that are called back are free at its start. As
with every cause, what is wanted is worked out anew by every plan, and what is called back already comes
first.

What is never wanted: anything while the pool is closed, drained or advisory; more than the windows lack
then; seats of one whom an open window is for; seats without which a project would be under its
guarantee; seats whose holder does not know reclaims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

from seatkeeper.server.domain import Cause, Grant, Instant, PoolPolicy
from seatkeeper.server.policy.kept import Kept, kept_in
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.reclaiming import CallBack
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.units import members_of, units

CALLED_MAX = 256
"""Most grants of a pool that are called back at a time for windows."""


def with_openings(plan: Plan, pool: PoolSnapshot, now: Instant) -> Plan:
    """Return a plan that also calls back what open windows lack.

    The very plan where no window is open whose reservation says so. Otherwise costs a look at each
    grant.
    """
    spec = pool.state.spec
    if spec is None or not spec.windows.open or not pool.is_open:
        return plan
    if spec.policy.counting.is_advisory:
        return plan
    calling = [
        each
        for each in spec.policy.reservations
        if each.notice and each.name in spec.windows.open
    ]
    if not calling or (kept := kept_in(pool, now)) is None:
        return plan
    for ticket in plan.serve:
        kept.use(ticket)
    lacking = kept.lacking({each.name for each in calling})
    if lacking <= 0:
        return plan
    there = {each.grant.grant_id for each in plan.reclaim}
    first = max(calling, key=lambda each: each.notice)
    notice = timedelta(milliseconds=first.notice)
    reason = f"seats are kept for {first.who} (reservation {first.name})"
    found = [
        CallBack(grant, "", Cause.RESERVATION, notice, reason)
        for unit in _enough(pool, kept, spec.policy, lacking)
        for grant in members_of(pool, unit)
        if grant.grant_id not in there
    ]
    return replace(plan, reclaim=[*plan.reclaim, *found])


def _enough(pool: PoolSnapshot, kept: Kept, policy: PoolPolicy, need: int) -> list[Grant]:
    """Return units that have so many seats together, or all that may be called back."""
    held = _held(pool, policy)
    taken: list[Grant] = []
    for grant in _in_order(pool, kept):
        if sum(each.seats for each in taken) >= need or len(taken) >= CALLED_MAX:
            break
        path = policy.path(grant.project)
        least = {name: policy.guaranteed.get(name, 0) for name in path}
        if any(held[name] - grant.seats < n for name, n in least.items() if n):
            continue
        taken.append(grant)
        held.subtract(dict.fromkeys(path, grant.seats))
    # The last one was needed; of those before it, perhaps not all.
    spare = sum(each.seats for each in taken) - need
    for grant in list(reversed(taken[:-1])):
        if grant.seats <= spare:
            taken.remove(grant)
            spare -= grant.seats
    return taken


def _in_order(pool: PoolSnapshot, kept: Kept) -> Iterator[Grant]:
    """Yield what is called back already, then the lowest priority, and of that the youngest."""
    running = pool.state.guard.reclaims.running
    able = [
        grant
        for grant in units(pool)
        if grant.heeds_within is not None and not any(map(kept.is_for, members_of(pool, grant)))
    ]

    def place(grant: Grant) -> tuple[int, int, int]:
        reclaims = [running.get(each.grant_id) for each in members_of(pool, grant)]
        numbers = [each.number for each in reclaims if each is not None]
        if len(numbers) == len(reclaims):
            return 0, min(numbers), 0
        return 1, grant.priority, -grant.fence

    yield from sorted(able, key=place)


def _held(pool: PoolSnapshot, policy: PoolPolicy) -> Counter[str]:
    """Return what projects hold, with their parts, where any is guaranteed seats."""
    found: Counter[str] = Counter()
    guaranteed: Mapping[str, int] = policy.guaranteed
    if any(guaranteed.values()):
        for grant in units(pool):
            found.update(dict.fromkeys(policy.path(grant.project), grant.seats))
    return found
