"""A pool as one node sees it: what decisions are made on.

The state is a plain value with a few indexes, so that a decision costs the same whether ten or
ten thousand tickets wait. Only the mirror changes it; ``decide`` reads.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NewType

from seatkeeper.server.domain.completed import CompletedIds

Instant = NewType("Instant", int)
"""Unix milliseconds by one node's clock. Good for telling people, never for deciding anything."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What an administrator said about a pool."""

    name: str
    seats: int
    description: str = ""


@dataclass(frozen=True, slots=True)
class Guard:
    """The two counters of a pool. They only grow, also across deletion of the pool."""

    fence: int = 0
    ticket_number: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """Seats of a pool held by one session."""

    grant_id: str
    session_id: str
    lease_id: int
    holder: str
    project: str
    seats: int
    priority: int
    fence: int
    asked_at: Instant
    granted_at: Instant
    agent_id: str = ""
    claim_id: str = ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place in a pool's queue."""

    grant_id: str
    session_id: str
    lease_id: int
    holder: str
    project: str
    seats: int
    priority: int
    number: int
    queued_at: Instant
    wait: timedelta | None = None
    """How long it waits before it gives up; None: for ever."""


ServiceKey = tuple[int, int, str]


def service_key(ticket: Ticket) -> ServiceKey:
    """Return what tickets are sorted by: priority first, then the order of acceptance."""
    return (-ticket.priority, ticket.number, ticket.grant_id)


@dataclass(slots=True)
class PoolState:
    """Everything that is known of a pool, with the indexes that decisions need.

    ``spec`` is None when the pool does not exist. ``dead_sessions`` are those whose lease was found
    to have ended before the store's deletions were seen; their tickets are not served.
    """

    spec: PoolSpec | None = None
    guard: Guard = Guard()
    grants: dict[str, Grant] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    finished: CompletedIds = field(default_factory=CompletedIds)
    dead_sessions: set[str] = field(default_factory=set)
    held: int = 0
    tickets_of: Counter[str] = field(default_factory=Counter)
    """How many tickets each holder has."""
    tickets_wanting: Counter[int] = field(default_factory=Counter)
    """How many tickets want each number of seats."""
    _queue: list[ServiceKey] = field(default_factory=list)

    @property
    def free(self) -> int:
        """Seats that can be granted now; 0 while a lowered capacity drains."""
        return max(0, self.spec.seats - self.held) if self.spec else 0

    @property
    def seats_wanted_max(self) -> int:
        """The most seats that a ticket wants; 0: there is no ticket."""
        return max(self.tickets_wanting, default=0)

    def queue(self) -> Iterator[Ticket]:
        """Yield tickets in the order of service."""
        return (self.tickets[key[2]] for key in self._queue)

    def position(self, ticket: Ticket) -> int:
        """Return the ticket's place in the order of service, from 1."""
        return bisect_left(self._queue, service_key(ticket)) + 1

    def head(self) -> Ticket | None:
        """Return the ticket that is served next, whether or not there is a seat for it."""
        return next((t for t in self.queue() if t.session_id not in self.dead_sessions), None)

    def put_grant(self, grant: Grant) -> None:
        """Add a grant, or replace the one of this id."""
        self.remove_grant(grant.grant_id)
        self.grants[grant.grant_id] = grant
        self.held += grant.seats

    def remove_grant(self, grant_id: str) -> Grant | None:
        """Remove and return the grant of this id, if there is one."""
        grant = self.grants.pop(grant_id, None)
        if grant is not None:
            self.held -= grant.seats
        return grant

    def put_ticket(self, ticket: Ticket) -> None:
        """Add a ticket, or replace the one of this id."""
        self.remove_ticket(ticket.grant_id)
        self.tickets[ticket.grant_id] = ticket
        self.tickets_of[ticket.holder] += 1
        self.tickets_wanting[ticket.seats] += 1
        insort(self._queue, service_key(ticket))

    def remove_ticket(self, grant_id: str) -> Ticket | None:
        """Remove and return the ticket of this id, if there is one."""
        ticket = self.tickets.pop(grant_id, None)
        if ticket is not None:
            self.tickets_of[ticket.holder] -= 1
            if not self.tickets_of[ticket.holder]:
                del self.tickets_of[ticket.holder]
            self.tickets_wanting[ticket.seats] -= 1
            if not self.tickets_wanting[ticket.seats]:
                del self.tickets_wanting[ticket.seats]
            del self._queue[bisect_left(self._queue, service_key(ticket))]
        return ticket
