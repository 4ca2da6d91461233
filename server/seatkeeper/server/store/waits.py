"""How long requests waited lately, in a pool's guard."""

from __future__ import annotations

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain.wait_counts import NO_WAITS, WaitCounts


def write_waits(record: state_pb2.GuardRecord, waits: WaitCounts) -> None:
    """Write the counts into a guard's record; none: there is nothing of them in it."""
    if waits is NO_WAITS:
        record.ClearField("waits")
        return
    said = record.waits
    said.slot_millis, said.bound_millis = waits.slot_millis, waits.bound_millis
    del said.slots[:]
    for number, (requests, long) in sorted(waits.slots.items()):
        said.slots.add(number=number, requests=requests, waited_long=long)


def read_waits(record: state_pb2.GuardRecord) -> WaitCounts:
    """Return the counts in a guard's record."""
    if not record.HasField("waits"):
        return NO_WAITS
    slots = {each.number: (each.requests, each.waited_long) for each in record.waits.slots}
    return WaitCounts(record.waits.slot_millis, record.waits.bound_millis, slots)
