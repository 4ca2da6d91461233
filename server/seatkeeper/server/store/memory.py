"""A store in one process: for tests, and for the in-memory service that ships to users.

It keeps every promise of ``interface.py``; ``tests/contract`` holds it and etcd to the same suite.
Differences that a caller can see:

- Time is the ``now`` it was given. A lease ends when ``expire_due`` runs after its deadline, as
  etcd's lessor does twice a second; call it yourself after moving a clock, or
  ``start_expiry()`` once to have it called in the background.
- History is bounded: beyond ``history_max`` revisions the oldest are compacted by themselves.
- ``expire_due`` also gives every idle watch its sign of life.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta

from seatkeeper.server.store._memory_large import large_writes
from seatkeeper.server.store._memory_watch import MemoryWatch
from seatkeeper.server.store._request import (
    check_key,
    check_large_transaction,
    check_transaction,
)
from seatkeeper.server.store.errors import (
    HistoryCompacted,
    LeaseExists,
    LeaseNotFound,
    StoreRefused,
    StoreUnavailable,
    WatchEnded,
)
from seatkeeper.server.store.interface import (
    Change,
    Committed,
    Delete,
    Entry,
    LargeWrite,
    Listing,
    Put,
    StoreHealth,
    StoreMember,
    StoreStatus,
    Unchanged,
    UnwrittenBelow,
    WatchBatch,
    Write,
)

Hook = Callable[[str], Awaitable[None]]
"""Awaited with the name of the call, such as ``commit``."""

REQUEST_BYTES_MAX = 1536 * 1024
"""Most bytes of keys and values in one transaction (etcd's ``--max-request-bytes`` default)."""


class _Lease:
    __slots__ = ("ends_at", "keys", "ttl")

    def __init__(self, ttl: float, ends_at: float) -> None:
        self.ttl = ttl
        self.ends_at = ends_at
        self.keys: set[str] = set()


class MemoryStore:
    """The ``Store`` of one process and one event loop. Everything in it is lost with it.

    Tests inject faults through two hooks. ``before_call`` is awaited before a call takes effect:
    raising from it refuses the call. ``after_call`` is awaited when it has: raising
    ``OutcomeUnknown`` from it is a lost answer. ``end_watches`` breaks every watch.
    """

    before_call: Hook | None = None
    after_call: Hook | None = None

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        lease_ttl_min: timedelta = timedelta(seconds=1),
        history_max: int = 100_000,
        watch_backlog_max: int = 10_000,
        cluster_id: int | None = None,
    ) -> None:
        """Make an empty store at revision 1.

        ``history_max`` is how many revisions a watch can start from in the past;
        ``watch_backlog_max`` is how many batches a slow watch may be behind before it is ended.
        """
        self._now = now
        self._lease_ttl_min = lease_ttl_min
        self._history_max = history_max
        self._watch_backlog_max = watch_backlog_max
        self._cluster_id = secrets.randbits(63) if cluster_id is None else cluster_id
        self._revision = 1
        self._compacted = 0
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        self._history: deque[tuple[Change, ...]] = deque()
        self._leases: dict[int, _Lease] = {}
        self._watches: dict[MemoryWatch, None] = {}
        """In the order of their begin: what happens must not depend on where they are in memory."""
        self._expiry: asyncio.Task[None] | None = None
        self._closed = False

    # ---- keys

    async def get(self, key: str) -> Entry | None:
        """Return the entry as of now, or None."""
        check_key(key)
        await self._enter("get")
        entry = self._entries.get(key)
        await self._leave("get")
        return entry

    async def list(self, prefix: str) -> Listing:
        """Return all entries whose key starts with ``prefix``, at one revision."""
        await self._enter("list")
        keys = self._keys
        start = end = bisect_left(keys, prefix)
        while end < len(keys) and keys[end].startswith(prefix):
            end += 1
        listing = Listing(
            tuple(map(self._entries.__getitem__, keys[start:end])), self._revision
        )
        await self._leave("list")
        return listing

    async def commit(
        self,
        writes: Sequence[Write],
        *,
        only_if: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Committed:
        """Make ``writes`` if every comparison holds; otherwise read ``else_read``.

        Never takes time of its own, so ``timeout`` is not looked at.
        """
        check_transaction(writes, only_if, else_read)
        _check_size(writes)
        await self._enter("commit")
        if not _holds(self._entries, only_if):
            read = {key: self._entries.get(key) for key in else_read}
            committed = Committed(succeeded=False, revision=self._revision, read=read)
        else:
            for write in writes:
                if type(write) is Put and write.lease_id and write.lease_id not in self._leases:
                    raise LeaseNotFound(f"lease {write.lease_id:x} has ended")
            self._apply(writes)
            committed = Committed(succeeded=True, revision=self._revision)
        await self._leave("commit")
        return committed

    async def commit_large(
        self,
        writes: Sequence[LargeWrite],
        *,
        only_if: Sequence[Unchanged] = (),
        unwritten_below: UnwrittenBelow,
    ) -> Committed:
        """Make many writes at one revision if every comparison holds."""
        check_large_transaction(writes, only_if)
        _check_size(writes)
        await self._enter("commit_large")
        made = large_writes(self._entries, writes, unwritten_below)
        holds = made is not None and _holds(self._entries, only_if)
        if made is not None and holds:
            self._apply(made)
        await self._leave("commit_large")
        return Committed(succeeded=holds, revision=self._revision)

    # ---- watches

    async def watch(
        self, prefix: str, *, from_revision: int
    ) -> AsyncGenerator[WatchBatch, None]:
        """Yield every change below ``prefix`` from ``from_revision`` on, until ``WatchEnded``."""
        assert from_revision > 0
        if self._closed:
            raise WatchEnded("the store is closed")
        if from_revision < self._compacted:
            raise HistoryCompacted(f"revisions before {self._compacted} are compacted")
        # The history ends at `_revision` and has one piece a revision.
        behind = self._revision - from_revision + 1
        past = list(self._history)[-behind:] if behind > 0 else []
        watch = MemoryWatch(prefix, from_revision, past, self._watch_backlog_max)
        self._watches[watch] = None
        try:
            # As with etcd, the first batch says that the watch is established.
            yield WatchBatch((), from_revision - 1)
            while True:
                yield await watch.take()
        finally:
            self._watches.pop(watch, None)

    def end_watches(self, reason: str) -> None:
        """End every watch with ``WatchEnded``, as a lost connection does."""
        for watch in self._watches:
            watch.end(reason)
        self._watches.clear()

    def compact(self, revision: int) -> None:
        """Forget the history before ``revision``. A watch from before it ends at once."""
        if not self._compacted < revision <= self._revision:
            raise StoreRefused(
                f"cannot compact at {revision}: the store is at {self._revision}"
            )
        self._compacted = revision
        while len(self._history) > self._revision - revision + 1:
            self._history.popleft()

    # ---- leases

    async def grant_lease(self, lease_id: int, ttl: timedelta) -> timedelta:
        """Make a lease of the caller's id and return its ttl. Raises ``LeaseExists``."""
        if lease_id <= 0:
            raise StoreRefused("a lease id is above 0")
        await self._enter("grant_lease")
        if lease_id in self._leases:
            raise LeaseExists(f"there is a lease {lease_id:x}")
        granted = max(ttl, self._lease_ttl_min)
        seconds = granted.total_seconds()
        self._leases[lease_id] = _Lease(seconds, self._now() + seconds)
        await self._leave("grant_lease")
        return granted

    async def keep_alive(self, lease_id: int) -> timedelta:
        """Restart the lease's clock and return its ttl. Raises ``LeaseNotFound``."""
        await self._enter("keep_alive")
        lease = self._leases.get(lease_id)
        now = self._now()
        if lease is not None and lease.ends_at <= now:
            # Past its end a lease cannot be saved, even where the sweep has not come by yet.
            self._end_lease(lease_id)
            lease = None
        if lease is None:
            raise LeaseNotFound(f"lease {lease_id:x} has ended")
        lease.ends_at = now + lease.ttl
        await self._leave("keep_alive")
        return timedelta(seconds=lease.ttl)

    async def revoke_lease(self, lease_id: int) -> None:
        """End the lease and delete its keys. Succeeds also when there was none."""
        await self._enter("revoke_lease")
        self._end_lease(lease_id)
        await self._leave("revoke_lease")

    async def lease_remaining(self, lease_id: int) -> timedelta | None:
        """Return the time the lease has left without renewal, or None when it does not exist."""
        await self._enter("lease_remaining")
        lease = self._leases.get(lease_id)
        left = (
            None if lease is None else timedelta(seconds=max(0.0, lease.ends_at - self._now()))
        )
        await self._leave("lease_remaining")
        return left

    def expire_due(self) -> int:
        """End the leases whose time is up, each at its own revision; return how many."""
        now = self._now()
        due = [lease_id for lease_id, lease in self._leases.items() if lease.ends_at <= now]
        for lease_id in due:
            self._end_lease(lease_id)
        for watch in self._watches:
            watch.heartbeat(self._revision)
        return len(due)

    def restart_leases(self) -> None:
        """Give every lease its whole ttl again, as etcd does when its leader changes."""
        now = self._now()
        for lease in self._leases.values():
            lease.ends_at = now + lease.ttl

    def start_expiry(self, interval: timedelta = timedelta(milliseconds=500)) -> None:
        """Call ``expire_due`` every ``interval`` of the event loop's time until ``close``."""
        assert self._expiry is None
        self._expiry = asyncio.get_running_loop().create_task(self._expire_loop(interval))

    # ---- the store itself

    async def status(self) -> StoreStatus:
        """Return what the store says of itself."""
        await self._enter("status")
        return StoreStatus("memory", "", self._cluster_id, self._revision)

    async def health(self) -> StoreHealth:
        """Return how the store is. Never raises."""
        me = StoreMember(name="memory", endpoint="", is_leader=True)
        return StoreHealth(members=(me,), leases=len(self._leases), read_time=timedelta(0))

    async def close(self) -> None:
        """End every watch and refuse every later call. Safe to call twice."""
        self._closed = True
        self.end_watches("the store was closed")
        if self._expiry is not None:
            self._expiry.cancel()
            await asyncio.wait([self._expiry])
            self._expiry = None

    # ---- helpers

    async def _enter(self, call: str) -> None:
        # Give way, as a store across a network does: callers must not come to rely on a call
        # that nothing can interrupt.
        await asyncio.sleep(0)
        if self.before_call is not None:
            await self.before_call(call)
        if self._closed:
            raise StoreUnavailable("the store is closed")

    async def _leave(self, call: str) -> None:
        if self.after_call is not None:
            await self.after_call(call)

    async def _expire_loop(self, interval: timedelta) -> None:
        while True:
            await asyncio.sleep(interval.total_seconds())
            self.expire_due()

    def _apply(self, writes: Sequence[Write]) -> None:
        """Make the writes at one new revision, or at none when nothing changes."""
        entries, leases = self._entries, self._leases
        revision = self._revision + 1
        changes: list[Change] = []
        for write in writes:
            key = write.key
            old = entries.get(key)
            if old is not None and old.lease_id:
                leases[old.lease_id].keys.discard(key)
            if type(write) is Put:
                entry = Entry(key, write.value, revision, write.lease_id)
                if old is None:
                    insort(self._keys, key)
                if write.lease_id:
                    leases[write.lease_id].keys.add(key)
                entries[key] = entry
                changes.append(Change(key, entry, revision))
            elif old is not None:
                del entries[key]
                del self._keys[bisect_left(self._keys, key)]
                changes.append(Change(key, None, revision))
        if changes:
            self._revision = revision
            self._record(tuple(changes))

    def _record(self, changes: tuple[Change, ...]) -> None:
        self._history.append(changes)
        if len(self._history) > self._history_max:
            self._history.popleft()
            self._compacted = self._revision - len(self._history) + 1
        for watch in [watch for watch in self._watches if not watch.offer(changes)]:
            self._watches.pop(watch, None)

    def _end_lease(self, lease_id: int) -> None:
        lease = self._leases.get(lease_id)
        if lease is not None:
            self._apply([Delete(key) for key in sorted(lease.keys)])
            del self._leases[lease_id]


def _holds(entries: Mapping[str, Entry], only_if: Sequence[Unchanged]) -> bool:
    for expected in only_if:
        entry = entries.get(expected.key)
        if (entry.mod_revision if entry is not None else 0) != expected.mod_revision:
            return False
    return True


def _check_size(writes: Sequence[LargeWrite]) -> None:
    size = 0
    for write in writes:
        check_key(write.key)
        if not isinstance(write, Delete):
            size += len(write.key) + len(write.value)
    if size > REQUEST_BYTES_MAX:
        raise StoreRefused(f"{size} bytes in one transaction: at most {REQUEST_BYTES_MAX}")
