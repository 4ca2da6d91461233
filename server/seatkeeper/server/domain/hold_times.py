"""When a grant was held for the longest that its pool allows, and is called back for that. Pure."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.core.hold import HoldRule
from seatkeeper.server.domain.reclaims import Instant
from seatkeeper.server.domain.state import Grant


class HoldTimes:
    """What a rule says of grants. Asked of every grant in every plan, so it computes with integers."""

    __slots__ = ("_heeds", "_longest", "_warning", "_within")

    def __init__(self, rule: HoldRule) -> None:
        self._longest = None if rule.longest is None else _millis(rule.longest)
        self._warning = _millis(rule.warning)
        self._within, self._heeds = timedelta(0), 0
        """A length, and the same in milliseconds: nearly all sessions have the same ttl."""

    def ends(self, grant: Grant, extended: timedelta | None) -> Instant | None:
        """Return when a grant has been held for the longest that the pool allows; None: never.

        By the stamp of its grant. It is freed no earlier than the notice allows, which may be later.
        """
        if self._longest is None:
            return None
        added = 0 if extended is None else _millis(extended)
        return Instant(grant.held_since + self._longest + added)

    def begins(self, grant: Grant, extended: timedelta | None) -> Instant | None:
        """Return when a grant is to be called back for that; None: never."""
        within, begins = grant.heeds_within, grant.held_since
        if within is None or self._longest is None:
            return None
        if within != self._within:
            self._within, self._heeds = within, _millis(within)
        held = self._longest - self._warning - self._heeds
        if extended is not None:
            held += _millis(extended)
        # What is called back was held for a moment at least, by the session that has it now.
        return max(grant.granted_at, Instant(begins + held))


def _millis(time: timedelta) -> int:
    return time // timedelta(milliseconds=1)
