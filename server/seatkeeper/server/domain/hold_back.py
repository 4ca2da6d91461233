"""Seats that are kept free for a gang: what is written of it with the guard."""

from __future__ import annotations

from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.domain.reclaims import Instant


@immutable
class HoldBack:
    """From ``since`` to ``until`` those behind a gang's ticket wait, and seats become free for it.

    It is over before that when the ticket is gone. It stays written: the next one begins no earlier
    than this one took, after its end, so at least half of the time is that of others.
    """

    grant_id: str
    since: Instant
    until: Instant

    @property
    def next_from(self) -> Instant:
        """When another may begin."""
        return Instant(self.until + (self.until - self.since))
