"""``UsageEvent``: one thing that happened to a request for seats.

Logs and metrics are made from these and from nothing else, so they agree. A node publishes an event
when it knows that the event is true, and once (``feed``):

- what a decision did, on the node whose commit made it, after the commit;
- the end of a session's grants and tickets, which needs no decision, on the pool's owner;
- a refusal, on the node that refused.

The store's history has the same events, but for refusals that wrote nothing (``history``). It is the
exact source: a node that dies between its commit and its log line publishes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from seatkeeper.server.domain import (
    Acquire,
    Command,
    Denied,
    Grant,
    Instant,
    LotMarks,
    Refusal,
    TakeOver,
    Ticket,
)
from seatkeeper.server.domain.attribution import Attribution
from seatkeeper.server.wire.denials import denial_name

SESSION_ENDED = "SESSION_ENDED"
"""Reason of an end without a decision: the session's lease ran out, or the session was closed."""
TAKEN_OVER = "TAKEN_OVER"
"""Reason of an end by force: the holder has the seats in another session of its own."""
NOT_ATTRIBUTED = Attribution("", "")
"""Of a request that was refused before it was known whose it is."""


class UsageKind(StrEnum):
    """What happened. The values are the names of log events, and labels of metrics."""

    QUEUED = "queued"
    """A request got a ticket."""
    GRANTED = "granted"
    """Seats are held."""
    RELEASED = "released"
    """The holder gave the seats back."""
    EXPIRED = "expired"
    """The holder's session ended, and its seats are free."""
    RECLAIMED = "reclaimed"
    """An administrator freed the seats."""
    CANCELLED = "cancelled"
    """A ticket ended because its client gave it up, or because its session ended."""
    GAVE_UP = "gave_up"
    """A ticket ended because it had waited for as long as its client wanted."""
    DENIED = "denied"
    """A request was refused."""


BEGINS = frozenset({UsageKind.GRANTED})
ENDS = frozenset({UsageKind.RELEASED, UsageKind.EXPIRED, UsageKind.RECLAIMED})


# One is made for every seat that is taken or given back: a tuple costs a third of a frozen dataclass.
class UsageEvent(NamedTuple):
    """One happening."""

    kind: UsageKind
    pool: str
    """The pool's name as it was asked for; there may be none of that name."""
    grant_id: str
    """The caller's id for the request; empty where the request was refused unread."""
    session_id: str
    attribution: Attribution
    seats: int
    at: Instant
    """When it happened, by the clock of the node that decided or saw it. For people."""
    fence: int = 0
    """The grant's; 0: there is no grant."""
    reason: str = ""
    """Why it ended or was refused: a name of ``DenialReason``, or ``SESSION_ENDED``. Of a grant that an
    advisory pool made and would not have made otherwise: the rule."""
    hint: str = ""
    """The reason for people."""
    since: Instant | None = None
    """For GRANTED and the end of a ticket: when it was asked for. For the end of a grant: when it was
    granted. None: it never waited, or it is not known."""
    peer: str = ""
    """Address of the client, where the node that published it knew it. Not in the history."""
    marks: LotMarks | None = None
    """Of a grant: the lots that its seats come from; None: from none."""

    @property
    def seconds(self) -> float | None:
        """How long it was waited for, or held, by the clocks of nodes; None: not known."""
        return None if self.since is None else max(0, self.at - self.since) / 1000


def grant_begins(pool: str, grant: Grant, peer: str = "") -> UsageEvent:
    """Return the event of a grant that was made."""
    return UsageEvent(
        UsageKind.GRANTED,
        pool,
        grant.grant_id,
        grant.session_id,
        grant.attribution,
        grant.seats,
        grant.granted_at,
        grant.fence,
        reason="" if grant.mark is None else grant.mark.rule,
        hint="" if grant.mark is None else grant.mark.message,
        since=grant.asked_at,
        peer=peer,
        marks=grant.marks,
    )


def grant_ends(
    kind: UsageKind, pool: str, grant: Grant, at: Instant, *, reason: str = "", peer: str = ""
) -> UsageEvent:
    """Return the event of a grant that ended."""
    return UsageEvent(
        kind,
        pool,
        grant.grant_id,
        grant.session_id,
        grant.attribution,
        grant.seats,
        at,
        grant.fence,
        reason=reason,
        since=grant.granted_at,
        peer=peer,
        marks=grant.marks,
    )


def ticket_begins(pool: str, ticket: Ticket, peer: str = "") -> UsageEvent:
    """Return the event of a request that waits from now on."""
    return UsageEvent(
        UsageKind.QUEUED,
        pool,
        ticket.grant_id,
        ticket.session_id,
        ticket.attribution,
        ticket.seats,
        ticket.queued_at,
        peer=peer,
    )


_KINDS = {
    Refusal.NO_SEAT_FREE: UsageKind.GAVE_UP,
    Refusal.WORK_ENDED: UsageKind.CANCELLED,
}
"""What becomes of tickets that are denied for these reasons; the others are denied."""


def ticket_ends(
    pool: str,
    ticket: Ticket,
    at: Instant,
    *,
    denied: Denied | None = None,
    reason: str = "",
    peer: str = "",
) -> UsageEvent:
    """Return the event of a ticket that ended without a grant.

    ``denied``: why a decision gave it up; None: its client or the end of its session did.
    """
    kind = UsageKind.CANCELLED
    if denied is not None:
        kind = _KINDS.get(denied.reason, UsageKind.DENIED)
    return UsageEvent(
        kind,
        pool,
        ticket.grant_id,
        ticket.session_id,
        ticket.attribution,
        ticket.seats,
        at,
        reason=reason if denied is None else denial_name(denied.reason),
        hint="" if denied is None else denied.message,
        since=ticket.queued_at,
        peer=peer,
    )


def command_refused(
    pool: str, command: Command, denied: Denied, at: Instant, peer: str = ""
) -> UsageEvent:
    """Return the event of a command that was refused."""
    asks = command if isinstance(command, Acquire) else None
    who = Attribution(command.holder, "") if isinstance(command, TakeOver) else NOT_ATTRIBUTED
    return UsageEvent(
        UsageKind.DENIED,
        pool,
        command.grant_id,
        command.session_id,
        who if asks is None else asks.attribution,
        0 if asks is None else asks.seats,
        at,
        reason=denial_name(denied.reason),
        hint=denied.message,
        peer=peer,
    )


def request_refused(pool: str, request: Ticket, denied: Denied) -> UsageEvent:
    """Return the event of a request that was refused, as the history has it."""
    return UsageEvent(
        UsageKind.DENIED,
        pool,
        request.grant_id,
        request.session_id,
        request.attribution,
        request.seats,
        request.queued_at,
        reason=denial_name(denied.reason),
        hint=denied.message,
    )


def unread_refusal(
    reason: str,
    hint: str,
    at: Instant,
    peer: str,
    *,
    grant_id: str = "",
    session_id: str = "",
    attribution: Attribution = NOT_ATTRIBUTED,
) -> UsageEvent:
    """Return the event of a request that was refused before any pool saw it."""
    return UsageEvent(
        UsageKind.DENIED,
        "",
        grant_id,
        session_id,
        attribution,
        0,
        at,
        reason=reason,
        hint=hint,
        peer=peer,
    )
