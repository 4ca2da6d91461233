"""The administration of pools: their specifications, straight in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from seatkeeper.core.amounts import count
from seatkeeper.server.deployment.deployment import fence_base
from seatkeeper.server.domain import Drain, Guard, PoolPolicy, PoolSpec, PoolState, policy_fault
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.pool import lots
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.view_reader import bring_in
from seatkeeper.server.store import Delete, Entry, Put, Store, Unchanged, Write, records
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.store.keys import Keys

ATTEMPTS_MAX = 10
"""A change that loses its race against other changes is tried this often."""
READ_AT_ONCE = 16
"""Pools whose state is read at the same time where all are."""


class PoolError(Exception):
    """A pool cannot be changed as asked."""


class PoolExists(PoolError):
    """There is a pool of this name."""


class PoolNotFound(PoolError):
    """There is no pool of this name."""


class PoolChanged(PoolError):
    """The pool is not as the caller has seen it."""


class PoolInUse(PoolError):
    """The pool has grants or tickets."""


class PolicyBroken(PoolError):
    """The pool would have fewer seats than its policy guarantees."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as it stands."""

    spec: PoolSpec
    revision: int
    state: PoolState
    replaced: PoolSpec | None = None
    """After a change: the specification that it replaced."""


class Pools:
    """Creates, changes, deletes and reads pools, straight from the store."""

    def __init__(self, store: Store, keys: Keys, clock: Clock | None = None) -> None:
        """``clock``: by which lots of changed pools begin at once; None: that is left to nodes."""
        self._store = store
        self._keys = keys
        self._now = clock.now if clock is not None else lambda: None

    async def create(self, spec: PoolSpec) -> PoolView:
        """Create a pool. One that was deleted goes on with its fence. Raises ``PoolExists``."""
        key, guard_key = self._keys.pool(spec.name), self._keys.guard(spec.name)
        for _ in range(ATTEMPTS_MAX):
            guard = await self._store.get(guard_key)
            made, moves = lots.applied(spec, None, self._now())
            writes: list[Write] = [Put(key, records.encode_spec(made))]
            if guard is None:
                first = Guard(fence=await fence_base(self._store, self._keys))
                writes.append(Put(guard_key, records.encode_guard(first)))
            committed = await self._store.commit(
                writes,
                only_if=[Unchanged(key, 0), Unchanged(guard_key, _revision(guard))],
                else_read=[key],
            )
            if committed.succeeded:
                lots.report(spec.name, moves, made.seats)
                return await self.read(spec.name)
            if committed.read[key] is not None:
                raise PoolExists(f"a pool named {spec.name} exists; `pool update` changes it")
        raise _contended(spec.name)

    async def update(
        self,
        spec: PoolSpec,
        *,
        expected_revision: int = 0,
        keep_policy: bool = False,
        keep_lots: bool = False,
    ) -> PoolView:
        """Replace a pool's specification. Raises ``PoolNotFound``, ``PoolChanged`` or ``PolicyBroken``.

        What a newer version has said of the pool, and this one does not know, stays; with
        ``keep_policy`` so does its policy, and with ``keep_lots`` so do its lots. What nodes have
        written of lots since ``expected_revision`` does not count as a change.
        """
        key = self._keys.pool(spec.name)
        for _ in range(ATTEMPTS_MAX):
            found = await self._store.get(key)
            if found is None:
                raise missing(spec.name)
            before = records.decode_spec(found.value, key)
            if expected_revision and not lots.is_as_seen(
                expected_revision, found.mod_revision, before
            ):
                raise PoolChanged(
                    f"pool {spec.name} is at revision {found.mod_revision}, "
                    f"not {expected_revision}; read it again"
                )
            changed = replacement(spec, before, keep_policy=keep_policy, keep_lots=keep_lots)
            changed, moves = lots.applied(changed, before, self._now())
            committed = await self._store.commit(
                [Put(key, records.encode_spec(changed))],
                only_if=[Unchanged(key, found.mod_revision)],
            )
            if committed.succeeded:
                lots.report(spec.name, moves, changed.seats)
                return replace(await self.read(spec.name), replaced=before)
        raise _contended(spec.name)

    async def set_drain(self, name: str, drain: Drain | None) -> PoolView:
        """Drain a pool, or open it; what it is stays. Raises ``PoolNotFound`` or ``PoolChanged``.

        ``replaced`` is None where nothing was changed, since the pool was open already.
        """
        key = self._keys.pool(name)
        for _ in range(ATTEMPTS_MAX):
            found = await self._store.get(key)
            if found is None:
                raise missing(name)
            before = records.decode_spec(found.value, key)
            if drain is None and before.drain is None:
                return await self.read(name)
            # An administrator's write as every other: who has not seen it is to look again.
            seen_anew = replace(before.lots, edited_revision=0)
            unseen = replace(before.windows, edited_revision=0)
            after = replace(before, drain=drain, lots=seen_anew, windows=unseen)
            committed = await self._store.commit(
                [Put(key, records.encode_spec(after))],
                only_if=[Unchanged(key, found.mod_revision)],
            )
            if committed.succeeded:
                return replace(await self.read(name), replaced=before)
        raise _contended(name)

    async def delete(self, name: str) -> PoolSpec:
        """Delete a pool that is not in use; return its last specification.

        Raises ``PoolNotFound`` or ``PoolInUse``.
        """
        for _ in range(ATTEMPTS_MAX):
            guard = await self._store.get(self._keys.guard(name))
            view = await self.read(name)
            check_unused(view)
            committed = await self._store.commit(
                [Delete(self._keys.pool(name))],
                only_if=[
                    Unchanged(self._keys.pool(name), view.revision),
                    # Read before the grants were: nothing has been granted since.
                    Unchanged(self._keys.guard(name), _revision(guard)),
                ],
            )
            if committed.succeeded:
                return view.spec
        raise _contended(name)

    async def all(self) -> AsyncIterator[tuple[str, PoolView | RecordUnreadable]]:
        """Yield every pool that there is as this begins, each as it stands a little later, sorted.

        Beside its name: the pool, or why it cannot be read.
        """
        listing = await self._store.list(self._keys.pools())
        there = [
            (entry.key.removeprefix(self._keys.pools()), entry) for entry in listing.entries
        ]
        for begin in range(0, len(there), READ_AT_ONCE):
            some = there[begin : begin + READ_AT_ONCE]
            views = await asyncio.gather(*(self._readable(*each) for each in some))
            for (name, _), view in zip(some, views, strict=True):
                yield name, view

    async def read(self, name: str) -> PoolView:
        """Return a pool as it stands. Raises ``PoolNotFound``, or ``RecordUnreadable``."""
        entry = await self._store.get(self._keys.pool(name))
        if entry is None:
            raise missing(name)
        return await self._read(name, entry)

    async def _readable(self, name: str, entry: Entry) -> PoolView | RecordUnreadable:
        try:
            return await self._read(name, entry)
        except RecordUnreadable as error:
            return error

    async def _read(self, name: str, entry: Entry) -> PoolView:
        """Return the pool of a specification that was read."""
        mirror = PoolMirror(self._keys, name)
        listing = await self._store.list(self._keys.seats(name))
        await bring_in(mirror, listing, lambda _: None)
        for error in mirror.unsupported.values():
            raise error
        mirror.state.spec = records.decode_spec(entry.value, entry.key)
        return PoolView(mirror.state.spec, entry.mod_revision, mirror.state)


