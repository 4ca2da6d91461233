"""What happens to seats, sessions, pools and nodes, as lines of the log: one event a change.

What happens once in a while is told at ``info``; what happens for every seat at ``debug``, because a
busy service would fill disks with it. Names are snake_case, facts are fields. Text of clients goes in
as it is: the log escapes it (``logs``).
"""

from __future__ import annotations

import logging
from typing import Protocol

from seatkeeper.core.serving.log_limit import LogLimit
from seatkeeper.server.domain import Denied, Grant, Granted, Outcome, Queued, Released, Ticket
from seatkeeper.server.store.formats import FORMAT, FormatUnsupported


class Session(Protocol):
    """What is told of a session."""

    session_id: str
    holder: str
    project: str


_logger = logging.getLogger("seatkeeper.events")
_unsupported = LogLimit()
USAGE = logging.DEBUG


def happened(event: str, level: int = logging.INFO, /, **facts: object) -> None:
    """Write one event, if the log is to have such."""
    if _logger.isEnabledFor(level):
        _logger.log(level, event, extra=facts)


def record_format_unsupported(error: FormatUnsupported) -> None:
    """Write that a record is of a newer format than this version knows: each at most once in 10 s."""
    if (left_out := _unsupported.passes((error.key, error.record_format))) is not None:
        facts = {"key": error.key, "format": error.record_format, "known": FORMAT}
        happened(
            *("record_format_unsupported", logging.ERROR),
            **facts,
            left_out=left_out,
            do="upgrade this node to the version of the others",
        )


def are_wanted() -> bool:
    """Return whether the log is to have what happens for every seat. Ask before gathering facts."""
    return _logger.isEnabledFor(USAGE)


def session(event: str, of: Session, peer: str) -> None:
    """Write what became of a session."""
    level = logging.INFO if event == "session_lost" else USAGE
    about = {"session_id": of.session_id, "holder": of.holder, "project": of.project}
    happened(event, level, request_id=of.session_id, **about, peer=peer)


def granted(pool: str, grant: Grant, peer: str) -> None:
    """Write that seats were granted."""
    waited = max(0, grant.granted_at - grant.asked_at) / 1000
    _seats("granted", pool, grant, peer=peer, fence=grant.fence, waited_s=waited)


def released(pool: str, grant: Grant, peer: str) -> None:
    """Write that seats were given back."""
    _seats("released", pool, grant, peer=peer, fence=grant.fence)


def expired(pool: str, grant: Grant) -> None:
    """Write that seats are free because their session ended: its holder is gone, or closed it."""
    why = "its session ended"
    happened("expired", logging.INFO, reason=why, **_about(pool, grant), fence=grant.fence)


def gave_up(pool: str, ticket: Ticket) -> None:
    """Write that somebody has waited for as long as it wanted to."""
    wait = None if ticket.wait is None else ticket.wait.total_seconds()
    _seats("gave_up", pool, ticket, wait_s=wait)


def cancelled(pool: str, ticket: Ticket, peer: str) -> None:
    """Write that somebody has left the queue."""
    _seats("cancelled", pool, ticket, peer=peer)


def answered(pool: str, session_id: str, outcome: Outcome, peer: str) -> None:
    """Write what became of a command, where no grant has begun or ended by it."""
    match outcome:
        case Queued(ticket):
            _seats("queued", pool, ticket, peer=peer)
        case Denied(grant_id, reason, message):
            happened(
                *("denied", USAGE),
                pool=pool,
                request_id=grant_id,
                grant_id=grant_id,
                session_id=session_id,
                reason=reason.name,
                why=message,
                peer=peer,
            )
        case Granted() | Released():
            return


def _seats(event: str, pool: str, of: Grant | Ticket, **more: object) -> None:
    happened(event, USAGE, **_about(pool, of), **more)


def _about(pool: str, of: Grant | Ticket) -> dict[str, object]:
    return {
        "pool": pool,
        # The caller's own id for what it asked is the id of the grant.
        "request_id": of.grant_id,
        "grant_id": of.grant_id,
        "session_id": of.session_id,
        "seats": of.seats,
        **of.attribution.facts(),
    }
