"""What becomes of a committed decision: in the view, for clients, and in what is reported."""

from __future__ import annotations

import logging
from collections.abc import Callable

from seatkeeper.server.decide import Decision
from seatkeeper.server.domain import Granted, Moved, Noted, Queued
from seatkeeper.server.events import log as events
from seatkeeper.server.pool.context import PoolContext
from seatkeeper.server.pool.decided import (
    Ended,
    called_back,
    changes_of,
    freed_at_their_day,
    kept_seats_freed,
    overdrawn,
    refusals_of,
    seats_kept,
    seats_returned,
)
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.pool.inbox import PendingCommand
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.subscribers import Listener, Subscribers, deliver, peer_of
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.pool.writes import made_by
from seatkeeper.server.store import Committed, Write


class Delivery:
    """Brings what one pool's decisions have made true to the view and to those who asked."""

    def __init__(
        self,
        context: PoolContext,
        mirror: PoolMirror,
        subscribers: Subscribers,
        waits: WaitTimers,
        changed: Callable[[set[str]], None],
    ) -> None:
        """Deliver nothing yet. ``changed`` is called, with the ids concerned, after each change."""
        self._pool = context.pool
        self._keys = context.keys
        self._clock = context.clock
        self._observer = context.observer
        self._mirror = mirror
        self._subscribers = subscribers
        self._waits = waits
        self._changed = changed

    def presign(self, asks: list[PendingCommand], decision: Decision) -> None:
        """Let the listeners of likely grants get ready for them."""
        listeners = {(a.command.grant_id, a.command.session_id): a.listener for a in asks}
        for grant in decision.grants:
            listener = listeners.get((grant.grant_id, grant.session_id))
            listener = listener or self._subscribers.listener(grant.grant_id)
            if listener is not None:
                listener.expect(self._pool, grant)

    def deliver(
        self,
        asks: list[PendingCommand],
        decision: Decision,
        ended: Ended,
        writes: list[Write],
        decision_id: int,
        sent_at: float,
        committed: Committed,
    ) -> None:
        """Apply what was committed, and notify subscribers.

        Those of ``asks`` that are answered are taken out. ``sent_at``: when the commit was sent, by the
        monotonic clock.
        """
        listeners = {id(ask.command): ask.listener for ask in asks}
        asked_at = {id(ask.command): ask.asked_at for ask in asks}
        for command, outcome in decision.outcomes:
            listener = listeners[id(command)]
            if isinstance(outcome, Queued):
                self._waits.asked(command, asked_at[id(command)])
            if isinstance(listener, Forwarded):
                listener.decided(outcome, committed.revision)
            elif isinstance(outcome, Granted | Queued):
                self._subscribers.attach(command, listener)
        # Before the changes are published: then some are not subscribed any more.
        peers = self._peers(decision, ended, listeners) if events.are_wanted() else {}
        gone = self._mirror.expired_ids.copy()
        made = made_by(self._keys, self._pool, decision, decision_id)
        touched = self._mirror.committed(writes, committed.revision, made, is_whole=True)
        touched.update(command.grant_id for command, _ in decision.outcomes)
        self._changed(touched)
        for command, outcome in decision.outcomes:
            listener = listeners[id(command)]
            if not isinstance(outcome, Granted | Queued | Moved | Noted) and not isinstance(
                listener, Forwarded
            ):
                deliver(listener, self._pool, outcome)
        self._observer.committed(
            self._pool,
            commands=len(asks) - len(decision.deferred),
            writes=len(writes),
            seconds=self._clock.monotonic() - sent_at,
        )
        usage, pool = self._observer.usage, self._pool
        for reclaim_said in called_back(pool, decision, self._mirror.state):
            events.happened("seats_called_back", **reclaim_said)
        for kept in seats_kept(decision):
            events.happened("seats_kept", pool=pool, **kept)
        for returned in seats_returned(decision):
            events.happened("seats_returned", pool=pool, **returned)
        for freed in kept_seats_freed(decision):
            events.happened("kept_seats_freed", pool=pool, **freed)
        for at_its_day in freed_at_their_day(pool, decision, ended):
            events.happened("borrowed_seat_freed", **at_its_day)
        for over in overdrawn(pool, decision):
            events.happened("overdraft_granted", logging.WARNING, **over)
        usage.publish_all(changes_of(pool, decision, ended, gone=gone, peers=peers))
        usage.publish_all(refusals_of(pool, decision, peers))
        deferred = set(map(id, decision.deferred))
        asks[:] = [ask for ask in asks if id(ask.command) in deferred]

    def _peers(
        self, decision: Decision, ended: Ended, listeners: dict[int, Listener]
    ) -> dict[str, str]:
        """Return the addresses of the clients that a decision is about, by grant id."""
        ids = [grant.grant_id for grant in decision.grants]
        ids += [ticket.grant_id for ticket, *_ in ended.tickets]
        peers = {each: peer_of(self._subscribers.listener(each)) for each in ids}
        for command, _ in decision.outcomes:
            if peer := peer_of(listeners[id(command)]):
                peers[command.grant_id] = peer
        return peers
