"""What the tests of the server are written with: ids, a clock that is moved, and waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, TypeVar

from tests import processes

from seatkeeper.oracle.history import PoolHistory, read_history, replay
from seatkeeper.server.decide import Decision
from seatkeeper.server.domain import (
    Acquire,
    Attribution,
    Grant,
    Instant,
    PoolSpec,
    Release,
    Ticket,
)
from seatkeeper.server.pool.subscribers import Position, Update
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Change, Delete, MemoryStore, Put, Write, records
from seatkeeper.server.store.keys import Keys

_Attributed = TypeVar("_Attributed", Acquire, Grant, Ticket)
KEYS = Keys("sk")
POOL = "tensorrt"
NOW = Instant(1_700_000_000_000)
TIME_LIMIT = 10.0
"""Seconds after which a condition that does not come true fails its test."""


def uuid7(number: int) -> str:
    """Return the ``number``-th of a rising sequence of valid UUIDv7, 100 ms apart."""
    millis = NOW + 100 * number
    return f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7000-8000-{number:012x}"


class SharedStore(MemoryStore):
    """Outlives the nodes that use it."""

    async def close(self) -> None:
        """Leave it open: the others go on."""


@dataclass
class FakeClock:
    """Stands still until it is moved."""

    unix_millis: int = NOW
    seconds: float = 1000.0

    def now(self) -> Instant:
        return Instant(self.unix_millis)

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, duration: timedelta) -> None:
        self.unix_millis += int(duration.total_seconds() * 1000)
        self.seconds += duration.total_seconds()


eventually = processes.eventually


def acquire(
    number: int,
    session: str = "anna",
    *,
    seats: int = 1,
    priority: int = 0,
    wait: timedelta | None = None,
    may_wait: bool = True,
    lease_id: int = 0,
) -> Acquire:
    """Ask for seats under the ``number``-th grant id."""
    return Acquire(
        grant_id=uuid7(number),
        session_id=session,
        lease_id=lease_id or lease_id_of(session),
        attribution=Attribution(f"{session}@host", "cv", priority),
        seats=seats,
        wait=wait,
        may_wait=may_wait,
    )


def changed(of: _Attributed, **change: Any) -> _Attributed:
    """Return ``of`` with other fields, those of its attribution among them."""
    names = {each.name for each in fields(Attribution)}
    inner = {name: value for name, value in change.items() if name in names}
    outer = {name: value for name, value in change.items() if name not in names}
    return replace(of, attribution=replace(of.attribution, **inner), **outer)


def release(number: int, session: str = "anna", *, lease_id: int = 0) -> Release:
    """Give the ``number``-th grant id up."""
    return Release(uuid7(number), session, lease_id or lease_id_of(session))


def a_grant(
    number: int, *, fence: int = 1, session: str = "anna", seats: int = 1, priority: int = 0
) -> Grant:
    """Return a grant as the store has it."""
    return Grant(
        grant_id=uuid7(number),
        session_id=session,
        lease_id=lease_id_of(session),
        attribution=Attribution(f"{session}@host", "cv", priority),
        seats=seats,
        fence=fence,
        asked_at=NOW,
        granted_at=NOW,
    )


def a_ticket(
    number: int,
    *,
    order: int | None = None,
    session: str = "anna",
    seats: int = 1,
    priority: int = 0,
    wait: timedelta | None = None,
) -> Ticket:
    """Return a ticket as the store has it; ``order`` is its ticket number."""
    return Ticket(
        grant_id=uuid7(number),
        session_id=session,
        lease_id=lease_id_of(session),
        attribution=Attribution(f"{session}@host", "cv", priority),
        seats=seats,
        number=number if order is None else order,
        queued_at=NOW,
        wait=wait,
    )


@dataclass
class Ear:
    """A listener that remembers its events."""

    received: list[Update] = field(default_factory=list)
    expected: list[Grant] = field(default_factory=list)

    def receive(self, pool: str, update: Update) -> None:
        self.received.append(update)

    def expect(self, pool: str, grant: Grant) -> None:
        self.expected.append(grant)

    @property
    def answers(self) -> list[Update]:
        """All but positions in the queue."""
        return [update for update in self.received if not isinstance(update, Position)]

    def of(self, grant_id: str) -> list[Update]:
        """The events of one grant id, positions left out."""
        return [update for update in self.answers if grant_id_of(update) == grant_id]


def grant_id_of(update: Update) -> str:
    """Return the grant id of an event."""
    grant: Grant | None = getattr(update, "grant", None)
    if grant is not None:
        return grant.grant_id
    grant_id: str = update.grant_id  # type: ignore[union-attr]  # the test asked for a grant
    return grant_id


def writes_of(decision: Decision, pool: str = POOL) -> list[Write]:
    """Return what a loop writes for a decision, in its order."""
    return [
        Put(KEYS.guard(pool), records.encode_guard(decision.guard)),
        *(
            Put(KEYS.grant(pool, g.grant_id), records.encode_grant(g), g.lease_id)
            for g in decision.grants
        ),
        *(
            Put(KEYS.ticket(pool, t.grant_id), records.encode_ticket(t), t.lease_id)
            for t in decision.tickets
        ),
        *(
            Put(KEYS.mark(pool, session), records.encode_watermark(mark), mark.lease_id)
            for session, mark in decision.marks.items()
        ),
        *(Delete(KEYS.grant(pool, grant_id)) for grant_id in decision.grants_ended),
        *(Delete(KEYS.ticket(pool, grant_id)) for grant_id in decision.tickets_ended),
    ]


async def create_pool(store: MemoryStore, seats: int, name: str = POOL) -> None:
    """Write a pool's specification, as an administrator does."""
    spec = records.encode_spec(PoolSpec(name, seats))
    await store.commit([Put(KEYS.pool(name), spec)])


async def open_lease(
    store: MemoryStore, session: str, ttl: timedelta = timedelta(hours=1)
) -> None:
    """Make a session's lease."""
    await store.grant_lease(lease_id_of(session), ttl)


async def history(store: MemoryStore) -> PoolHistory:
    """Replay all that the store remembers of the pool."""
    reading = asyncio.create_task(read_history(store, KEYS.prefix))
    while not reading.done():
        await asyncio.sleep(0)
        store.expire_due()  # the watch's sign of life
    return replay(await reading, KEYS.prefix)[POOL]


def in_revisions(revisions: Iterable[Iterable[Change]]) -> list[Change]:
    """Return the changes of consecutive revisions, from 2 on, as a watch delivers them."""
    return [
        Change(change.key, change.entry, number)
        for number, changes in enumerate(revisions, start=2)
        for change in changes
    ]
