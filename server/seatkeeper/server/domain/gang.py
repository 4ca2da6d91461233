"""Seats of several pools of which all are granted in one transaction, or one of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, order=True)
class GangMember:
    """Seats of one of its pools, and the request for them."""

    pool: str
    grant_id: str
    seats: int
    after_millis: int | None = None
    """How long after it was asked for it may be granted, where one of them is wanted; None: all are."""


Gang: TypeAlias = tuple[GangMember, ...]
"""By the names of pools, or alternatives in the order of preference.

The owner of the first one's pool sees to it that it is granted."""


def is_choice(gang: Gang) -> bool:
    """Return whether one of the members is wanted, and not all: they are alternatives."""
    return bool(gang) and gang[0].after_millis is not None
