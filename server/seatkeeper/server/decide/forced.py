"""What an administrator ends of others: whether it is as it was seen, what its holder gets. Pure."""

from __future__ import annotations

from seatkeeper.server.domain.commands import Denied, Forced, ForcedEnd, Refusal
from seatkeeper.server.domain.state import Grant, Ticket

NOTHING_THERE = "nothing waits or holds seats under this id any more: it has ended by itself"


def not_as_seen(
    command: ForcedEnd, found: Grant | Ticket | None, *, was_forced: bool
) -> Denied | None:
    """Return why nothing is ended; None: it is to be ended, or has ended already.

    ``was_forced``: an administrator has ended it before, so that the same command sent again after a
    lost answer is answered as the first one.
    """
    grant_id = command.grant_id
    if found is None or found.session_id != command.session_id:
        return None if was_forced else Denied(grant_id, Refusal.FINISHED, NOTHING_THERE)
    if isinstance(found, Ticket) and command.fence:
        return Denied(grant_id, Refusal.OTHER_TERMS, "it waits, and holds no seat")
    if isinstance(found, Grant) and found.fence != command.fence:
        message = f"it holds seats by now, under fence {found.fence}"
        return Denied(grant_id, Refusal.OTHER_TERMS, message)
    return None


def removed(ticket: Ticket, reason: str) -> Denied:
    """Return the answer to a request that is taken out of the queue."""
    message = f"an administrator took the request out of the queue: {reason}"
    return Denied(ticket.grant_id, Refusal.REMOVED, message)


def taken_back(grant: Grant, reason: str) -> Forced:
    """Return what the holder of a grant receives whose seats are freed."""
    return Forced(grant.grant_id, f"an administrator took the seats back: {reason}")
