"""What advisory pools write: the mark of a grant, and what was counted, in records."""

from __future__ import annotations

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.advisory import AdvisoryCounts, AdvisoryMark
from seatkeeper.server.wire.counting import decode_mark, encode_mark


def write_mark(record: state_pb2.GrantRecord, mark: AdvisoryMark | None) -> None:
    """Put the mark of a grant into its record; one that is as it was stays whole."""
    if mark is not None and read_mark(record) != mark:
        record.advisory.CopyFrom(encode_mark(mark))


def read_mark(record: state_pb2.GrantRecord) -> AdvisoryMark | None:
    """Return the mark in a grant's record; None: it has none."""
    return decode_mark(record.advisory) if record.HasField("advisory") else None


def write_counts(record: state_pb2.GuardRecord, counts: AdvisoryCounts | None) -> None:
    """Put what a pool has counted into its guard."""
    if counts is None:
        return
    written = record.advisory
    written.since_millis, written.until_millis = counts.since, counts.until
    written.waited, written.refused = counts.waited, counts.refused
    written.seats_most = counts.seats_most
    written.over_since_millis = counts.over_since
    written.over_longest_millis = counts.over_longest


def read_counts(record: state_pb2.GuardRecord) -> AdvisoryCounts | None:
    """Return what a pool has counted, by its guard; None: it never was advisory."""
    if not record.HasField("advisory"):
        return None
    said = record.advisory
    return AdvisoryCounts(
        Instant(said.since_millis),
        Instant(said.until_millis),
        said.waited,
        said.refused,
        said.seats_most,
        Instant(said.over_since_millis),
        said.over_longest_millis,
    )
