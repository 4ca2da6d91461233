"""The cluster's secret: proof that a caller can read the store, and so is a node."""

from __future__ import annotations

import secrets

from seatkeeper.server.store import Put, Store, Unchanged
from seatkeeper.server.store.keys import Keys


async def cluster_secret(store: Store, keys: Keys) -> str:
    """Return the secret that all nodes of one store share; the first one makes it.

    Raises ``StoreError``.
    """
    key = keys.secret()
    made = secrets.token_hex(32)
    committed = await store.commit(
        [Put(key, made.encode())], only_if=[Unchanged(key, 0)], else_read=[key]
    )
    entry = committed.read.get(key)
    return made if entry is None else entry.value.decode()
