"""Routing of one node, put together: who owns a pool, and having the owner decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seatkeeper.server.domain import Command
from seatkeeper.server.routing.membership import Membership
from seatkeeper.server.routing.peers import Decided, Peers


@dataclass(frozen=True, slots=True)
class Routing:
    """The other nodes, as far as pools are concerned."""

    membership: Membership
    peers: Peers

    def owner(self, pool: str) -> str | None:
        """Return the node that decides for ``pool``; None: there is none."""
        return self.membership.owner(pool)

    def owner_elsewhere(self, pool: str) -> str | None:
        """Return the node that decides for ``pool``, if it is another one than this."""
        return self.membership.owner_elsewhere(pool)

    async def decide(
        self, node_id: str, pool: str, commands: Sequence[Command], peers: Sequence[str] = ()
    ) -> Decided:
        """Have that node decide. Raises ``PeerSilent``. ``peers``: the clients' addresses."""
        return await self.peers.decide(node_id, pool, commands, peers)
