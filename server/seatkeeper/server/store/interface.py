"""What the service needs of its store, and no more.

The store is a map from keys to values with one revision that grows with every change, as etcd
offers it. Two implementations pass one contract suite (``tests/contract``): ``MemoryStore`` and
``EtcdStore``. Everything above this line is written against the protocol here.

What callers may build on:

- A transaction takes effect entirely or not at all, and all it changes gets one revision.
- A key attached to a lease goes when the lease does, and all keys of one lease go at one revision.
- A watch delivers every change from its first revision on, in order, each revision whole, or it
  ends with ``WatchEnded``. It never skips silently.
- No call outlives its deadline. A call that changes something and whose answer is missing raises
  ``OutcomeUnknown``: it may have happened, and it may still happen later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from seatkeeper.server.domain.immutable import immutable

OPERATIONS_MAX = 128
"""Most writes, and most comparisons, in one transaction (etcd's ``--max-txn-ops`` default)."""
LARGE_WRITES_MAX = 3_000
"""Most writes in one large transaction."""
LARGE_COMPARISONS_MAX = 60
"""Most comparisons of single keys in one large transaction."""


@immutable
class Entry:
    """A key as it was at some revision."""

    key: str
    value: bytes
    mod_revision: int
    """Revision that wrote this value."""
    lease_id: int = 0
    """Lease that the key is attached to; 0: none."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All entries below a prefix at one revision, in the order of keys."""

    entries: Sequence[Entry]
    """May be made as they are looked at: look at many of them in steps."""
    revision: int

    def find(self, key: str) -> Entry | None:
        """Return the entry of this key, if it is listed, without looking at the others."""
        at = bisect_left(self.entries, key, key=lambda entry: entry.key)
        found = self.entries[at] if at < len(self.entries) else None
        return found if found is not None and found.key == key else None


@immutable
class Unchanged:
    """A comparison: ``key`` was last written at ``mod_revision``. 0: the key does not exist."""

    key: str
    mod_revision: int


@immutable
class Put:
    """Write ``value`` under ``key``, attached to ``lease_id`` (0: to none)."""

    key: str
    value: bytes
    lease_id: int = 0


@immutable
class Delete:
    """Remove ``key``; nothing happens when it does not exist."""

    key: str


Write = Put | Delete


@immutable
class PutNew:
    """Write ``value`` under ``key`` where there is nothing; where there is something, it stays."""

    key: str
    value: bytes


@immutable
class PutOver:
    """Write ``value`` over what ``key`` has. Where there is nothing, the whole transaction fails."""

    key: str
    value: bytes


LargeWrite = Put | PutNew | PutOver | Delete


@immutable
class UnwrittenBelow:
    """A comparison: no key that starts with ``prefix`` was written after ``revision``.

    A deletion is not noticed: what is gone has no revision. Write with ``PutOver`` what must be there.
    """

    prefix: str
    revision: int


@immutable
class Committed:
    """What became of a transaction."""

    succeeded: bool
    """True: every comparison held and all writes were made. False: nothing was written."""
    revision: int
    """The store's revision after the transaction; that of its writes when it made any."""
    read: Mapping[str, Entry | None] = field(default_factory=dict)
    """Keys read because a comparison failed; None: the key does not exist."""


@immutable
class Change:
    """One key changed. ``entry`` is None when it was deleted."""

    key: str
    entry: Entry | None
    revision: int


@immutable
class WatchBatch:
    """Changes in order, whole revisions only. Without changes, it says how far the watch is."""

    changes: tuple[Change, ...]
    revision: int
    """Every change up to this revision has been delivered."""


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the store says of itself."""

    kind: str
    """``etcd`` or ``memory``."""
    version: str
    """Empty where the store does not report it."""
    cluster_id: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMember:
    """One member of the store, as its operator wants to see it."""

    name: str
    """What its operator calls it; empty where that is not known."""
    endpoint: str
    """Where it was asked: ``host:port``."""
    is_configured: bool = True
    """False: no endpoint of it was given to this node, so it was not asked."""
    failure: str = ""
    """Why it could not be asked; then nothing below is known."""
    version: str = ""
    is_leader: bool = False
    size_bytes: int = 0
    """Of its database file."""
    used_bytes: int = 0
    """Of that, what a defragmentation would leave."""
    errors: tuple[str, ...] = ()
    """What it says is wrong, in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """How the store is. Nothing of it decides anything: it is for people."""

    members: tuple[StoreMember, ...]
    alarms: frozenset[str] = frozenset()
    """Alarms that are on, such as ``NOSPACE``."""
    leases: int | None = None
    """Number of leases; None: it was not reported."""
    read_time: timedelta | None = None
    """Time of one linearizable read, which needs a quorum; None: there was no answer in time."""


class Store(Protocol):
    """See the module's docstring for what may be built on."""

    async def get(self, key: str) -> Entry | None:
        """Return the entry as of now, or None. Linearizable."""
        ...

    async def list(self, prefix: str) -> Listing:
        """Return all entries whose key starts with ``prefix``, at one revision. Linearizable.

        Pages behind the scenes, so a listing may be larger than one message.
        """
        ...

    async def commit(
        self,
        writes: Sequence[Write],
        *,
        only_if: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Committed:
        """Make ``writes`` if every comparison holds; otherwise read ``else_read``.

        Without writes it is a linearizable check of the comparisons. Each of the three lists
        holds at most ``OPERATIONS_MAX``, and no key is written twice. Never made twice: sent
        once, or again after an answer that proves that nothing happened (a refused token).
        Raises ``OutcomeUnknown`` when the answer is missing, and
        ``LeaseNotFound``, having written nothing, when a put names a lease that does not exist.
        """
        ...

    async def commit_large(
        self,
        writes: Sequence[LargeWrite],
        *,
        only_if: Sequence[Unchanged] = (),
        unwritten_below: UnwrittenBelow,
    ) -> Committed:
        """Make up to ``LARGE_WRITES_MAX`` writes at one revision if every comparison holds.

        ``only_if`` holds at most ``LARGE_COMPARISONS_MAX``, and no key is written twice; puts are
        attached to no lease. It costs the store more than ``commit``: for administration, not for
        decisions. Never made twice; raises what ``commit`` raises. One that fails reads nothing, and
        its revision may be 0.
        """
        ...

    def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Yield every change below ``prefix`` from ``from_revision`` on.

        Batches without changes arrive now and then, also on request of silence detection, as
        proof of life; the first of them says that the watch is established. Ends only by raising
        ``WatchEnded`` (list again, then watch from the listing's revision + 1) or when the
        consumer closes it: read it under ``contextlib.aclosing``.
        """
        ...

    async def grant_lease(self, lease_id: int, ttl: timedelta) -> timedelta:
        """Make a lease of the caller's id and return its ttl, which may be longer than asked.

        Safe to repeat after ``OutcomeUnknown``. Raises ``LeaseExists`` when there is one.
        """
        ...

    async def keep_alive(self, lease_id: int) -> timedelta:
        """Restart the lease's clock and return its ttl. Raises ``LeaseNotFound``.

        May be sent several times until it is answered: doing it twice does no harm.
        """
        ...

    async def revoke_lease(self, lease_id: int) -> None:
        """End the lease and delete its keys. Succeeds also when there was none."""
        ...

    async def lease_remaining(self, lease_id: int) -> timedelta | None:
        """Return the time the lease has left without renewal, or None when it does not exist."""
        ...

    async def status(self) -> StoreStatus:
        """Return what the store says of itself."""
        ...

    async def health(self) -> StoreHealth:
        """Look at every member. Never raises; takes one call's deadline where a member is silent."""
        ...

    async def close(self) -> None:
        """Release connections; every call under way fails. Safe to call twice."""
        ...
