"""Grants as the store has them, for what must not be said from a view alone."""

from __future__ import annotations

from collections.abc import Iterable

from seatkeeper.server.domain import Grant
from seatkeeper.server.store import OPERATIONS_MAX, Store, Unchanged, records
from seatkeeper.server.store.keys import Keys


async def confirmed_grants(
    store: Store, keys: Keys, pool: str, grant_ids: Iterable[str]
) -> dict[str, Grant]:
    """Return those of the grants that exist now, by id. Linearizable; raises ``StoreError``.

    A pool with a grant has a guard, so the comparison fails, and the records are read at the revision
    at which it was made.
    """
    found: dict[str, Grant] = {}
    asked = list(grant_ids)
    for first in range(0, len(asked), OPERATIONS_MAX):
        some = asked[first : first + OPERATIONS_MAX]
        names = {keys.grant(pool, grant_id): grant_id for grant_id in some}
        no_guard = Unchanged(keys.guard(pool), 0)
        committed = await store.commit([], only_if=(no_guard,), else_read=list(names))
        for key, entry in committed.read.items():
            if entry is not None:
                found[names[key]] = records.decode_grant(names[key], entry.value)
    return found