def replacement(
    spec: PoolSpec, before: PoolSpec, *, keep_policy: bool, keep_lots: bool = False
) -> PoolSpec:
    """Return what is stored when ``spec`` takes the place of ``before``. Raises ``PolicyBroken``.

    What a newer version has said of the pool stays, and whether it is drained; with ``keep_policy`` so
    does its policy. With ``keep_lots`` its lots do, and where it has any, its seats are not changed by
    themselves.
    """
    changed = replace(spec, kept=before.kept, drain=before.drain)
    if keep_lots and before.lots:
        if before.lots.lots and spec.seats != before.seats:
            raise PolicyBroken(
                f"pool {spec.name} has lots, of which {before.seats} seats are in force: change its "
                "lots, or the seats without a contract, with a client that knows them"
            )
        there = before.lots
        changed = changed.with_lots(there if there.lots else replace(there, seats=spec.seats))
    return _with_policy(changed, before.policy) if keep_policy else changed


def check_unused(view: PoolView) -> None:
    """Raise ``PoolInUse`` for a pool with grants or tickets, or with kept seats."""
    if view.state.grants or view.state.tickets or view.state.kept:
        raise PoolInUse(
            f"pool {view.spec.name} has {count(view.state.held, 'seat')} held and "
            f"{count(len(view.state.tickets), 'ticket')} waiting; wait until they are gone"
        )


def _with_policy(spec: PoolSpec, policy: PoolPolicy) -> PoolSpec:
    if (fault := policy_fault(policy, spec.seats_most)) is not None:
        place, name, why = fault
        project = policy.projects[place].project
        raise PolicyBroken(
            f"the policy of pool {spec.name} would not hold: {name} of project {project}: {why}; "
            "change it in the same call"
        )
    for reservation in policy.reservations:
        if 0 < spec.seats_most < reservation.seats:
            raise PolicyBroken(
                f"pool {spec.name} would have {spec.seats_most} seats, and its reservation "
                f"{reservation.name} keeps {reservation.seats}: change it in the same call"
            )
    return replace(spec, policy=policy)


def _revision(entry: Entry | None) -> int:
    return entry.mod_revision if entry else 0


def missing(name: str) -> PoolNotFound:
    """Return the error of a call for a pool that does not exist."""
    return PoolNotFound(f"there is no pool named {name}; `pool list` shows those there are")


def _contended(name: str) -> PoolChanged:
    return PoolChanged(f"pool {name} changes faster than it can be written; try again")
