"""How long a wait is estimated to be, and from what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Basis:
    """What an estimate was made from, or why there is none."""

    holds: int
    """Holds that ended lately."""
    hold_median: timedelta
    holders: int
    """Grants held now that were looked at."""
    overdue: int
    """Those of them that have been held for longer than every hold that ended lately."""


@dataclass(frozen=True, slots=True)
class EstimatedWait:
    """How long a wait is likely to be."""

    likely: timedelta
    low: timedelta | None = None
    """Four in five waits last from about here to ``high``; both None: too little is known."""
    high: timedelta | None = None
