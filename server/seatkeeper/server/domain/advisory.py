"""What an advisory pool says of a grant that a binding one would not have made, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.domain.reclaims import Instant

NEVER = Instant(0)


@immutable
class AdvisoryMark:
    """Why a grant would not have been made then if its pool were binding."""

    rule: str
    """Its name."""
    message: str
    """The same for people."""
    seats_beyond: int = 0
    """How many of its seats are beyond the capacity."""
    is_refusal: bool = False
    """Whether it would have been refused, and not have waited."""


@dataclass(frozen=True, slots=True)
class AdvisoryCounts:
    """What a pool has counted while it is advisory. Times are those of the nodes that decided."""

    since: Instant
    until: Instant = NEVER
    """When a decision found it to be advisory no more; 0: it is."""
    waited: int = 0
    """Requests that would have waited."""
    refused: int = 0
    seats_most: int = 0
    """The most seats beyond the capacity that were held at once."""
    over_since: Instant = NEVER
    """Since when more is held than the capacity; 0: as far as the last decision knew, it is not."""
    over_longest: int = 0
    """Milliseconds of the longest such time, up to the last decision in it."""
