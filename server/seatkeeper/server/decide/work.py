"""Work that one holder does at a time, and what those are answered who wait for its end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Set

from seatkeeper.server.domain.commands import Denied, Refusal, WorkEnd
from seatkeeper.server.domain.state import PoolState, Ticket, queue_key
from seatkeeper.server.policy.snapshot import PoolSnapshot


def waiting_for(
    work_key: str, pool: PoolState, gone: Set[str], new: Iterable[Ticket]
) -> list[Ticket]:
    """Return the tickets that wait with a work key, stored or new, in the order of acceptance.

    ``gone``: ids of stored tickets that the decision has ended.
    """
    stored = pool.work_waiting.get(work_key, set()) - gone
    asked = [ticket for ticket in new if ticket.work_key == work_key]
    return sorted([*(pool.tickets[each] for each in stored), *asked], key=queue_key)


def work_ended(ticket: Ticket, end: WorkEnd) -> Denied:
    """Return the answer to a request whose work another holder has ended."""
    message = "another holder has done the same work"
    if end.failure:
        message = f"another holder's work for the same failed: {end.message}"
    return Denied(ticket.grant_id, Refusal.WORK_ENDED, message, work_end=end)


class WorksBegun:
    """The works that one decision begins."""

    def __init__(self, pool: PoolSnapshot) -> None:
        self._pool = pool
        self._begun: set[str] = set()

    def may_begin(self, ticket: Ticket) -> bool:
        """Return whether no other holder does the work of a ticket; it is begun then."""
        work_key = ticket.work_key
        if not work_key:
            return True
        if work_key in self._begun or self._pool.is_work_held(work_key):
            return False
        self._begun.add(work_key)
        return True
