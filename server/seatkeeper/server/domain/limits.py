"""Bounds of decisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one decision."""

    writes_max: int = 127
    """Most writes: one less than a transaction holds, for the guard."""
    queue_max: int = 10_000
    """Most tickets of a pool. More are refused with ``OVERLOADED``."""
    holder_queue_max: int = 10_000
    """Most tickets of one holder in a pool. More are refused with ``OVERLOADED``."""
