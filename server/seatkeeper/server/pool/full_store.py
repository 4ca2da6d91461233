"""What a node can still do for a pool when the store is full: it deletes, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable

from seatkeeper.server.decide import NOT_IN_TIME, RETRY_LATER
from seatkeeper.server.decide.admission import is_theirs
from seatkeeper.server.domain import Denied, Refusal, Release, Released
from seatkeeper.server.events.usage import UsageEvent, UsageKind, grant_ends, ticket_ends
from seatkeeper.server.pool.context import PoolContext
from seatkeeper.server.pool.inbox import PendingCommand
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.refusals import Refusals
from seatkeeper.server.pool.subscribers import deliver, peer_of
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.pool.writes import deletes_of
from seatkeeper.server.store import Committed, Delete, OutcomeUnknown, StoreError, Write

FULL = (
    "the store is full: seats can be given back, none can be granted until an operator frees "
    "space"
)


class FullStore:
    """Gives seats and places up, and refuses the rest."""

    def __init__(
        self,
        context: PoolContext,
        mirror: PoolMirror,
        waits: WaitTimers,
        changed: Callable[[set[str]], None],
    ) -> None:
        """Delete nothing yet. ``changed`` is called, with the ids concerned, after each change."""
        self._context = context
        self._pool = context.pool
        self._mirror = mirror
        self._waits = waits
        self._changed = changed
        self._refusals = Refusals(context)

    async def answer(self, asks: list[PendingCommand]) -> None:
        """Delete what is given up, by its owner or because its wait has ended; refuse the rest.

        Those of ``asks`` that are answered, which is all unless the store fails, are taken out.

        Deleting a grant without moving the guard is what the end of a lease does: it only frees
        seats, so a decision made on the fuller view stays safe. No watermark is left; while the store
        is full nothing is granted, so no late duplicate is either.
        """
        ending = [ask for ask in asks if self._is_theirs(ask)]
        gone = {ask.command.grant_id: ask.command.session_id for ask in ending}
        usage = [self._freed(ask.command.grant_id, peer_of(ask.listener)) for ask in ending]
        for ticket in self._waits.due(self._mirror.state):
            gone[ticket.grant_id] = ticket.session_id
            denied = Denied(ticket.grant_id, Refusal.NO_SEAT_FREE, NOT_IN_TIME, RETRY_LATER)
            self._mirror.ends[ticket.grant_id] = denied
            now = self._context.clock.now()
            usage.append(ticket_ends(self._pool, ticket, now, denied=denied))
        if gone:
            deletes = deletes_of(self._context.keys, self._pool, gone.keys())
            stays = self._mirror.state.stays.keys() & gone.keys()
            deletes += [Delete(self._context.keys.stay(self._pool, each)) for each in stays]
            committed = await self._commit(deletes)
            touched = self._mirror.committed(deletes, committed.revision)
            for grant_id, session_id in gone.items():
                self._mirror.state.completed.add(session_id, grant_id)
            for ask in ending:
                deliver(ask.listener, self._pool, Released(ask.command.grant_id))
            asks[:] = [ask for ask in asks if ask not in ending]
            self._changed(touched)
            self._context.observer.usage.publish_all(usage)
        for ask in asks:
            denied = Denied(ask.command.grant_id, Refusal.UNAVAILABLE, FULL, RETRY_LATER)
            self._refusals.refuse(ask.command, ask.listener, denied)
        asks.clear()

    async def _commit(self, deletes: list[Write]) -> Committed:
        """Commit, and count what fails."""
        observer = self._context.observer
        try:
            return await self._context.store.commit(deletes)
        except OutcomeUnknown:
            observer.outcome_unknown(self._pool)
            raise
        except StoreError as error:
            observer.store_failed(self._pool, type(error).__name__)
            raise

    def _is_theirs(self, ask: PendingCommand) -> bool:
        """Return whether a command gives back what its session has."""
        command = ask.command
        return isinstance(command, Release) and is_theirs(self._mirror.state, command)

    def _freed(self, grant_id: str, peer: str) -> UsageEvent:
        """Return the event of a release of what there is under ``grant_id``."""
        grant, now = self._mirror.state.grants.get(grant_id), self._context.clock.now()
        if grant is not None:
            return grant_ends(UsageKind.RELEASED, self._pool, grant, now, peer=peer)
        return ticket_ends(self._pool, self._mirror.state.tickets[grant_id], now, peer=peer)
