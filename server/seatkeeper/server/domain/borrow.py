"""Seats of a pool that a machine has borrowed."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.core.borrowing import Borrower, BorrowRefusal, BorrowRule, borrow_refusal
from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.domain.reclaims import Instant

__all__ = [
    "NO_SESSION",
    "Borrow",
    "BorrowRefusal",
    "BorrowRule",
    "Borrower",
    "at",
    "borrow_refusal",
]

NO_SESSION = ""
"""Whose grants borrowed ones are: those of no session. No session has this id."""


@immutable
class Borrow:
    """A machine has a grant's seats, until a day. Never changed: it ends with the grant."""

    machine_key: bytes
    """Its public key, 32 raw bytes."""
    machine: str
    """That key's thumbprint."""
    until: Instant
    """The machine uses the seats no longer than that, by its own clock."""
    free_at: Instant
    """When a node frees them, by the node's clock."""
    borrowed_at: Instant


def at(now: Instant, length: timedelta) -> Instant:
    """Return the moment so long after another."""
    return Instant(now + length // timedelta(milliseconds=1))
