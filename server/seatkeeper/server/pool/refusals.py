"""Answers to commands that are not decided: too many, too late, or not understood."""

from __future__ import annotations

from collections.abc import Iterable

from seatkeeper.server.decide import RETRY_LATER
from seatkeeper.server.domain import Acquire, Administrative, Command, Denied, Refusal
from seatkeeper.server.events.usage import command_refused
from seatkeeper.server.pool.context import PoolContext
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.pool.inbox import PendingCommand
from seatkeeper.server.pool.subscribers import Listener, deliver, peer_of

TOO_MANY = "too many requests wait to be decided"


class Refusals:
    """Refuses commands of one pool, and reports each refusal once."""

    def __init__(self, context: PoolContext) -> None:
        self._pool = context.pool
        self._clock = context.clock
        self._observer = context.observer

    def refuse(self, command: Command, listener: Listener, denied: Denied) -> None:
        """Answer a command that is not decided."""
        # Where it was forwarded from, it is decided after all, or counted.
        is_forwarded = isinstance(listener, Forwarded)
        is_counted = not is_forwarded or denied.reason is not Refusal.UNAVAILABLE
        if is_counted and not isinstance(command, Administrative):
            now, peer = self._clock.now(), peer_of(listener)
            self._observer.usage.publish(
                command_refused(self._pool, command, denied, now, peer)
            )
        if is_forwarded:
            listener.receive(self._pool, denied)  # the client is not here
        else:
            deliver(listener, self._pool, denied)

    def overloaded(self, command: Acquire, listener: Listener, why: str) -> None:
        """Refuse a request that there is no room for."""
        denied = Denied(command.grant_id, Refusal.OVERLOADED, why, RETRY_LATER)
        self.refuse(command, listener, denied)

    def no_room(self, command: Command, listener: Listener) -> None:
        """Answer a command that is one too many of those that wait to be decided.

        A release is undecided: a client that took it for done would hold the seats without knowing.
        """
        if isinstance(command, Acquire):
            self.overloaded(command, listener, f"{TOO_MANY}; try again later")
            return
        message = f"{TOO_MANY}; send the same release again"
        denied = Denied(command.grant_id, Refusal.UNAVAILABLE, message, RETRY_LATER)
        self.refuse(command, listener, denied)

    def unanswered(self, asks: Iterable[PendingCommand], why: str) -> None:
        """Refuse commands that nothing is known of: they may have taken effect."""
        for ask in asks:
            message = f"{why}; the outcome is unknown: send the same request again"
            denied = Denied(ask.command.grant_id, Refusal.UNAVAILABLE, message, RETRY_LATER)
            self.refuse(ask.command, ask.listener, denied)
