"""The nodes that are alive, and those among them that do not answer.

A node that dies stays in the store until its lease runs out; one that is paused stays forever. So
each node leaves out of its own ring those that did not answer it, until they do again. Two nodes
may then see two owners for a while: slower, never wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from seatkeeper.core.ring import Ring
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.events import log as events
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.store import Entry, Listing, Store, WatchBatch
from seatkeeper.server.store.follow import Follower
from seatkeeper.server.store.formats import RecordUnreadable, parsed
from seatkeeper.server.store.keys import Keys


class Membership:
    """A view of the nodes' records. Start it, then wait until it is ``ready``."""

    def __init__(self, store: Store, keys: Keys, observer: Observer, node_id: str) -> None:
        self.node_id = node_id
        """This node."""
        self.ring = Ring()
        """All nodes that are registered."""
        self.on_change: list[Callable[[], None]] = []
        """Called when nodes have come or gone, or begun or ceased to answer."""
        self._keys = keys
        self._silent: frozenset[str] = frozenset()
        self._follower = Follower(store, self._keys.nodes(), self, observer)

    def start(self) -> None:
        """Begin to follow."""
        self._follower.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._follower.stop()

    async def ready(self) -> None:
        """Wait for the first listing."""
        await self._follower.ready()

    @property
    def is_current(self) -> bool:
        """Whether the watch of nodes works; False: this view may be old."""
        return self._follower.is_current

    @property
    def silent(self) -> frozenset[str]:
        """The registered nodes that do not answer this one."""
        return self._silent

    def owner(self, pool: str) -> str | None:
        """Return the node that decides for ``pool``, of those that answer; None: there is none."""
        return self.ring.owner(pool, without=self._silent)

    def owner_elsewhere(self, pool: str) -> str | None:
        """Return the node that decides for ``pool``, if it is another one than this.

        A node that is not, or no more, in the ring forwards what it is still asked.
        """
        owner = self.owner(pool)
        return None if owner == self.node_id else owner

    def mark_silent(self, node_id: str) -> None:
        """Leave a node out: it does not answer."""
        if node_id in self.ring.addresses and node_id not in self._silent:
            self._silent |= {node_id}
            self._notify()

    def mark_answering(self, node_id: str) -> None:
        """Count a node in again."""
        if node_id in self._silent:
            self._silent -= {node_id}
            self._notify()

    def reset(self, listing: Listing) -> None:
        """Apply a listing of all nodes."""
        addresses = {
            self._node_id(entry.key): address
            for entry in listing.entries
            if (address := _address(entry)) is not None
        }
        self._changed(listing.revision, addresses)

    def apply(self, batch: WatchBatch) -> None:
        """Apply the changes."""
        addresses = dict(self.ring.addresses)
        for change in batch.changes:
            node_id = self._node_id(change.key)
            address = None if change.entry is None else _address(change.entry)
            if address is None:
                addresses.pop(node_id, None)
            else:
                addresses[node_id] = address
                # It has just written its record, so it lives.
                self._silent -= {node_id}
        self._changed(batch.revision, addresses)

    def _changed(self, revision: int, addresses: dict[str, str]) -> None:
        self._silent &= addresses.keys()
        if addresses != self.ring.addresses:
            self._log_changes(addresses)
            self.ring = Ring(revision, dict(sorted(addresses.items())))
            self._notify()

    def _notify(self) -> None:
        for callback in self.on_change:
            callback()

    def _log_changes(self, addresses: dict[str, str]) -> None:
        before = self.ring.addresses
        # Those whom it finds when it starts have not joined just now.
        level = logging.INFO if before else logging.DEBUG
        for node_id in sorted(addresses.keys() - before.keys()):
            events.happened("node_joined", level, node=node_id, address=addresses[node_id])
        for node_id in sorted(before.keys() - addresses.keys()):
            events.happened("node_left", node=node_id, address=before[node_id])

    def _node_id(self, key: str) -> str:
        return key.removeprefix(self._keys.nodes())


def _address(entry: Entry) -> str | None:
    """Return a node's address; None, which leaves it out: its record is of a newer format."""
    try:
        return parsed(state_pb2.NodeRecord, entry.key, entry.value).address
    except RecordUnreadable as error:
        events.record_unreadable(error)
        return None
