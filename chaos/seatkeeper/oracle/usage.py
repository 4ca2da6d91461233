"""Who had seats, and who waited for them in vain, by the store's history: the ledger's checker.

It reads the same history as the ledger, and shares no code with it: no event of a node, no usage event.
A request is known by its id, a grant by its fence; where a row stands, it says by revisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import PREFIX, located, read_grant, read_ticket
from seatkeeper.server.store import Change
from seatkeeper.v1.seat_pb2 import DenialReason

GAVE_UP = "gave_up"
DENIED = "denied"
CANCELLED = "cancelled"
RELEASED = "released"
RECLAIMED = "reclaimed"
EXPIRED = "expired"
_NO_SEAT_FREE = "NO_SEAT_FREE"


@dataclass(frozen=True, slots=True)
class UsedSeats:
    """Seats that one request had."""

    pool: str
    grant_id: str
    fence: int
    holder: str
    project: str
    seats: int
    granted_at: int
    from_revision: int
    until_revision: int | None = None
    """At which they were free; None: they are held."""
    how: str = ""
    """Why they were free; empty: they are held."""


@dataclass(frozen=True, slots=True)
class UnservedRequest:
    """A request that waits, or that ended without seats."""

    pool: str
    grant_id: str
    holder: str
    project: str
    seats: int
    asked_at: int
    from_revision: int
    until_revision: int | None = None
    how: str = ""


@dataclass(slots=True)
class Usage:
    """What a history has of both."""

    used: list[UsedSeats] = field(default_factory=list)
    unserved: list[UnservedRequest] = field(default_factory=list)


def read_usage(changes: Iterable[Change], prefix: str = PREFIX) -> Usage:
    """Read a history from its first revision on."""
    reading = _Reading(prefix)
    for revision, at_once in groupby(changes, key=attrgetter("revision")):
        reading.read(revision, list(at_once))
    return reading.usage()


class _Reading:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._held: dict[tuple[str, str], UsedSeats] = {}
        self._waiting: dict[tuple[str, str], UnservedRequest] = {}
        self._over = Usage()

    def usage(self) -> Usage:
        return Usage(
            [*self._over.used, *self._held.values()],
            [*self._over.unserved, *self._waiting.values()],
        )

    def read(self, revision: int, changes: list[Change]) -> None:
        facts: dict[str, state_pb2.DecisionFacts] = {}
        denied: dict[str, str] = {}
        placed = list(located(changes, self._prefix))
        ended_sessions = {
            change.key.rpartition("/")[2]
            for change in changes
            if change.entry is None and change.key.startswith(f"{self._prefix}/sessions/")
        }
        for pool, kind, _, change in placed:
            if change.entry is None:
                continue
            if kind == "guard":
                record = state_pb2.GuardRecord.FromString(change.entry.value)
                said = state_pb2.DecisionFacts.FromString(record.facts)
                is_its_own = said.decision_id == record.decision_id
                facts[pool] = said if is_its_own else state_pb2.DecisionFacts()
            elif kind == "marks":
                mark = state_pb2.MarkRecord.FromString(change.entry.value)
                for each in mark.denied:
                    denied[each.grant_id] = DenialReason.Name(each.reason).removeprefix(
                        "DENIAL_REASON_"
                    )
        granted = {
            name for _, kind, name, change in placed if kind == "grants" and change.entry
        }
        for pool, kind, name, change in placed:
            if change.entry is None and kind == "grants":
                self._free(pool, name, revision, facts.get(pool), ended_sessions)
            elif change.entry is None and kind == "queue":
                self._leave(pool, name, revision, denied, name in granted)
        for pool, kind, name, change in placed:
            if change.entry is not None and kind == "grants":
                self._have(pool, name, revision, change.entry.value)
            elif change.entry is not None and kind == "queue":
                self._wait(pool, name, revision, change.entry.value)
        for pool, decided in facts.items():
            for refused in decided.refused:
                self._refuse(pool, revision, refused)

    def _have(self, pool: str, name: str, revision: int, value: bytes) -> None:
        if (pool, name) not in self._held:
            grant = read_grant(name, value)
            self._held[pool, name] = UsedSeats(
                *(pool, name, grant.fence, grant.holder, grant.project, grant.seats),
                *(grant.granted_at_millis, revision),
            )

    def _wait(self, pool: str, name: str, revision: int, value: bytes) -> None:
        if (pool, name) not in self._waiting:
            ticket = read_ticket(name, value)
            self._waiting[pool, name] = UnservedRequest(
                *(pool, name, ticket.holder, ticket.project, ticket.seats),
                *(ticket.queued_at_millis, revision),
            )

    def _free(
        self,
        pool: str,
        name: str,
        revision: int,
        facts: state_pb2.DecisionFacts | None,
        ended_sessions: set[str],
    ) -> None:
        held = self._held.pop((pool, name), None)
        if held is None:
            return
        how = RELEASED
        if facts is not None and held.fence in facts.reclaimed_fences:
            how = RECLAIMED
        elif facts is None and ended_sessions:
            how = EXPIRED
        self._over.used.append(replace(held, until_revision=revision, how=how))

    def _leave(
        self, pool: str, name: str, revision: int, denied: dict[str, str], served: bool
    ) -> None:
        waited = self._waiting.pop((pool, name), None)
        if waited is None or served:
            return
        how = CANCELLED if name not in denied else DENIED
        if denied.get(name) == _NO_SEAT_FREE:
            how = GAVE_UP
        elif denied.get(name) == "WORK_ENDED":
            how = CANCELLED
        self._over.unserved.append(replace(waited, until_revision=revision, how=how))

    def _refuse(self, pool: str, revision: int, refused: state_pb2.RefusedRequest) -> None:
        asked = refused.request
        self._over.unserved.append(
            UnservedRequest(
                *(pool, refused.grant_id, asked.holder, asked.project, asked.seats),
                *(asked.queued_at_millis, revision, revision, DENIED),
            )
        )
