"""What both stores refuse before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

from seatkeeper.server.store.errors import StoreRefused
from seatkeeper.server.store.interface import OPERATIONS_MAX, Unchanged, Write


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
