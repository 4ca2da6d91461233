"""Between how long seats may be held and its message, and checks of requests about it. Pure."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from seatkeeper.core.hold import HOLD_MAX, IDLE_MIN, LONGEST_MIN
from seatkeeper.core.reclaim import NOTICE_MAX, NOTICE_MIN
from seatkeeper.core.validate import Malformed, check_duration, check_id, check_name
from seatkeeper.server.domain import Grant, Guard, HoldRule, PoolSpec
from seatkeeper.server.domain.hold_times import HoldTimes
from seatkeeper.v1 import pool_service_pb2, seat_service_pb2

ACTIVITY_MAX = 10_000


def encode_hold(rule: HoldRule) -> pool_service_pb2.HoldRule:
    """Return the message for a rule."""
    message = pool_service_pb2.HoldRule()
    message.warning.FromTimedelta(rule.warning)
    if rule.longest is not None:
        message.longest.FromTimedelta(rule.longest)
    if rule.idle is not None:
        message.idle.FromTimedelta(rule.idle)
    return message


def decode_hold(message: pool_service_pb2.HoldRule) -> HoldRule:
    """Return the rule in a message."""
    return HoldRule(
        message.warning.ToTimedelta(),
        message.longest.ToTimedelta() if message.HasField("longest") else None,
        message.idle.ToTimedelta() if message.HasField("idle") else None,
    )


def check_hold(rule: pool_service_pb2.HoldRule) -> None:
    """Check how long seats of a pool may be held."""
    where = "spec.policy.hold"
    if not rule.HasField("warning"):
        raise Malformed(f"{where}.warning", "is required: how long holders are warned before")
    bounds = (
        ("warning", NOTICE_MIN, NOTICE_MAX, "1 s to 1 day"),
        ("longest", LONGEST_MIN, HOLD_MAX, "2 s to 90 days"),
        ("idle", IDLE_MIN, HOLD_MAX, "1 s to 90 days"),
    )
    given = {field.name for field, _ in rule.ListFields()}
    for name, least, most, text in bounds:
        if name in given:
            check_duration(f"{where}.{name}", getattr(rule, name), least, most, text)
    for name, why in decode_hold(rule).faults():
        raise Malformed(f"{where}.{name}" if name else where, why)


def check_notice(notice: Duration) -> timedelta:
    """Check how long the holder of a grant that is called back has at least; return it."""
    check_duration("notice", notice, NOTICE_MIN, NOTICE_MAX, "1 s to 1 day")
    return notice.ToTimedelta()


def check_extension(
    request: pool_service_pb2.ExtendGrantRequest,
) -> tuple[timedelta, timedelta]:
    """Check how much longer a grant may be held; return that, and what was seen of it."""
    for name in ("extended", "seen"):
        check_duration(name, getattr(request, name), timedelta(0), HOLD_MAX, "0 s to 90 days")
    return request.extended.ToTimedelta(), request.seen.ToTimedelta()


def check_activity(renew: seat_service_pb2.Renew) -> None:
    """Check what a renewal says that is done with grants."""
    if len(renew.activity) > ACTIVITY_MAX:
        raise Malformed(
            "renew.activity", f"{len(renew.activity)} at once; at most {ACTIVITY_MAX}"
        )
    for each in renew.activity:
        check_name("renew.activity.grant.pool", each.grant.pool)
        check_id("renew.activity.grant.grant_id", each.grant.grant_id)
        most = timedelta(days=3650)
        check_duration(
            "renew.activity.idle_for", each.idle_for, timedelta(0), most, "0 s to ten years"
        )


def fill_hold(
    held: pool_service_pb2.HeldGrant, spec: PoolSpec | None, guard: Guard, grant: Grant
) -> None:
    """Fill in how long a grant may be held."""
    rule = spec.policy.hold if spec is not None else None
    holds, grant_id = guard.holds, grant.grant_id
    extended = holds.extended.get(grant_id)
    if rule is not None and grant.heeds_within is not None:
        ends = HoldTimes(rule).ends(grant, extended)
        if ends is not None:
            held.hold.ends_at.FromMilliseconds(ends)
    if extended is not None:
        held.hold.extended.FromTimedelta(extended)
    if (revoke := holds.revokes.get(grant_id)) is not None:
        message = held.hold.revoke
        message.reason, message.by = revoke.reason, revoke.by
        message.decided_at.FromMilliseconds(revoke.decided_at)
        message.notice.FromTimedelta(revoke.notice)
        message.is_unanswered = grant.heeds_within is None
    if (idle_for := holds.idle.get(grant_id)) is not None:
        held.hold.idle_for.FromTimedelta(idle_for)
