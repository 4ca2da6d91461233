"""That a pool is drained, in its record."""

from __future__ import annotations

from seatkeeper.server.domain import Drain
from seatkeeper.server.store.formats import RULES_FORMAT
from seatkeeper.v1 import pool_service_pb2


def write_drain(record: pool_service_pb2.PoolSpec, drain: Drain | None) -> None:
    """Write into a pool's record whether it is drained, and that older nodes must not overlook it."""
    if drain is None:
        record.ClearField("drain")
        return
    record.format = max(record.format, RULES_FORMAT)
    record.drain.reason = drain.reason
    record.drain.by = drain.by
    record.drain.drained_at.FromMilliseconds(drain.drained_at)


def read_drain(record: pool_service_pb2.PoolSpec) -> Drain | None:
    """Return why a pool is drained, by its record; None: it is open."""
    if not record.HasField("drain"):
        return None
    said = record.drain
    return Drain(said.reason, said.by, said.drained_at.ToMilliseconds())
