"""The public keys of all nodes, for verifying tokens."""

from __future__ import annotations

import random
from datetime import timedelta

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.events import log as events
from seatkeeper.server.store import Put, Store
from seatkeeper.server.store.formats import readable
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.tokens.signer import jwks

KEPT_MIN = timedelta(seconds=10)


class VerificationKeys:
    """Reads the keys that nodes have published."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def jwks(self) -> str:
        """Return all published keys as a JSON Web Key Set. Linearizable."""
        listing = await self._store.list(self._keys.signing_keys())
        refused = events.record_unreadable
        records = readable(state_pb2.KeyRecord, listing.entries, refused)
        # A key is there once more for each borrowed grant whose token it has signed.
        return jwks(list(dict.fromkeys(record.jwk_json for _, record in records)))

    async def keep(self, kid: str, jwk_json: str, grant_id: str, until: timedelta) -> None:
        """Publish a key for as long as a token of a borrowed grant lives. Raises ``StoreError``.

        The node that signed it may be gone long before. Sent again, the later record takes the place of
        the other.
        """
        lease_id = random.getrandbits(63) | 1
        await self._store.grant_lease(lease_id, max(until, KEPT_MIN))
        record = state_pb2.KeyRecord(jwk_json=jwk_json).SerializeToString()
        key = f"{self._keys.signing_key(kid)}.{grant_id}"
        await self._store.commit([Put(key, record, lease_id)])
