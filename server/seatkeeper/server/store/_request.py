"""What both stores refuse before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

from seatkeeper.server.store.errors import StoreRefused
from seatkeeper.server.store.interface import (
    LARGE_COMPARISONS_MAX,
    LARGE_WRITES_MAX,
    OPERATIONS_MAX,
    LargeWrite,
    Put,
    Unchanged,
    Write,
)


def check_key(key: str) -> None:
    """Raise ``StoreRefused`` for the empty key, which no store has."""
    if not key:
        raise StoreRefused("the empty key cannot be read or written")


def check_transaction(
    writes: Sequence[Write], only_if: Sequence[Unchanged], else_read: Sequence[str]
) -> None:
    """Raise ``StoreRefused`` for a list that is too long, or a key that is written twice."""
    longest = max(len(writes), len(only_if), len(else_read))
    if longest > OPERATIONS_MAX:
        raise StoreRefused(f"{longest} operations in one list: at most {OPERATIONS_MAX}")
    if len({write.key for write in writes}) != len(writes):
        raise StoreRefused("a key is written twice in one transaction")


def check_large_transaction(writes: Sequence[LargeWrite], only_if: Sequence[Unchanged]) -> None:
    """Raise ``StoreRefused`` for too long a list, a key written twice, or a put with a lease."""
    if len(writes) > LARGE_WRITES_MAX or len(only_if) > LARGE_COMPARISONS_MAX:
        raise StoreRefused(
            f"{len(writes)} writes under {len(only_if)} comparisons: at most {LARGE_WRITES_MAX} "
            f"under {LARGE_COMPARISONS_MAX}"
        )
    if len({write.key for write in writes}) != len(writes):
        raise StoreRefused("a key is written twice in one transaction")
    for write in writes:
        check_key(write.key)
        if isinstance(write, Put) and write.lease_id:
            raise StoreRefused("a large transaction attaches nothing to a lease")
