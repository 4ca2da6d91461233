"""Grants that are called back: what is written of them with the pool's guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NewType

from seatkeeper.server.domain.immutable import immutable

Instant = NewType("Instant", int)
"""Unix milliseconds by one node's clock. Decides nothing but what a policy makes depend on time."""


class Cause(StrEnum):
    """Why a grant is called back."""

    GUARANTEE = "guarantee"
    """A project that is under its guarantee waits for seats that were lent."""
    REVOKED = "revoked"
    """An administrator said so."""
    LONGEST = "longest_hold"
    """It is held for the longest that the pool allows."""
    IDLE = "idle"
    """Its holder says that it does nothing with it."""
    RESERVATION = "reservation"
    """An open window keeps seats for others, and lacks them."""


@immutable
class Reclaim:
    """A grant's seats are to be freed when its notice is over."""

    number: int
    """Unique in the pool, and growing."""
    decided_at: Instant
    """By the clock of the node that decided it; only tokens depend on it."""
    within: timedelta
    """Each node frees the seats so long after it has seen this."""
    project: str
    """For whom; empty where that is not why."""
    cause: Cause = Cause.GUARANTEE
    reason: str = ""
    """What the holder reads of another cause."""
    caused_at: Instant = Instant(0)
    """Since when for this cause, by the clock of the node that said so; 0: since it was decided."""

    @property
    def message(self) -> str:
        """What the holder reads."""
        if self.cause is Cause.REVOKED:
            return f"an administrator calls them back: {self.reason}"
        if self.cause is not Cause.GUARANTEE:
            return self.reason
        return (
            f"project {self.project} is under its guarantee, and waits for seats that were lent"
        )


@dataclass(frozen=True, slots=True)
class Reclaims:
    """The grants of a pool that are called back."""

    running: Mapping[str, Reclaim] = field(default_factory=dict)
    """By grant id."""
    called_at: tuple[Instant, ...] = ()
    """When grants were called back in the last hour, as far as decisions needed to know."""
    number: int = 0
    """Of the last one."""


NO_RECLAIMS = Reclaims()


def changed_reclaims(before: Reclaims, after: Reclaims) -> set[str]:
    """Return the ids of grants that are called back since, or not any more, or anew."""
    if not before.running and not after.running:
        return set()
    return {
        grant_id
        for grant_id in before.running.keys() | after.running.keys()
        if before.running.get(grant_id) != after.running.get(grant_id)
    }
