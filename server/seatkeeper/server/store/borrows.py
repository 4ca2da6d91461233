"""That a machine has borrowed the seats of a grant, in the grant's record."""

from __future__ import annotations

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.borrow import Borrow
from seatkeeper.server.store.formats import STAY_FORMAT


def write_borrow(record: state_pb2.GrantRecord, borrow: Borrow | None) -> None:
    """Write who has borrowed a grant, and that older nodes must not overlook it."""
    if borrow is None:
        return
    record.format = STAY_FORMAT
    record.borrow.machine_key, record.borrow.machine = borrow.machine_key, borrow.machine
    record.borrow.until_millis, record.borrow.free_at_millis = borrow.until, borrow.free_at
    record.borrow.borrowed_at_millis = borrow.borrowed_at


def read_borrow(record: state_pb2.GrantRecord) -> Borrow | None:
    """Return who has borrowed a grant; None: a session holds it."""
    if not record.HasField("borrow"):
        return None
    said = record.borrow
    return Borrow(
        said.machine_key,
        said.machine,
        Instant(said.until_millis),
        Instant(said.free_at_millis),
        Instant(said.borrowed_at_millis),
    )
