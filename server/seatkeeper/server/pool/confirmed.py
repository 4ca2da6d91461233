"""Grants as the store has them, for what must not be said from a view alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from seatkeeper.server.domain import NO_HOLDS, Grant, Guard, Holds, Reclaim
from seatkeeper.server.domain.holds import unanswered
from seatkeeper.server.store import OPERATIONS_MAX, Entry, Put, Store, Unchanged, records
from seatkeeper.server.store.keys import Keys


@dataclass(slots=True)
class Confirmed:
    """Grants of one pool, as they are now."""

    grants: dict[str, Grant] = field(default_factory=dict)
    """Those that exist, by id."""
    reclaims: dict[str, Reclaim] = field(default_factory=dict)
    """Of those that are called back, by id; also where the notice begins when the holder has said that
    it heeds it."""
    holds: Holds = NO_HOLDS
    """What was said of single grants."""
    entries: dict[str, Entry] = field(default_factory=dict)
    """What the grants were read from, by id."""


async def heed(store: Store, grant: Grant, entry: Entry, within: timedelta) -> bool:
    """Write that the holder of a grant heeds reclaims from now on; return whether it is written.

    Where the grant has changed since it was read, nothing is; the next renewal tries again. Raises
    ``StoreError``. A transaction of its own, as a claim is: no decision writes a grant that is there.
    """
    heeding = replace(grant, heeds_within=within)
    put = Put(entry.key, records.encode_grant(heeding), grant.lease_id)
    committed = await store.commit([put], only_if=[Unchanged(entry.key, entry.mod_revision)])
    return committed.succeeded


async def confirmed_grants(
    store: Store, keys: Keys, pool: str, grant_ids: Iterable[str]
) -> Confirmed:
    """Return those of the grants that exist now. Linearizable; raises ``StoreError``.

    A pool with a grant has a guard, so the comparison fails, and the records are read at the revision
    at which it was made.
    """
    found = Confirmed()
    asked, guard = list(grant_ids), keys.guard(pool)
    for first in range(0, len(asked), OPERATIONS_MAX - 1):
        some = asked[first : first + OPERATIONS_MAX - 1]
        names = {keys.grant(pool, grant_id): grant_id for grant_id in some}
        no_guard = Unchanged(guard, 0)
        committed = await store.commit([], only_if=(no_guard,), else_read=[guard, *names])
        decided = committed.read.get(guard)
        known = records.decode_guard(decided.value)[0] if decided else Guard()
        running, found.holds = known.reclaims.running, known.holds
        for key, grant_id in names.items():
            entry = committed.read.get(key)
            if entry is None:
                continue
            found.grants[grant_id] = records.decode_grant(grant_id, entry.value)
            found.entries[grant_id] = entry
            reclaim = running.get(grant_id) or unanswered(known.holds, grant_id, running)
            if reclaim is not None:
                found.reclaims[grant_id] = reclaim
    return found
