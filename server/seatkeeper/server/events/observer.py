"""What a node reports while it works: the seam between the core and its metrics.

What happens to requests for seats is in ``Observer.usage``. The methods report on the node's own work:
its commits, its watches, its peers. ``metrics.py`` counts both. Doing nothing is the default, so that
the core runs, in tests and in users' tests, without a metrics library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from seatkeeper.server.events.feed import UsageFeed


@dataclass(frozen=True, slots=True)
class LotCount:
    """A lot in force as a node sees it now."""

    name: str
    kind: str
    held: int
    """Seats that are held and were granted from it."""
    cost: float | None = None
    """Of a burst: what all of its seats have cost since it began; None: no price is said."""
    currency: str = ""


@dataclass(frozen=True, slots=True)
class PoolCount:
    """A pool as a node sees it now."""

    name: str
    capacity: int
    held: int
    queued: int
    is_drained: bool = False
    overdraft_held: int = 0
    lots: tuple[LotCount, ...] = ()
    """The lots in force."""


@dataclass(frozen=True, slots=True)
class LotEnd:
    """A lot in force that ends."""

    pool: str
    lot: str
    seconds: float
    """Until then, by this node's clock; under 0: it is to be written."""


class Watched(Protocol):
    """What a node follows now. May be asked from any thread; what it does not follow is not in it."""

    def pools(self) -> Sequence[PoolCount]:
        """Return the pools whose view is up to date."""
        ...

    def has_pool(self, name: str) -> bool:
        """Return whether there is a pool of this name."""
        ...

    def lot_ends(self) -> Sequence[LotEnd]:
        """Return the lots in force that end, of all pools."""
        ...

    def nodes(self) -> tuple[int, int] | None:
        """Return how many nodes are registered, and how many of them do not answer.

        None: the store does not report it, so it is unknown.
        """
        ...

    def streams(self) -> int:
        """Return how many session streams are open here."""
        ...


class Observer:
    """Receives reports. Called on the event loop: must be quick, and must not raise."""

    watched: Watched | None = None
    """What gauges are computed from; None: the node follows nothing yet, or any more."""
    usage: UsageFeed
    """The usage events of this node: publish them here, subscribe to them here."""

    def __init__(self) -> None:
        self.usage = UsageFeed()

    def committed(self, pool: str, *, commands: int, writes: int, seconds: float) -> None:
        """A decision took effect."""

    def conflicted(self, pool: str) -> None:
        """A decision was made on an old view: somebody else had decided. It is made again."""

    def outcome_unknown(self, pool: str) -> None:
        """The store did not answer a commit: it may have taken effect, or may yet."""

    def store_failed(self, pool: str, reason: str) -> None:
        """The store refused a commit or could not accept it: it has not taken effect.

        A conflict is none, nor is an unknown outcome, nor a listing that fails.
        """

    def dead_session(self, pool: str) -> None:
        """A session in a batch had ended; its commands were set apart."""

    def relisted(self, what: str, reason: str) -> None:
        """A watch ended, so its view is read again. ``what`` is the prefix that it watched."""

    def call_failed(self, call: str, code: str) -> None:
        """A call of one of our services ended with another status than OK."""

    def pool_gone(self, pool: str) -> None:
        """A pool was deleted."""

    def forwarded(self, pool: str, *, commands: int) -> None:
        """Commands were forwarded to the pool's owner, and answered."""

    def forward_failed(self, pool: str) -> None:
        """The pool's owner did not answer; this node decides itself."""

    def stream_opened(self) -> None:
        """A session stream began on this node."""

    def stream_closed(self) -> None:
        """A session stream ended on this node."""
