"""What a node follows at this moment: the source of its gauges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seatkeeper.server.events.observer import LotEnd, PoolCount
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.routing.membership import Membership


@dataclass(frozen=True, slots=True)
class NodeWatched:
    """The parts of one node, asked when they are scraped."""

    seats: PoolRouter
    membership: Membership
    open_streams: Callable[[], int]

    def pools(self) -> Sequence[PoolCount]:
        """Return the pools whose view is up to date."""
        return self.seats.counts()

    def lot_ends(self) -> Sequence[LotEnd]:
        """Return the lots in force that end."""
        return self.seats.lots.ends()

    def has_pool(self, name: str) -> bool:
        """Return whether there is a pool of this name, as far as this node knows."""
        return self.seats.catalogue.spec(name)[0] is not None

    def nodes(self) -> tuple[int, int] | None:
        """Return how many nodes are registered and silent; None: the watch does not work."""
        membership = self.membership
        if not membership.is_current:
            return None
        return len(membership.ring.addresses), len(membership.silent)

    def streams(self) -> int:
        """Return how many session streams are open here."""
        return self.open_streams()
