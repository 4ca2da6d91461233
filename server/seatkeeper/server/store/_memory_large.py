"""What a large transaction writes into the store in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seatkeeper.server.store.interface import (
    Entry,
    LargeWrite,
    Put,
    PutNew,
    PutOver,
    UnwrittenBelow,
    Write,
)


def large_writes(
    entries: Mapping[str, Entry], writes: Sequence[LargeWrite], below: UnwrittenBelow
) -> list[Write] | None:
    """Return what is written as it stands now; None: the transaction fails."""
    for key, entry in entries.items():
        if key.startswith(below.prefix) and entry.mod_revision > below.revision:
            return None
    made: list[Write] = []
    for write in writes:
        if isinstance(write, PutOver) and write.key not in entries:
            return None
        if isinstance(write, PutNew) and write.key in entries:
            continue
        if isinstance(write, PutNew | PutOver):
            write = Put(write.key, write.value)
        made.append(write)
    return made
