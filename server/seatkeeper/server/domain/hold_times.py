"""When a grant was held for the longest that its pool allows, and is called back for that. Pure."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.core.hold import HoldRule
from seatkeeper.server.domain.reclaims import Instant
from seatkeeper.server.domain.state import Grant


def hold_begins(rule: HoldRule, grant: Grant, extended: timedelta) -> Instant | None:
    """Return when a grant is to be called back for being held for the longest; None: never."""
    ends = hold_ends(rule, grant, extended)
    if ends is None or grant.heeds_within is None:
        return None
    begins = ends - _millis(rule.warning + grant.heeds_within)
    return Instant(max(grant.granted_at, begins))


def hold_ends(rule: HoldRule, grant: Grant, extended: timedelta) -> Instant | None:
    """Return when a grant has been held for the longest that the pool allows; None: never.

    By the stamp of its grant. It is freed no earlier than the notice allows, which may be later.
    """
    if rule.longest is None:
        return None
    return Instant(grant.granted_at + _millis(rule.longest + extended))


def _millis(time: timedelta) -> int:
    return time // timedelta(milliseconds=1)
