"""Answers to commands that are not decided: too many, too late, or not understood."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta

from seatkeeper.server.domain import Command, Denied, Refusal
from seatkeeper.server.events.usage import command_refused
from seatkeeper.server.pool.context import PoolContext
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.pool.inbox import PendingCommand
from seatkeeper.server.pool.subscribers import Listener, peer_of

RETRY_AFTER_SECONDS = (1.0, 3.0)
"""When those who are refused for want of room should come again: not all at once."""
UNKNOWN_RETRY = timedelta(seconds=1)


class Refusals:
    """Refuses commands of one pool, and reports each refusal once."""

    def __init__(self, context: PoolContext) -> None:
        self._pool = context.pool
        self._clock = context.clock
        self._observer = context.observer

    def refuse(self, command: Command, listener: Listener, denied: Denied) -> None:
        """Answer a command that is not decided."""
        # Where it was forwarded from, it is decided after all, or counted.
        if not isinstance(listener, Forwarded) or denied.reason is not Refusal.UNAVAILABLE:
            now, peer = self._clock.now(), peer_of(listener)
            self._observer.usage.publish(
                command_refused(self._pool, command, denied, now, peer)
            )
        listener.receive(self._pool, denied)

    def overloaded(self, command: Command, listener: Listener, why: str) -> None:
        """Refuse a command that there is no room for."""
        self.refuse(
            *(command, listener),
            Denied(
                command.grant_id,
                Refusal.OVERLOADED,
                f"{why}; try again later",
                timedelta(seconds=random.uniform(*RETRY_AFTER_SECONDS)),
            ),
        )

    def unanswered(self, asks: Iterable[PendingCommand], why: str) -> None:
        """Refuse commands that nothing is known of: they may have taken effect."""
        for ask in asks:
            message = f"{why}; the outcome is unknown: send the same request again"
            denied = Denied(ask.command.grant_id, Refusal.UNAVAILABLE, message, UNKNOWN_RETRY)
            self.refuse(ask.command, ask.listener, denied)
