"""Changes of many pools: all of them or none, by what their author has seen.

One transaction makes all changes, under these comparisons:

- Nothing below ``pools/`` was written since the listing by which each pool named was found to be at the
  revision that the author has seen. So none of them was created or replaced meanwhile.
- A pool that is replaced is still there (``PutOver``). One that is to stay as it is, and is deleted
  between the listing and the commit, is not noticed: that is as if it had been deleted a moment later.
- The guard of a pool that is deleted is unchanged, as when it is deleted alone: nothing was granted.

A new pool's guard is written only where there is none (``PutNew``), so a pool that was deleted and
comes again continues its fences, whatever else makes it at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from seatkeeper.core.lots import LotMove
from seatkeeper.core.reservations import WindowMove
from seatkeeper.server.deployment.deployment import fence_base
from seatkeeper.server.domain import Guard, PoolSpec
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.pool import lots
from seatkeeper.server.pool.admin import (
    ATTEMPTS_MAX,
    PoolChanged,
    PoolError,
    PoolNotFound,
    Pools,
    check_unused,
    replacement,
)
from seatkeeper.server.store import (
    Delete,
    Entry,
    LargeWrite,
    Listing,
    Put,
    PutNew,
    PutOver,
    Store,
    Unchanged,
    UnwrittenBelow,
    records,
)
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.store.keys import Keys

BATCH_BYTES_MAX = 1 << 20
"""Most bytes of specifications in one change. etcd takes 1.5 MiB, with all that is around them."""
NAMED_MAX = 10
"""Most pools that a refusal describes."""


class PoolsChanged(PoolError):
    """Pools are not as their author has seen them. Nothing was changed."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


class BatchTooLarge(PoolError):
    """The specifications have more bytes than one transaction takes."""


@dataclass(frozen=True, kw_only=True)
class PoolChange:
    """What is to become of a pool."""

    name: str
    seen_revision: int
    """0: there was no such pool."""
    spec: PoolSpec | None = None
    """What it is to be; None: it stays, or is deleted."""
    keep_policy: bool = False
    """Whether the specification leaves the policy as it is."""
    keep_lots: bool = False
    """Likewise the lots."""
    deletes: bool = False


@dataclass(frozen=True)
class Applied:
    """What was changed."""

    revision: int = 0
    """The one revision of all of it; 0: nothing was changed."""
    created: list[PoolSpec] = field(default_factory=list)
    replaced: list[tuple[PoolSpec, PoolSpec]] = field(default_factory=list)
    """Before and after."""
    deleted: list[PoolSpec] = field(default_factory=list)


