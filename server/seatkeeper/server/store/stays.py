"""Between seats that outlive a session, and the record of them."""

from __future__ import annotations

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Instant, Stay
from seatkeeper.server.store.formats import kept, parsed
from seatkeeper.server.store.records import grant_of, grant_record


def encode_stay(stay: Stay) -> bytes:
    """Return the value stored for seats that outlive a session."""
    record = state_pb2.StayRecord.FromString(stay.record)
    record.grant.CopyFrom(grant_record(stay.grant))
    record.since_millis, record.until_millis = stay.since, stay.until
    if (record.cause == state_pb2.STAY_CAUSE_RELEASED) is not stay.was_released:
        record.cause = (
            state_pb2.STAY_CAUSE_RELEASED
            if stay.was_released
            else state_pb2.STAY_CAUSE_UNSPECIFIED
        )
    record.may_return = stay.may_return
    return record.SerializeToString()


def was_closed(key: str, value: bytes) -> bool:
    """Return whether a session's tombstone says that its client has closed it."""
    return not parsed(state_pb2.SessionRecord, key, value).lease_id


def decode_stay(grant_id: str, value: bytes) -> Stay:
    """Return the seats stored in ``value``. Raises ``RecordUnreadable``."""
    record = parsed(state_pb2.StayRecord, grant_id, value)
    return Stay(
        grant_of(grant_id, record.grant),
        Instant(record.since_millis),
        Instant(record.until_millis),
        was_released=record.cause == state_pb2.STAY_CAUSE_RELEASED,
        may_return=record.may_return,
        record=kept(record, value),
    )
