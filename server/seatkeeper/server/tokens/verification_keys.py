"""The public keys of all nodes, for verifying tokens."""

from __future__ import annotations

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.events import log as events
from seatkeeper.server.store import Store
from seatkeeper.server.store.formats import readable
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.tokens.signer import jwks


class VerificationKeys:
    """Reads the keys that nodes have published."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def jwks(self) -> str:
        """Return all published keys as a JSON Web Key Set. Linearizable."""
        listing = await self._store.list(self._keys.signing_keys())
        refused = events.record_format_unsupported
        records = readable(state_pb2.KeyRecord, listing.entries, refused)
        return jwks([record.jwk_json for _, record in records])
