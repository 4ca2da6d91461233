"""A store that is used only while it is the one that this node's service lives in.

It also watches the fences pass by. They only grow, so one that is lower than it was, at a later
revision, proves that the store was put back to an earlier state; whatever else looks right then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta

from seatkeeper.server.deployment.deployment import RESTORED, Deployment
from seatkeeper.server.store import (
    Committed,
    Entry,
    LargeWrite,
    Listing,
    Store,
    StoreForeign,
    StoreHealth,
    StoreStatus,
    Unchanged,
    UnwrittenBelow,
    WatchBatch,
    WatchEnded,
    Write,
    records,
)
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.store.keys import Keys


class CheckedStore:
    """A ``Store`` whose calls raise ``StoreForeign`` while its deployment is in trouble."""

    def __init__(self, store: Store, deployment: Deployment, keys: Keys) -> None:
        self._store = store
        self._deployment = deployment
        self._seats = keys.seats("")[:-1]
        self._fences: dict[str, tuple[int, int]] = {}
        """Of each guard: the revision that it was seen at, and its fence."""

    async def get(self, key: str) -> Entry | None:
        """Return the entry as of now, or None. Linearizable."""
        self._check()
        return await self._store.get(key)

    async def list(self, prefix: str) -> Listing:
        """Return all entries whose key starts with ``prefix``, at one revision. Linearizable."""
        self._check()
        listing = await self._store.list(prefix)
        # Seats are listed pool by pool; of a large one, the rest is not looked at for this.
        if prefix.startswith(self._seats) and (guard := listing.find(prefix + "guard")):
            self._see(guard, listing.revision)
        self._check()
        return listing

    async def commit(
        self,
        writes: Sequence[Write],
        *,
        only_if: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Committed:
        """Make ``writes`` if every comparison holds; otherwise read ``else_read``."""
        self._check()
        return await self._store.commit(
            writes, only_if=only_if, else_read=else_read, timeout=timeout
        )

    async def commit_large(
        self,
        writes: Sequence[LargeWrite],
        *,
        only_if: Sequence[Unchanged] = (),
        unwritten_below: UnwrittenBelow,
    ) -> Committed:
        """Make many writes at one revision if every comparison holds."""
        self._check()
        return await self._store.commit_large(
            writes, only_if=only_if, unwritten_below=unwritten_below
        )

    async def watch(
        self, prefix: str, *, from_revision: int
    ) -> AsyncGenerator[WatchBatch, None]:
        """Yield every change below ``prefix`` from ``from_revision`` on, until ``WatchEnded``."""
        async with aclosing(self._store.watch(prefix, from_revision=from_revision)) as watch:
            async for batch in watch:
                for change in batch.changes:
                    if change.entry is not None:
                        self._see(change.entry, change.revision)
                if self._deployment.trouble:
                    raise WatchEnded(self._deployment.trouble)
                yield batch

    async def grant_lease(self, lease_id: int, ttl: timedelta) -> timedelta:
        """Make a lease of the caller's id and return its ttl, which may be longer than asked."""
        self._check()
        return await self._store.grant_lease(lease_id, ttl)

    async def keep_alive(self, lease_id: int) -> timedelta:
        """Restart the lease's clock and return its ttl. Raises ``LeaseNotFound``."""
        self._check()
        ttl = await self._store.keep_alive(lease_id)
        self._check()
        return ttl

    async def revoke_lease(self, lease_id: int) -> None:
        """End the lease and delete its keys. Succeeds also when there was none."""
        self._check()
        await self._store.revoke_lease(lease_id)

    async def lease_remaining(self, lease_id: int) -> timedelta | None:
        """Return the time the lease has left without renewal, or None when it does not exist."""
        self._check()
        return await self._store.lease_remaining(lease_id)

    async def status(self) -> StoreStatus:
        """Return what the store says of itself, also of one that is not ours."""
        return await self._store.status()

    async def health(self) -> StoreHealth:
        """Look at every member, also of a store that is not ours. Never raises."""
        return await self._store.health()

    async def close(self) -> None:
        """Release connections; every call under way fails. Safe to call twice."""
        await self._deployment.stop()
        await self._store.close()

    def _check(self) -> None:
        if self._deployment.trouble:
            raise StoreForeign(self._deployment.trouble)

    def _see(self, entry: Entry, revision: int) -> None:
        key = entry.key
        if not key.endswith("/guard") or not key.startswith(self._seats):
            return
        try:
            fence = records.decode_guard(entry.value, key)[0].fence
        except RecordUnreadable:
            return  # the decision on it reports it
        seen_at, before = self._fences.get(key, (0, 0))
        if revision <= seen_at:
            return  # an update of the past
        if fence < before:
            self._deployment.suspect(
                f"a fence went back from {before} to {fence} ({key}). {RESTORED}"
            )
            return
        self._fences[key] = (revision, fence)
