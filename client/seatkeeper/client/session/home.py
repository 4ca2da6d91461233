"""Which node a session should be at: the one that decides for the pools it uses.

Any node serves any pool, by passing requests on to the pool's owner; being there saves the way. Nodes
tell which of them there are. What they say is followed only where the node that says it is found
at the address that it tells of itself: behind a balancer, or an address translation, the others'
addresses mean nothing here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.core.ring import Ring
from seatkeeper.v1 import seat_service_pb2 as pb


class Home:
    """Learns the ring, and names the node to be at."""

    def __init__(self, nodes: NodePicker, *, follow: bool) -> None:
        """Know nothing yet. ``follow``: False: stay with the addresses that were given."""
        self._nodes = nodes
        self._follow = follow
        self._ring = Ring()
        self._used: set[str] = set()

    def learn(self, message: pb.Ring, here: str) -> None:
        """Take in what the node at address ``here`` says of the others."""
        addresses = {node.node_id: node.address for node in message.nodes}
        if not self._follow or here not in addresses.values():
            self._ring = Ring()
            self._nodes.learn(())
        elif message.revision >= self._ring.revision:
            self._ring = Ring(message.revision, addresses)
            self._nodes.learn(addresses.values())

    def is_news(self, pool: str) -> bool:
        """Return whether ``pool`` is used for the first time, and remember that it is."""
        is_news = pool not in self._used
        self._used.add(pool)
        return is_news

    def address(self, pools: Iterable[str], here: str, now: float) -> str | None:
        """Return where to go from ``here`` for the sake of ``pools``; None: nowhere.

        ``pools`` names a pool once for each request or grant: where most of them are decided is best.
        """
        owners = Counter(owner for p in pools if (owner := self._ring.owner(p)) is not None)
        if not owners:
            return None
        most = max(owners.values())
        best = {self._ring.addresses[o] for o, count in owners.items() if count == most}
        if here in best:
            return None
        address = min(best)
        return address if self._nodes.is_welcoming(address, now) else None
