"""Usage events as lines of the log: the event's kind is the line's name, facts are fields."""

from __future__ import annotations

import logging

from seatkeeper.server.events.usage import ENDS, UsageEvent, UsageKind

_logger = logging.getLogger("seatkeeper.events")
RARE = frozenset({UsageKind.EXPIRED, UsageKind.RECLAIMED})
"""Logged at ``info``. A busy service would fill disks with the others: they are logged at ``debug``."""


def log_usage(event: UsageEvent) -> None:
    """Write one event, if the log is to have such."""
    level = logging.INFO if event.kind in RARE else logging.DEBUG
    if _logger.isEnabledFor(level):
        _logger.log(level, event.kind, extra=facts_of(event))


def facts_of(event: UsageEvent) -> dict[str, object]:
    """Return the fields of an event's line. Those that say nothing are left out."""
    facts: dict[str, object] = {
        "pool": event.pool,
        # The caller's own id for what it asked is the id of the grant.
        "request_id": event.grant_id,
        "grant_id": event.grant_id,
        "session_id": event.session_id,
        **event.attribution.facts(),
        "seats": event.seats,
    }
    if event.fence:
        facts["fence"] = event.fence
    if event.marks is not None:
        facts["lots"] = event.marks.lines()
    if event.reason:
        facts["reason"] = event.reason
    if event.hint:
        facts["hint"] = event.hint
    if (seconds := event.seconds) is not None:
        facts["held_s" if event.kind in ENDS else "waited_s"] = seconds
    if event.peer:
        facts["peer"] = event.peer
    return facts
