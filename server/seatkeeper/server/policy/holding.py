"""Which grants are called back for no project: those revoked, idle, or held for too long.

It is added to the plan of every order of service, so that one mechanism warns holders and frees seats
(``reclaiming``). What is wanted is worked out anew by every plan: a grant that is called back for one
of these causes stays so while the cause does, also by a clock that is slower than that of the node
which called it back, and is not any more when the cause is gone: the revoke was withdrawn, the grant
extended, its holder active again, the rule changed.

What is never wanted: seats whose holder does not know reclaims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from seatkeeper.server.domain import Cause, Grant, HoldRule, Instant, Reclaim
from seatkeeper.server.domain.hold_times import HoldTimes
from seatkeeper.server.domain.holds import span
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.reclaiming import CallBack
from seatkeeper.server.policy.snapshot import PoolSnapshot

CALLED_MAX = 256
"""Most grants of a pool that are called back at a time because they are held for too long."""


def with_holds(plan: Plan, pool: PoolSnapshot, now: Instant) -> Plan:
    """Return a plan that also calls back what is held for too long, or is revoked.

    The very plan where the pool has no rule for it, and nothing was said of any grant. Otherwise costs
    a look at each grant.
    """
    spec, holds = pool.state.spec, pool.state.guard.holds
    rule = spec.policy.hold if spec is not None else None
    if rule is None and not holds.revokes:
        return plan
    wanted: dict[str, list[CallBack]] = {}
    for each in _revoked(pool):
        wanted.setdefault(each.grant.grant_id, []).append(each)
    next_look: Instant | None = None
    if rule is not None:
        held, next_look = _held_too_long(rule, pool, now)
        for each in held:
            wanted.setdefault(each.grant.grant_id, []).append(each)
    for each in plan.reclaim:
        wanted.setdefault(each.grant.grant_id, []).append(each)
    running = pool.state.guard.reclaims.running
    looks = [at for at in (plan.next_wake, next_look) if at is not None]
    return replace(
        plan,
        reclaim=[_first(causes, running.get(each)) for each, causes in wanted.items()],
        next_wake=min(looks, default=None),
    )


def _first(causes: Sequence[CallBack], running: Reclaim | None) -> CallBack:
    """Return the cause that a grant is called back for already, or else the first."""
    if running is not None:
        for each in causes:
            if each.cause is running.cause:
                return each
    return causes[0]


def _revoked(pool: PoolSnapshot) -> Iterator[CallBack]:
    """Yield what administrators call back, as far as its holders have said that they heed it."""
    for grant_id, revoke in pool.state.guard.holds.revokes.items():
        grant = pool.state.grants.get(grant_id)
        if grant is not None and grant_id not in pool.ended and grant.heeds_within is not None:
            yield CallBack(grant, "", Cause.REVOKED, revoke.notice, revoke.reason)


def _held_too_long(
    rule: HoldRule, pool: PoolSnapshot, now: Instant
) -> tuple[list[CallBack], Instant | None]:
    """Return what is held for too long, and when more will be although the pool stays the same."""
    holds, running = pool.state.guard.holds, pool.state.guard.reclaims.running
    times, added, idle = HoldTimes(rule), holds.extended, holds.idle
    found: list[tuple[tuple[int, int], CallBack]] = []
    later: list[Instant] = []
    for grant in pool.grants():
        if grant.heeds_within is None:
            continue
        grant_id = grant.grant_id
        reclaim, extended = running.get(grant_id), added.get(grant_id)
        begins = times.begins(grant, extended)
        if reclaim is None and begins is not None and begins > now and grant_id not in idle:
            later.append(begins)
            continue  # as nearly all of them
        # What is called back already first, then what is due longest.
        if begins is not None and (now >= begins or _stands(reclaim, begins)):
            place = (1, begins) if reclaim is None else (0, reclaim.number)
            found.append((place, _longest(rule, grant, extended)))
            continue
        if begins is not None:
            later.append(begins)
        idle_for = idle.get(grant_id)
        if rule.idle is not None and idle_for is not None and idle_for >= rule.idle:
            place = (1, 0) if reclaim is None else (0, reclaim.number)
            text = f"nothing was done with them for {span(rule.idle)}, as their holder reports"
            found.append((place, CallBack(grant, "", Cause.IDLE, rule.warning, text)))
    found.sort(key=lambda each: each[0])
    return [each for _, each in found[:CALLED_MAX]], min(later, default=None)


def _stands(reclaim: Reclaim | None, begins: Instant) -> bool:
    """Return whether a node has rightly called a grant back for this cause, by its own clock."""
    if reclaim is None or reclaim.cause is not Cause.LONGEST:
        return False
    return (reclaim.caused_at or reclaim.decided_at) >= begins


def _longest(rule: HoldRule, grant: Grant, extended: timedelta | None) -> CallBack:
    assert rule.longest is not None
    more = f", and {span(extended)} that were added" if extended else ""
    text = f"the pool lets seats be held for {span(rule.longest)}{more}"
    return CallBack(grant, "", Cause.LONGEST, rule.warning, text)