class PoolBatches:
    """Changes many pools at once."""

    def __init__(self, store: Store, keys: Keys, clock: Clock | None = None) -> None:
        """``clock``: as of ``Pools``."""
        self._store = store
        self._keys = keys
        self._now = clock.now if clock is not None else lambda: None
        self._pools = Pools(store, keys)

    async def apply(self, changes: Sequence[PoolChange]) -> Applied:
        """Make all changes, or none. Each pool is named once.

        Raises ``PoolsChanged`` for pools that are not as they were seen, ``PoolInUse``,
        ``PolicyBroken`` or ``BatchTooLarge``; then nothing is changed. Raises ``PoolChanged`` when
        pools change faster than they can be written.
        """
        for _ in range(ATTEMPTS_MAX):
            listing = await self._store.list(self._keys.pools())
            self._check_seen(changes, listing)
            draft = _Draft()
            if any(change.spec and not change.seen_revision for change in changes):
                draft.fence_base = await fence_base(self._store, self._keys)
            for change in changes:
                if change.spec is not None:
                    self._write(change, change.spec, listing, draft)
            try:
                for change in changes:
                    if change.deletes:
                        await self._delete(change, draft)
            except PoolNotFound:
                continue  # deleted since: the next listing shows it
            if not draft.writes:
                return draft.applied(0)
            draft.check_size()
            committed = await self._store.commit_large(
                draft.writes,
                only_if=draft.only_if,
                unwritten_below=UnwrittenBelow(self._keys.pools(), listing.revision),
            )
            if committed.succeeded:
                for name, moves, seats in draft.moves:
                    lots.report(name, moves, seats)
                return draft.applied(committed.revision)
        raise PoolChanged("pools change faster than these can be written; try again")

    def _check_seen(self, changes: Sequence[PoolChange], listing: Listing) -> None:
        other: dict[str, str] = {}
        for change in changes:
            found = listing.find(self._keys.pool(change.name))
            revision = found.mod_revision if found is not None else 0
            if revision == change.seen_revision or _only_lots_moved(change, found):
                continue
            if not revision:
                other[change.name] = "was deleted"
            elif not change.seen_revision:
                other[change.name] = "was created"
            else:
                other[change.name] = f"is at revision {revision}, not {change.seen_revision}"
        if other:
            said = [f"{name} {how}" for name, how in list(other.items())[:NAMED_MAX]]
            more = f" and {len(other) - NAMED_MAX} more" if len(other) > NAMED_MAX else ""
            raise PoolsChanged(
                f"pools changed since they were read, and nothing was applied: {', '.join(said)}"
                f"{more}; read them again",
                list(other),
            )

    def _write(
        self, change: PoolChange, spec: PoolSpec, listing: Listing, draft: _Draft
    ) -> None:
        key = self._keys.pool(change.name)
        found = listing.find(key)
        if found is None:
            first = records.encode_guard(Guard(fence=draft.fence_base))
            spec, moves = lots.applied(spec, None, self._now())
            draft.moves.append((change.name, moves, spec.seats))
            draft.writes.append(Put(key, records.encode_spec(spec)))
            draft.writes.append(PutNew(self._keys.guard(change.name), first))
            draft.created.append(spec)
            return
        before = records.decode_spec(found.value, key)
        keeps = {"keep_policy": change.keep_policy, "keep_lots": change.keep_lots}
        after = replacement(spec, before, **keeps)
        after, moves = lots.applied(after, before, self._now())
        draft.moves.append((change.name, moves, after.seats))
        draft.writes.append(PutOver(key, records.encode_spec(after)))
        draft.replaced.append((before, after))

    async def _delete(self, change: PoolChange, draft: _Draft) -> None:
        guard_key = self._keys.guard(change.name)
        guard = await self._store.get(guard_key)
        view = await self._pools.read(change.name)
        check_unused(view)
        draft.writes.append(Delete(self._keys.pool(change.name)))
        # Read before the grants were: nothing has been granted since.
        draft.only_if.append(Unchanged(guard_key, guard.mod_revision if guard else 0))
        draft.deleted.append(view.spec)


def _only_lots_moved(change: PoolChange, found: Entry | None) -> bool:
    """Return whether nodes alone have written a pool since it was seen: of lots, or of windows."""
    if found is None or not change.seen_revision:
        return False
    try:
        spec = records.decode_spec(found.value, found.key)
    except RecordUnreadable:
        return False
    return lots.is_as_seen(change.seen_revision, found.mod_revision, spec)


@dataclass
class _Draft:
    """A transaction while it is put together."""

    fence_base: int = 0
    writes: list[LargeWrite] = field(default_factory=list)
    only_if: list[Unchanged] = field(default_factory=list)
    created: list[PoolSpec] = field(default_factory=list)
    replaced: list[tuple[PoolSpec, PoolSpec]] = field(default_factory=list)
    deleted: list[PoolSpec] = field(default_factory=list)
    moves: list[tuple[str, tuple[LotMove | WindowMove, ...], int]] = field(default_factory=list)
    """What is written of the lots and windows of each pool, and the seats that are in force by it."""

    def check_size(self) -> None:
        """Raise ``BatchTooLarge`` for more than one transaction takes."""
        size = sum(len(write.value) for write in self.writes if not isinstance(write, Delete))
        if size > BATCH_BYTES_MAX:
            raise BatchTooLarge(
                f"the specifications that change have {size} bytes, and one transaction takes "
                f"{BATCH_BYTES_MAX}: change some of the pools first"
            )

    def applied(self, revision: int) -> Applied:
        """Return what was changed by it."""
        return Applied(revision, self.created, self.replaced, self.deleted)
