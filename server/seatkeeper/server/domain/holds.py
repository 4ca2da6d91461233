"""What was said of single grants while they are held: stored with the pool's guard."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

from seatkeeper.core.amounts import span
from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.domain.reclaims import Cause, Instant, Reclaim

T = TypeVar("T")
__all__ = ["NO_HOLDS", "Holds", "Revoke", "changed_holds", "span", "unanswered"]
REVOKES_MAX = 64
"""Most grants of a pool that administrators call back at a time."""
EXTENDED_MAX = 256
"""Most grants of a pool that may be held for longer than its longest hold."""
IDLE_MAX = 256
"""Most grants of a pool that are known to be idle."""


@immutable
class Revoke:
    """An administrator calls a grant back, until that is withdrawn or the grant has ended."""

    reason: str
    by: str
    """Who, as the log of administrative acts says it."""
    decided_at: Instant
    notice: timedelta
    """How long the holder has at least."""
    heeds_within: timedelta
    """How long it takes its holder at most to learn of it."""

    def unanswered(self) -> Reclaim:
        """Return what a holder is sent that has not said yet that it heeds this.

        It may count on the seats so long from when it learns of it; nothing runs before it says so.
        """
        within = self.notice + self.heeds_within
        return Reclaim(0, self.decided_at, within, "", Cause.REVOKED, self.reason)


@dataclass(frozen=True, slots=True)
class Holds:
    """What was said of grants, by their ids."""

    revokes: Mapping[str, Revoke] = field(default_factory=dict)
    extended: Mapping[str, timedelta] = field(default_factory=dict)
    """How much longer than the pool's longest hold they may be held."""
    idle: Mapping[str, timedelta] = field(default_factory=dict)
    """For how long their holders had done nothing with them when they said so."""

    def __bool__(self) -> bool:
        """Return whether anything was said."""
        return bool(self.revokes or self.extended or self.idle)

    def of(self, grant_ids: Collection[str]) -> Holds:
        """Return what is said of these grants; the very value where that is all."""
        kept = [
            {each: value for each, value in said.items() if each in grant_ids}
            for said in (self.revokes, self.extended, self.idle)
        ]
        if sum(map(len, kept)) == len(self.revokes) + len(self.extended) + len(self.idle):
            return self
        return Holds(*kept)  # type: ignore[arg-type]  # one by one as they were

    def with_revoke(self, grant_id: str, revoke: Revoke | None) -> Holds:
        """Return it with a grant called back by an administrator; None: not any more."""
        return replace(self, revokes=_with(self.revokes, grant_id, revoke))

    def with_extended(self, grant_id: str, extended: timedelta) -> Holds:
        """Return it with a grant that may be held for so much longer."""
        return replace(self, extended=_with(self.extended, grant_id, extended or None))

    def with_idle(self, grant_id: str, idle_for: timedelta | None) -> Holds:
        """Return it with a grant that is idle; None: it is not."""
        return replace(self, idle=_with(self.idle, grant_id, idle_for))


NO_HOLDS = Holds()


def unanswered(holds: Holds, grant_id: str, running: Mapping[str, Reclaim]) -> Reclaim | None:
    """Return what a holder is sent whose grant an administrator calls back, before its notice runs."""
    revoke = holds.revokes.get(grant_id) if grant_id not in running else None
    return None if revoke is None else revoke.unanswered()


def changed_holds(before: Holds, after: Holds) -> set[str]:
    """Return the ids of grants that administrators call back since, or not any more."""
    if before.revokes == after.revokes:
        return set()
    return {
        grant_id
        for grant_id in before.revokes.keys() | after.revokes.keys()
        if before.revokes.get(grant_id) != after.revokes.get(grant_id)
    }


def _with(said: Mapping[str, T], grant_id: str, value: T | None) -> dict[str, T]:
    changed = dict(said)
    changed.pop(grant_id, None)
    if value is not None:
        changed[grant_id] = value
    return changed
