"""What one pool's history says of grants that were called back for another cause than lending. Pure.

What is looked for where such a reclaim begins, or takes over one that runs: a revoke that no one asked
for; a grant that was not held for so long as the pool allows, with what was added; one that was not
said to be idle for so long; a notice that is shorter than was said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import StoredGrant
from seatkeeper.oracle.windows import CallingWindow
from seatkeeper.v1 import pool_service_pb2

GUARANTEE = state_pb2.RECLAIM_CAUSE_UNSPECIFIED
RESERVATION = state_pb2.RECLAIM_CAUSE_RESERVATION


def read_said(value: bytes) -> state_pb2.GrantHolds:
    """Return what a guard says of single grants."""
    return state_pb2.GuardRecord.FromString(value).holds


def cause_faults(
    cause: int,
    at_millis: int,
    within_millis: int,
    grant: StoredGrant,
    rule: pool_service_pb2.HoldRule,
    said: state_pb2.GrantHolds,
    calling: Collection[CallingWindow] = (),
) -> Iterator[str]:
    """Yield what is wrong with calling a grant back at a time, for so long, and for this cause.

    ``said``: of the guard that the decision replaced. ``calling``: the open windows that call back.
    """
    grant_id, heeds = grant.grant_id, grant.heeds_within_millis
    if cause == RESERVATION:
        yield from _for_a_window(within_millis, grant, calling)
        return
    if cause == state_pb2.RECLAIM_CAUSE_REVOKED:
        if grant_id not in said.revokes:
            yield f"{grant_id} is called back by an administrator, and none said so"
            return
        least = said.revokes[grant_id].notice_millis + heeds
    else:
        least = rule.warning.ToMilliseconds() + heeds
    if within_millis < least:
        yield f"{grant_id} is called back within {within_millis} ms, under {least}"
    if cause == state_pb2.RECLAIM_CAUSE_LONGEST:
        yield from _too_long(at_millis, grant, rule, said)
    elif cause == state_pb2.RECLAIM_CAUSE_IDLE:
        idle = said.idle_millis.get(grant_id, 0)
        if not rule.HasField("idle") or idle < rule.idle.ToMilliseconds():
            yield f"{grant_id} is called back for being idle, and was for {idle} ms"


def _for_a_window(
    within_millis: int, grant: StoredGrant, calling: Collection[CallingWindow]
) -> Iterator[str]:
    if not calling:
        yield f"{grant.grant_id} is called back for a window, and none is open that does so"
        return
    if any(each.reserved.is_for(grant) for each in calling):
        yield f"{grant.grant_id} is called back for a window that is for its holder"
    least = min(each.notice_millis for each in calling) + grant.heeds_within_millis
    if within_millis < least:
        yield f"{grant.grant_id} is called back within {within_millis} ms, under {least}"


def _too_long(
    at_millis: int,
    grant: StoredGrant,
    rule: pool_service_pb2.HoldRule,
    said: state_pb2.GrantHolds,
) -> Iterator[str]:
    if not rule.HasField("longest"):
        yield f"{grant.grant_id} is called back for its time, and the pool has no longest hold"
        return
    allowed = rule.longest.ToMilliseconds() + said.extended_millis.get(grant.grant_id, 0)
    notice = rule.warning.ToMilliseconds() + grant.heeds_within_millis
    held = at_millis - grant.held_since
    if held < allowed - notice:
        yield f"{grant.grant_id} is called back {held} ms after its grant, and may stay {allowed}"
