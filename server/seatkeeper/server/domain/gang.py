"""Seats of several pools that are granted together, in one transaction, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, order=True)
class GangMember:
    """Seats of one of its pools, and the request for them."""

    pool: str
    grant_id: str
    seats: int


Gang: TypeAlias = tuple[GangMember, ...]
"""By the names of pools. The owner of the first one's pool sees to it that it is granted."""
