"""With which others a grant counts once, in the grant's record."""

from __future__ import annotations

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain.counted_once import Group
from seatkeeper.server.store.formats import COUNT_FORMAT
from seatkeeper.server.wire.counting import counted_by


def write_group(record: state_pb2.GrantRecord, group: Group) -> None:
    """Write a grant's group, and that older nodes must not overlook it."""
    if record.counts_once:
        del record.counts_once[:]
    record.counts_once.extend(counted_by(group))
    if group:
        record.format = max(record.format, COUNT_FORMAT)
    elif record.format == COUNT_FORMAT:
        record.ClearField("format")
