"""The pools that exist, as this node sees them."""

from __future__ import annotations

from collections.abc import Callable

from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.events import log as events
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.store import Entry, Listing, Store, WatchBatch, records
from seatkeeper.server.store.follow import Follower
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.store.keys import Keys


class PoolCatalogue:
    """A view of all pools' specifications. May be old; commits compare its revisions."""

    def __init__(self, store: Store, keys: Keys, observer: Observer) -> None:
        self.on_change: Callable[[str], None] | None = None
        """Called with the name of a pool whose specification has changed."""
        self._store = store
        self._keys = keys
        self._specs: dict[str, tuple[PoolSpec, int]] = {}
        self._revisions: dict[str, int] = {}
        self._unsupported: dict[str, RecordUnreadable] = {}
        self._follower = Follower(store, self._keys.pools(), self, observer)

    def start(self) -> None:
        """Begin to follow."""
        self._follower.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._follower.stop()

    async def ready(self) -> None:
        """Wait for the first listing."""
        await self._follower.ready()

    def names(self) -> list[str]:
        """Return the names of all pools, sorted."""
        return sorted(self._specs)

    def spec(self, pool: str) -> tuple[PoolSpec | None, int]:
        """Return a pool's specification and its revision; None and 0 when there is none."""
        return self._specs.get(pool, (None, 0))

    def unsupported(self, pool: str) -> RecordUnreadable | None:
        """Return why a pool's specification is not understood; None: it is, or there is none.

        One that is not is given out as a closed pool: it exists, and nothing is granted by it.
        """
        return self._unsupported.get(pool)

    async def refresh(self, pool: str) -> None:
        """Read one pool's specification afresh."""
        entry = await self._store.get(self._keys.pool(pool))
        if entry is not None:
            self._updated(pool, entry, entry.mod_revision)
        elif pool in self._specs:
            # Deleted at a revision that we do not know; the watch will deliver it. Until then, absent.
            del self._specs[pool]
            self._unsupported.pop(pool, None)

    def reset(self, listing: Listing) -> None:
        """Apply a listing of all pools."""
        names = {self._name(entry.key) for entry in listing.entries}
        for name in [name for name in self._specs if name not in names]:
            self._updated(name, None, listing.revision)
        for entry in listing.entries:
            self._updated(self._name(entry.key), entry, entry.mod_revision)

    def apply(self, batch: WatchBatch) -> None:
        """Apply the changes."""
        for change in batch.changes:
            self._updated(self._name(change.key), change.entry, change.revision)

    def _name(self, key: str) -> str:
        return key.removeprefix(self._keys.pools())

    def _updated(self, name: str, entry: Entry | None, revision: int) -> None:
        if revision <= self._revisions.get(name, 0):
            return
        self._revisions[name] = revision
        self._unsupported.pop(name, None)
        if entry is not None:
            self._specs[name] = (self._decoded(name, entry), entry.mod_revision)
        else:
            self._specs.pop(name, None)
        if self.on_change is not None:
            self.on_change(name)

    def _decoded(self, name: str, entry: Entry) -> PoolSpec:
        try:
            return records.decode_spec(entry.value, entry.key)
        except RecordUnreadable as error:
            events.record_unreadable(error)
            self._unsupported[name] = error
            return PoolSpec(name, 0)
