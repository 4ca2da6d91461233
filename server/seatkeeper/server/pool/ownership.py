"""Which node decides for a pool, and how a batch of commands reaches it.

What was forwarded to this node is decided here: the node that sent it takes this one for the owner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from seatkeeper.server.domain import (
    Command,
    Denied,
    Grant,
    Granted,
    Moved,
    Noted,
    Queued,
    Refusal,
    Release,
    Released,
    TakeOver,
)
from seatkeeper.server.events import log as events
from seatkeeper.server.events.usage import (
    SESSION_ENDED,
    UsageKind,
    grant_ends,
    ticket_ends,
)
from seatkeeper.server.pool.context import PoolContext
from seatkeeper.server.pool.forwarder import Forwarded, Forwarder
from seatkeeper.server.pool.inbox import PendingCommand
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.subscribers import Subscribers, deliver, peer_of
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.pool.writes import write_of
from seatkeeper.server.routing.peers import Decided, PeerSilent

REPORTED_AT_ONCE = 200
"""Expired grants and tickets that are reported without a turn of the event loop."""


class Ownership:
    """One pool's owner, as this node sees it."""

    def __init__(
        self,
        context: PoolContext,
        forwarder: Forwarder | None,
        mirror: PoolMirror,
        subscribers: Subscribers,
        waits: WaitTimers,
        changed: Callable[[set[str]], None],
    ) -> None:
        """Forward nothing yet. ``changed`` is called with the ids on which the owner has decided."""
        self.forwarder = forwarder
        """How to have other nodes decide; None: there are no owners, and each node decides itself."""
        self._pool = context.pool
        self._keys = context.keys
        self._clock = context.clock
        self._observer = context.observer
        self._mirror = mirror
        self._subscribers = subscribers
        self._waits = waits
        self._changed = changed
        self._owner_before = self._owner

    @property
    def elsewhere(self) -> str | None:
        """The node that decides, if it is another one than this."""
        return self.forwarder.owner_elsewhere(self._pool) if self.forwarder else None

    def ring_changed(self) -> None:
        """Report when another node is the owner now."""
        owner = self._owner
        if owner != self._owner_before:
            about = {"pool": self._pool, "before": self._owner_before, "after": owner}
            events.happened("owner_changed", logging.DEBUG, **about)
            self._owner_before = owner

    def report_expired(self) -> None:
        """Publish what ended with its session. All that follow the pool see it; its owner reports."""
        expired = self._mirror.expired
        if self.elsewhere is not None:
            expired.clear()
            return
        some = expired[:REPORTED_AT_ONCE]
        del expired[:REPORTED_AT_ONCE]
        if expired:
            asyncio.get_running_loop().call_soon(self.report_expired)
        for each in some:
            now, usage = self._clock.now(), self._observer.usage
            if isinstance(each, Grant):
                kind = UsageKind.EXPIRED
                usage.publish(grant_ends(kind, self._pool, each, now, reason=SESSION_ENDED))
            else:
                usage.publish(ticket_ends(self._pool, each, now, reason=SESSION_ENDED))

    async def forward(self, asks: list[PendingCommand]) -> bool:
        """Have the pool's owner decide, where it is another node; return whether all is done.

        Those of ``asks`` that are answered are taken out.
        """
        owner = self.elsewhere
        # What another node has forwarded, and what an owner of an earlier version would not know.
        is_ours = any(
            isinstance(ask.listener, Forwarded) or isinstance(ask.command, TakeOver)
            for ask in asks
        )
        if owner is None or self.forwarder is None or not asks or is_ours:
            return False
        try:
            commands = [ask.command for ask in asks]
            if events.are_wanted():  # or the owner is asked for less
                peers = [peer_of(ask.listener) for ask in asks]
                decided = await self.forwarder.decide(owner, self._pool, commands, peers)
            else:
                decided = await self.forwarder.decide(owner, self._pool, commands)
        except PeerSilent:
            # It may have decided, or may yet. The same ids decided again find what it made.
            self._observer.forward_failed(self._pool)
            return False
        self._observer.forwarded(self._pool, commands=len(asks))
        asks[:] = self._apply(asks, decided)
        return not asks

    def _apply(self, asks: list[PendingCommand], decided: Decided) -> list[PendingCommand]:
        """Bring what the owner decided into the view; return what it did not decide."""
        touched: set[str] = set()
        undecided: list[PendingCommand] = []
        for ask, outcome in zip(asks, decided.outcomes, strict=True):
            if isinstance(outcome, Denied) and _is_undecided(ask.command, outcome):
                undecided.append(ask)
            elif isinstance(outcome, Granted | Queued):
                command = ask.command
                if isinstance(outcome, Queued):
                    self._waits.asked(command, ask.asked_at)
                self._subscribers.attach(command, ask.listener)
                # What the view has may be newer: a claim is no decision.
                if command.grant_id not in self._mirror.state.grants:
                    update = [write_of(self._keys, self._pool, outcome)]
                    touched |= self._mirror.committed(update, decided.revision)
                touched.add(command.grant_id)
            else:
                assert not isinstance(
                    outcome, Moved | Noted
                )  # an administrator's are not forwarded
                if isinstance(outcome, Released):
                    # Else the view has it until the watch comes, and a token could be asked for.
                    touched |= self._mirror.released(
                        ask.command.session_id, outcome.grant_id, decided.revision
                    )
                deliver(ask.listener, self._pool, outcome)
        self._changed(touched)
        return undecided

    @property
    def _owner(self) -> str:
        return (self.forwarder.owner(self._pool) if self.forwarder else None) or ""


def _is_undecided(command: Command, denied: Denied) -> bool:
    """Return whether the owner has not decided on a command, so that it is decided here.

    No release is refused for load; an owner of an earlier version does so.
    """
    is_put_off = denied.reason is Refusal.OVERLOADED and isinstance(command, Release)
    return is_put_off or denied.reason is Refusal.UNAVAILABLE
