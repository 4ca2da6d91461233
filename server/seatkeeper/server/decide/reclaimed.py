"""What a decision writes of grants that are called back, and which of them it frees."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import timedelta

from seatkeeper.server.domain import (
    Cause,
    Forced,
    Grant,
    Instant,
    PoolSpec,
    PoolState,
    Reclaim,
    Reclaims,
    TakeOver,
    Ticket,
)
from seatkeeper.server.policy.plan import Plan

HOUR = timedelta(hours=1) // timedelta(milliseconds=1)


def heeds_within(spec: PoolSpec | None, asked: Ticket | TakeOver) -> timedelta | None:
    """Return what a grant says of reclaims, of which a pool that makes none says nothing."""
    if spec is None:
        return None
    policy = spec.policy
    is_said = policy.reclaim is not None or policy.hold is not None
    if not is_said and not any(each.notice for each in policy.reservations):
        return None
    return asked.heeds_within


def freed(
    pool: PoolState, plan: Plan, over: Collection[int], said: Collection[str] = ()
) -> Iterator[Grant]:
    """Yield the grants whose seats are still wanted back, and whose notice is over.

    ``over``: the numbers of the reclaims whose time has come. ``said``: ids of grants of which more
    was said in this decision; the plan does not know that, so the next one decides on them.
    """
    running = pool.guard.reclaims.running
    for each in plan.reclaim:
        reclaim = running.get(each.grant.grant_id)
        is_over = reclaim is not None and reclaim.number in over
        if is_over and each.grant.grant_id not in said:
            yield each.grant


def taken_back(grant: Grant, reclaim: Reclaim | None) -> Forced:
    """Return what the holder of a grant receives whose notice is over."""
    why = f": {reclaim.message}" if reclaim is not None else ""
    message = f"the seats were called back, and the notice is over{why}"
    return Forced(grant.grant_id, message, is_reclaimed=True)


def reclaims_after(
    pool: PoolState, plan: Plan | None, now: Instant, ended: Collection[str]
) -> Reclaims:
    """Return what is written of the grants that are called back: what the plan wants, and no others.

    ``ended``: ids of grants that this decision ends. The very value of before where nothing changes.
    Without a plan, what is called back stays so.
    """
    before = pool.guard.reclaims
    if plan is None:
        gone = before.running.keys() & set(ended)
        left = {key: each for key, each in before.running.items() if key not in gone}
        return replace(before, running=left) if gone else before
    wanted = [each for each in plan.reclaim if each.grant.grant_id not in ended]
    if not wanted and not before.running:
        return before
    rule = pool.spec.policy.reclaim if pool.spec is not None else None
    running: dict[str, Reclaim] = {}
    number, called = before.number, list(before.called_at)
    for each in wanted:
        grant = each.grant
        known = before.running.get(grant.grant_id)
        if known is None:
            notice = each.notice or (rule.notice if rule is not None else None)
            if notice is None or grant.heeds_within is None:
                continue  # The policy is wrong, and seats of clients that do not know it stay.
            number += 1
            within = notice + grant.heeds_within
            known = Reclaim(number, now, within, each.project, each.cause, each.reason)
            if each.cause is Cause.GUARANTEE:
                called.append(now)
        elif known.cause is not each.cause:
            # The notice that runs stands: only why it does is another.
            known = replace(
                known,
                cause=each.cause,
                reason=each.reason,
                project=each.project,
                caused_at=now,
            )
        running[grant.grant_id] = known
    if running == before.running:
        return before
    return Reclaims(running, tuple(at for at in called if now - at < HOUR), number)
