"""Who holds and waits, beyond the records of a pool.

That is what their programs said of themselves, and until when their sessions live: for people who
look. Nothing is decided by it, so what cannot be read in time is left out.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.sessions.sessions import Session, Sessions
from seatkeeper.server.store import Store, StoreError
from seatkeeper.v1 import pool_service_pb2, seat_pb2

SESSIONS_MAX = 256
"""Most sessions of one pool that are looked up; those of the first in the message."""
AT_ONCE_MAX = 16
REMEMBERED_SECONDS = 2.0
REMEMBERED_MAX = 4096
SECONDS_MAX = 3.0
"""Longest that all of them together may take."""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What is known of a session."""

    client: seat_pb2.ClientInfo | None
    expires_at: int | None
    """Unix milliseconds, by this node's clock."""


class Holders:
    """Looks sessions up, for those who look at pools."""

    def __init__(self, store: Store, sessions: Sessions, clock: Clock) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, SessionFacts]] = OrderedDict()

    async def session(self, session_id: str) -> Session | None:
        """Return a session, as the store has it; None: there is none. Raises ``StoreError``."""
        return await self._sessions.look(session_id)

    async def add_to(self, pool: pool_service_pb2.Pool) -> None:
        """Add to the grants and tickets of ``pool`` what is known of their sessions."""
        wanted = [grant.session_id for grant in pool.grants]
        wanted += [ticket.session_id for ticket in pool.tickets]
        # What is borrowed is of no session.
        facts = await self._facts(list(dict.fromkeys(filter(None, wanted)))[:SESSIONS_MAX])
        for grant in pool.grants:
            if (found := facts.get(grant.session_id)) is None:
                continue
            if found.expires_at is not None:
                grant.expires_at.FromMilliseconds(found.expires_at)
            if found.client is not None:
                grant.client.CopyFrom(found.client)
        for ticket in pool.tickets:
            found = facts.get(ticket.session_id)
            if found is not None and found.client is not None:
                ticket.client.CopyFrom(found.client)

    async def _facts(self, session_ids: Iterable[str]) -> Mapping[str, SessionFacts]:
        now = time.monotonic()
        found: dict[str, SessionFacts] = {}
        missing = []
        for session_id in session_ids:
            known = self._known.get(session_id)
            if known is not None and now < known[0] + REMEMBERED_SECONDS:
                found[session_id] = known[1]
            else:
                missing.append(session_id)
        limit = asyncio.Semaphore(AT_ONCE_MAX)

        async def look(session_id: str) -> None:
            async with limit:
                try:
                    facts = await self._look(session_id)
                except StoreError:
                    return
            found[session_id] = facts
            self._remember(session_id, facts)

        looking = [asyncio.create_task(look(each)) for each in missing]
        if looking:
            _, late = await asyncio.wait(looking, timeout=SECONDS_MAX)
            for task in late:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)
        return found

    async def _look(self, session_id: str) -> SessionFacts:
        session = await self._sessions.look(session_id)
        if session is None:
            return SessionFacts(None, None)
        left = await self._store.lease_remaining(session.lease_id)
        if left is None:
            return SessionFacts(session.client, None)
        # Whole seconds, rounded down: it ends within one more.
        ends = left + timedelta(seconds=1)
        return SessionFacts(
            session.client, self._clock.now() + ends // timedelta(milliseconds=1)
        )

    def _remember(self, session_id: str, facts: SessionFacts) -> None:
        self._known[session_id] = (time.monotonic(), facts)
        self._known.move_to_end(session_id)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
