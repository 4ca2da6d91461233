"""What happens to sessions, pools and nodes, as lines of the log. Seats have usage events.

What happens once in a while is logged at ``info``; what happens for every session or call at ``debug``,
because a busy service would fill disks with it. Names are snake_case, facts are fields. Text of clients
goes in as it is: the log escapes it (``logs``).
"""

from __future__ import annotations

import logging
from typing import Protocol

from seatkeeper.core.serving.log_limit import LogLimit
from seatkeeper.server.store.formats import RecordUnreadable


class LoggedSession(Protocol):
    """What is logged of a session."""

    session_id: str
    holder: str
    project: str


_logger = logging.getLogger("seatkeeper.events")
_unreadable = LogLimit()
USAGE = logging.DEBUG


def happened(event: str, level: int = logging.INFO, /, **facts: object) -> None:
    """Write one event, if the log is to have such."""
    if _logger.isEnabledFor(level):
        _logger.log(level, event, extra=facts)


def record_unreadable(error: RecordUnreadable) -> None:
    """Write that this version does not understand a record: each at most once in 10 s."""
    if (left_out := _unreadable.passes((error.key, str(error)))) is not None:
        facts = {"key": error.key, **error.facts, "left_out": left_out}
        happened(error.event, logging.ERROR, **facts)


def are_wanted() -> bool:
    """Return whether the log has events of single seats and calls. Ask before gathering facts."""
    return _logger.isEnabledFor(USAGE)


def session(event: str, of: LoggedSession, peer: str) -> None:
    """Write what became of a session."""
    level = logging.INFO if event == "session_lost" else USAGE
    about = {"session_id": of.session_id, "holder": of.holder, "project": of.project}
    happened(event, level, request_id=of.session_id, **about, peer=peer)
