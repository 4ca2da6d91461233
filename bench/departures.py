"""Why each ticket left the queue, and whether a place was ever lost, by the store's own history.

A ticket may leave a queue because it was granted, because its owner released or cancelled it, because
its time to give up had come, or with its session when the client closed that. The first three are
decisions: they rewrite the guard, and the last two of them are remembered in the session's watermark. A
ticket that went any other way was lost, above all with a lease that ran out although its client was
there. Grants are looked at in the same way.

Whether a session was closed or ran out, the history does not show: the caller says which were closed.
Pure; ``seatkeeper.oracle.history`` reads the changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby

from seatkeeper.oracle.stored import (
    PREFIX,
    StoredGrant,
    StoredTicket,
    located,
    read_completed,
    read_grant,
    read_ticket,
)
from seatkeeper.server.store import Change, Entry


class Fate(Enum):
    """How a ticket left the queue."""

    GRANTED = "granted"
    GIVEN_UP = "given up"
    """Released or cancelled by its owner, or its time to give up had come."""
    CLOSED = "closed"
    """Its client ended the session."""
    LOST = "lost"


@dataclass(slots=True)
class Departures:
    """What became of the tickets and grants of one pool."""

    fates: Counter[Fate] = field(default_factory=Counter)
    lost_tickets: list[StoredTicket] = field(default_factory=list)
    lost_grants: list[StoredGrant] = field(default_factory=list)
    """Grants that ended, and neither by a release nor with a session that was closed."""
    order_inversions: int = 0
    """Grants made while a ticket of the same project and priority that came earlier waited on."""
    waiting: int = 0
    """Tickets at the last revision."""


def departures(
    changes: Iterable[Change],
    pool: str,
    *,
    closed_sessions: Container[str] = frozenset(),
    prefix: str = PREFIX,
) -> Departures:
    """Say how every ticket and grant of ``pool`` ended.

    ``changes`` are as for `seatkeeper.oracle.history.replay`: all of them, in order of revisions.
    """
    ledger = _Ledger(closed_sessions)
    for _, together in groupby(changes, key=lambda change: change.revision):
        step = _Step()
        for name, kind, key, change in located(together, prefix):
            if name == pool:
                step.note(kind, key, change)
        ledger.take(step)
    ledger.found.waiting = len(ledger.waiting)
    return ledger.found


@dataclass(slots=True)
class _Step:
    """The changes of one revision."""

    decided: bool = False
    granted: dict[str, StoredGrant] = field(default_factory=dict)
    queued: dict[str, StoredTicket] = field(default_factory=dict)
    grants_ended: list[str] = field(default_factory=list)
    tickets_ended: list[str] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, name: str, change: Change) -> None:
        match kind, change.entry:
            case "guard", Entry():
                self.decided = True
            case "grants", None:
                self.grants_ended.append(name)
            case "grants", Entry(value=value):
                self.granted[name] = read_grant(name, value)
            case "queue", None:
                self.tickets_ended.append(name)
            case "queue", Entry(value=value):
                self.queued[name] = read_ticket(name, value)
            case "marks", Entry(value=value):
                self.marks[name] = read_completed(value)


@dataclass(slots=True)
class _Ledger:
    """A pool as of the last revision taken."""

    closed_sessions: Container[str]
    found: Departures = field(default_factory=Departures)
    held: dict[str, StoredGrant] = field(default_factory=dict)
    waiting: dict[str, StoredTicket] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)

    def take(self, step: _Step) -> None:
        self.marks.update(step.marks)
        ended = {name: self.waiting.pop(name, None) for name in step.tickets_ended}
        for name, ticket in ended.items():
            if ticket is not None:
                fate = Fate.GRANTED if name in step.granted else self._end(step, ticket)
                self.found.fates[fate] += 1
                if fate is Fate.LOST:
                    self.found.lost_tickets.append(ticket)
        for name in step.grants_ended:
            grant = self.held.pop(name, None)
            if grant is not None and self._end(step, grant) is Fate.LOST:
                self.found.lost_grants.append(grant)
        for name, grant in step.granted.items():
            if name not in self.held and self._is_inversion(grant, ended.get(name)):
                self.found.order_inversions += 1
        self.held |= step.granted
        self.waiting |= step.queued

    def _end(self, step: _Step, gone: StoredTicket | StoredGrant) -> Fate:
        if step.decided and self.marks.get(gone.session_id, "") >= gone.grant_id:
            return Fate.GIVEN_UP
        if not step.decided and gone.session_id in self.closed_sessions:
            return Fate.CLOSED
        return Fate.LOST

    def _is_inversion(self, grant: StoredGrant, ticket: StoredTicket | None) -> bool:
        rivals = [
            other.number
            for other in self.waiting.values()
            if (other.project, other.priority) == (grant.project, grant.priority)
        ]
        # A grant that never had a ticket was asked for after all those there are.
        return bool(rivals) and (ticket is None or min(rivals) < ticket.number)
