"""Usage events out of the store's history: what became of seats, for readers that decide nothing.

The history has every begin and end of a grant and of a ticket, and why it ended:

===========================  =======================================================================
what a revision shows        event
===========================  =======================================================================
a new grant                  GRANTED
a new ticket                 QUEUED
a deleted grant, a guard     RECLAIMED where the guard says so, else RELEASED
a deleted grant, no guard    EXPIRED, with the session's own record; RELEASED without: etcd was full
a deleted ticket, a guard    nothing, where it was granted; GAVE_UP or DENIED where the session's
                             watermark says so; else CANCELLED
a deleted ticket, no guard   CANCELLED
a refusal in the guard       DENIED
===========================  =======================================================================

What it does not have: refusals of decisions that wrote nothing, and of a node that asked no decision
(a full queue, a malformed request, an unknown pool, a node that stops): a refusal never costs a write.
No request that was refused for want of a seat is among them. More than ``facts.REFUSED_MAX`` refusals
of one decision are counted only. While etcd is full no reason can be written: then a release has no
time, and a wait that ran out is CANCELLED.

The end of a lease has no time in the history; the reader says when it saw it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from google.protobuf.message import DecodeError

from seatkeeper.server.domain import Denied, Grant, Instant, Ticket
from seatkeeper.server.events.facts import NO_FACTS, Facts, decode_facts
from seatkeeper.server.events.usage import (
    SESSION_ENDED,
    TAKEN_OVER,
    UsageEvent,
    UsageKind,
    grant_begins,
    grant_ends,
    request_refused,
    ticket_begins,
    ticket_ends,
)
from seatkeeper.server.store import Change, Listing, records
from seatkeeper.server.store.formats import RecordDamaged, RecordUnreadable
from seatkeeper.server.store.keys import Keys


@dataclass(slots=True)
class _Revision:
    """The changes of one pool at one revision."""

    grants: dict[str, Grant] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    grants_ended: list[str] = field(default_factory=list)
    tickets_ended: list[str] = field(default_factory=list)
    denied: dict[str, Denied] = field(default_factory=dict)
    facts: Facts | None = None
    """None: no decision was made."""
    unreadable: list[RecordUnreadable] = field(default_factory=list)


class UsageHistory:
    """Turns revisions into usage events. Knows the grants and tickets there are, and nothing else."""

    def __init__(self, keys: Keys | None = None) -> None:
        """Begin with an empty store. ``begin`` begins later in its history."""
        self._keys = keys or Keys()
        self._seats = self._keys.seats("")[:-1]
        self._grants: dict[tuple[str, str], Grant] = {}
        self._tickets: dict[tuple[str, str], Ticket] = {}
        self.unreadable: list[RecordUnreadable] = []
        """Records of what was read last that this version does not understand: passed over."""

    def begin(self, listing: Listing) -> None:
        """Go on after a listing of all that is below the prefix. What it has is no event."""
        self._grants.clear()
        self._tickets.clear()
        self.unreadable.clear()
        changes = (Change(each.key, each, listing.revision) for each in listing.entries)
        for pool, revision in self._by_pool(changes).items():
            self._take(pool, revision)

    def fence_of(self, pool: str, grant_id: str) -> int | None:
        """Return the fence of a grant that is held; None: it is not."""
        grant = self._grants.get((pool, grant_id))
        return None if grant is None else grant.fence

    def read(self, changes: Sequence[Change], seen_at: Instant) -> list[UsageEvent]:
        """Return the events of one revision: all of its changes below the prefix.

        ``seen_at`` is when the end of a session is taken to have been.
        """
        sessions = self._keys.session("")
        ended = {
            change.key.removeprefix(sessions)
            for change in changes
            if change.entry is None and change.key.startswith(sessions)
        }
        events: list[UsageEvent] = []
        self.unreadable.clear()
        for pool, revision in self._by_pool(changes).items():
            events += self._ends(pool, revision, ended, seen_at)
            events += self._begins(pool, revision)
            for ticket, denied in (revision.facts or NO_FACTS).refused:
                events.append(request_refused(pool, ticket, denied))
            self._take(pool, revision)
        return events

    def _by_pool(self, changes: Iterable[Change]) -> dict[str, _Revision]:
        pools: dict[str, _Revision] = {}
        for change in changes:
            if not change.key.startswith(self._seats):
                continue
            pool, *kind_and_rest = change.key.removeprefix(self._seats).split("/", 2)
            if not kind_and_rest:
                continue  # a key of another program
            kind, *rest = kind_and_rest
            _note(pools.setdefault(pool, _Revision()), kind, "".join(rest), change)
        return pools

    def _ends(
        self, pool: str, revision: _Revision, sessions_ended: set[str], seen_at: Instant
    ) -> Iterator[UsageEvent]:
        facts = revision.facts
        at = facts.decided_at if facts is not None and facts.decided_at else seen_at
        for grant_id in revision.grants_ended:
            grant = self._grants.get((pool, grant_id))
            if grant is None:
                continue
            if facts is None and grant.session_id in sessions_ended:
                kind, reason = UsageKind.EXPIRED, SESSION_ENDED
            elif facts is not None and grant.fence in facts.reclaimed:
                is_taken_over = grant.fence in facts.taken_over
                kind, reason = UsageKind.RECLAIMED, TAKEN_OVER if is_taken_over else ""
            else:
                kind, reason = UsageKind.RELEASED, ""
            yield grant_ends(kind, pool, grant, at, reason=reason)
        for grant_id in revision.tickets_ended:
            ticket = self._tickets.get((pool, grant_id))
            if ticket is None or grant_id in revision.grants:
                continue
            denied = revision.denied.get(grant_id)
            reason = SESSION_ENDED if ticket.session_id in sessions_ended else ""
            yield ticket_ends(pool, ticket, at, denied=denied, reason=reason)

    def _begins(self, pool: str, revision: _Revision) -> Iterator[UsageEvent]:
        # One that is known is written again when an agent claims it.
        for grant_id, grant in revision.grants.items():
            if (pool, grant_id) not in self._grants:
                yield grant_begins(pool, grant)
        for grant_id, ticket in revision.tickets.items():
            if (pool, grant_id) not in self._tickets:
                yield ticket_begins(pool, ticket)

    def _take(self, pool: str, revision: _Revision) -> None:
        self.unreadable += revision.unreadable
        for grant_id in revision.grants_ended:
            self._grants.pop((pool, grant_id), None)
        for grant_id in revision.tickets_ended:
            self._tickets.pop((pool, grant_id), None)
        self._grants |= {(pool, name): grant for name, grant in revision.grants.items()}
        self._tickets |= {(pool, name): ticket for name, ticket in revision.tickets.items()}


def usage_events(
    changes: Iterable[Change], keys: Keys | None = None, *, seen_at: Instant
) -> list[UsageEvent]:
    """Return the events of a history: all changes below the prefix, in order, from the first on."""
    history = UsageHistory(keys)
    return [
        event
        for _, revision in groupby(changes, key=attrgetter("revision"))
        for event in history.read(list(revision), seen_at)
    ]


def _note(revision: _Revision, kind: str, name: str, change: Change) -> None:
    try:
        _decode(revision, kind, name, change)
    except RecordUnreadable as error:
        revision.unreadable.append(error.under(change.key))
    except DecodeError:
        revision.unreadable.append(RecordDamaged(change.key, kind))


def _decode(revision: _Revision, kind: str, name: str, change: Change) -> None:
    entry = change.entry
    match kind:
        case "grants" if entry is None:
            revision.grants_ended.append(name)
        case "grants" if entry is not None:
            revision.grants[name] = records.decode_grant(name, entry.value)
        case "queue" if entry is None:
            revision.tickets_ended.append(name)
        case "queue" if entry is not None:
            revision.tickets[name] = records.decode_ticket(name, entry.value)
        case "marks" if entry is not None:
            denied = records.decode_watermark(entry.value).denied
            revision.denied |= {each.grant_id: each for each in denied}
        case "guard" if entry is not None:
            revision.facts = decode_facts(entry.value)
