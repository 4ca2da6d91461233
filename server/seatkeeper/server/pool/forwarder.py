"""Commands that one node forwards to another: both ends, as a pool's loop sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from seatkeeper.server.domain import Command, Denied, Grant, Outcome, Released
from seatkeeper.server.pool.subscribers import Update
from seatkeeper.server.routing.peers import Decided


class Forwarder(Protocol):
    """How a loop finds the owner of its pool, and forwards commands to it."""

    def owner(self, pool: str) -> str | None:
        """Return the node that decides for ``pool``; None: there is none."""
        ...

    def owner_elsewhere(self, pool: str) -> str | None:
        """Return the node that decides for ``pool``, if it is another one than this."""
        ...

    async def decide(
        self, node_id: str, pool: str, commands: Sequence[Command], peers: Sequence[str] = ()
    ) -> Decided:
        """Have that node decide. Raises ``PeerSilent``."""
        ...


class Forwarded:
    """The listener of a command that another node forwarded: receives the outcome, and no more.

    The client is that node's; what becomes of its ticket later, that node sees for itself.
    """

    def __init__(self, peer: str = "") -> None:
        """``peer`` is the client's address, as the other node said; for logs."""
        self.peer = peer
        loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[tuple[Outcome, int]] = loop.create_future()
        """What became of it, and a revision at which that was so."""

    def decided(self, outcome: Outcome, revision: int) -> None:
        """Take note of the outcome."""
        if not self.outcome.done():
            self.outcome.set_result((outcome, revision))

    def receive(self, pool: str, update: Update) -> None:
        """Take note that it was refused, or done, without a decision."""
        if isinstance(update, Denied | Released):
            self.decided(update, 0)

    def expect(self, pool: str, grant: Grant) -> None:
        """Do nothing: the token is signed where the client is."""
