"""Grants as the store has them, for what must not be said from a view alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from seatkeeper.server.domain import Grant, Reclaim
from seatkeeper.server.store import OPERATIONS_MAX, Store, Unchanged, records
from seatkeeper.server.store.keys import Keys


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Grants of one pool, as they are now."""

    grants: dict[str, Grant] = field(default_factory=dict)
    """Those that exist, by id."""
    reclaims: dict[str, Reclaim] = field(default_factory=dict)
    """Of those that are called back, by id."""


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
        running = records.decode_guard(decided.value)[0].reclaims.running if decided else {}
        for key, grant_id in names.items():
            entry = committed.read.get(key)
            if entry is None:
                continue
            found.grants[grant_id] = records.decode_grant(grant_id, entry.value)
            if grant_id in running:
                found.reclaims[grant_id] = running[grant_id]
    return found
