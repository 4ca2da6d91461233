"""Which node a session should be at: the one that decides for the pools it uses.

Any node serves any pool, by forwarding requests to the pool's owner; being there saves the way. Nodes
report the ring. It is followed only where the node that says it is found
at the address that it reports for itself: behind a balancer, or an address translation, the others'
addresses mean nothing here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from seatkeeper.client.session.node_link import NodeLink
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.core.clock import Clock, Timer
from seatkeeper.core.ring import Ring
from seatkeeper.v1 import seat_service_pb2 as pb

MOVE_SECONDS = (2.0, 12.0)
"""When a client that learns of a better node goes there. Not at once: moving costs more than forwarding
a few requests. And not all at the same moment."""


class Home:
    """Learns the ring, and names the node to be at."""

    def __init__(self, nodes: NodePicker, *, follow: bool) -> None:
        """Know nothing yet. ``follow``: False: stay with the addresses that were given."""
        self._nodes = nodes
        self._follow = follow
        self._ring = Ring()
        self._used: set[str] = set()

    def learn(self, message: pb.Ring, here: str) -> None:
        """Apply what the node at address ``here`` says of the others."""
        addresses = {node.node_id: node.address for node in message.nodes}
        if not self._follow or here not in addresses.values():
            self._ring = Ring()
            self._nodes.learn(())
        elif message.revision >= self._ring.revision:
            self._ring = Ring(message.revision, addresses)
            self._nodes.learn(addresses.values())

    def is_new(self, pool: str) -> bool:
        """Return whether ``pool`` is used for the first time, and remember that it is."""
        is_new = pool not in self._used
        self._used.add(pool)
        return is_new

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


class Relocation:
    """Moves a session to the node that decides for its pools, some seconds after that is known."""

    def __init__(
        self,
        home: Home,
        link: NodeLink,
        pools: Callable[[], Iterable[str]],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """Move ``link``; ``pools()`` names the pools in use, each as often as it is used."""
        self._home = home
        self._link = link
        self._pools = pools
        self._clock = clock
        self._random = random
        self._timer: Timer | None = None

    def use(self, pool: str) -> None:
        """Note that a pool is used."""
        if self._home.is_new(pool):
            self.consider()

    def learn(self, ring: pb.Ring) -> None:
        """Note what the present node says about the others."""
        self._home.learn(ring, self._link.address)
        self.consider()

    def consider(self) -> None:
        """Move in a while, if that is still right then."""
        if self._timer is not None or self._address() is None:
            return
        earliest, latest = MOVE_SECONDS
        pause = earliest + self._random() * (latest - earliest)
        self._timer = self._clock.call_at(self._clock.now() + pause, self._move)

    def stop(self) -> None:
        """Stay."""
        if self._timer is not None:
            self._timer.cancel()

    def _address(self) -> str | None:
        """Return where the pools that are used are decided, if that is elsewhere."""
        if self._link.stream is None:
            return None
        return self._home.address(self._pools(), self._link.address, self._clock.now())

    def _move(self) -> None:
        self._timer = None
        if (address := self._address()) is not None:
            self._link.go_to(address)
