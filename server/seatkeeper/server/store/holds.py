"""Between what was said of single grants, and its message in the guard's record."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import NO_HOLDS, Cause, Holds, Instant, Reclaim, Revoke

MILLI = timedelta(milliseconds=1)
CAUSES = {
    Cause.GUARANTEE: state_pb2.RECLAIM_CAUSE_UNSPECIFIED,
    Cause.REVOKED: state_pb2.RECLAIM_CAUSE_REVOKED,
    Cause.LONGEST: state_pb2.RECLAIM_CAUSE_LONGEST,
    Cause.IDLE: state_pb2.RECLAIM_CAUSE_IDLE,
    Cause.RESERVATION: state_pb2.RECLAIM_CAUSE_RESERVATION,
}
_CAUSES = {number: cause for cause, number in CAUSES.items()}


def cause_of(record: state_pb2.ReclaimRecord) -> Cause:
    """Return why a grant is called back; one of a newer version counts as an administrator's."""
    return _CAUSES.get(record.cause, Cause.REVOKED)


def write_cause(record: state_pb2.ReclaimRecord, reclaim: Reclaim) -> None:
    """Write why a grant is called back. What a newer version has said of that stays."""
    if cause_of(record) is not reclaim.cause:
        record.cause = CAUSES[reclaim.cause]
    record.reason = reclaim.reason
    record.caused_at_millis = reclaim.caused_at


def write_holds(record: state_pb2.GuardRecord, holds: Holds) -> None:
    """Write what was said of grants, patching what is there."""
    if not holds and not record.HasField("holds"):
        return
    said = record.holds
    for grant_id in [each for each in said.revokes if each not in holds.revokes]:
        del said.revokes[grant_id]
    for grant_id, revoke in holds.revokes.items():
        written = said.revokes[grant_id]
        written.reason, written.by = revoke.reason, revoke.by
        written.decided_at_millis = revoke.decided_at
        written.notice_millis = revoke.notice // MILLI
        written.heeds_within_millis = revoke.heeds_within // MILLI
    for values, message in (
        (holds.extended, said.extended_millis),
        (holds.idle, said.idle_millis),
    ):
        message.clear()
        message.update({grant_id: time // MILLI for grant_id, time in values.items()})
    if not said.ByteSize():
        record.ClearField("holds")


def read_holds(record: state_pb2.GuardRecord) -> Holds:
    """Return what was said of grants."""
    if not record.HasField("holds"):
        return NO_HOLDS
    said = record.holds
    return Holds(
        {
            grant_id: Revoke(
                each.reason,
                each.by,
                Instant(each.decided_at_millis),
                timedelta(milliseconds=each.notice_millis),
                timedelta(milliseconds=each.heeds_within_millis),
            )
            for grant_id, each in said.revokes.items()
        },
        {each: timedelta(milliseconds=millis) for each, millis in said.extended_millis.items()},
        {each: timedelta(milliseconds=millis) for each, millis in said.idle_millis.items()},
    )
