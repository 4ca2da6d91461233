"""Verifies tokens offline, with keys fetched from the nodes now and then."""

from __future__ import annotations

import asyncio

from seatkeeper.client import AsyncSeatClient, TokenClaims, verify_token
from seatkeeper.core.errors import TokenForOtherMachine, TokenKeyUnknown


class Verifier:
    """Holds the nodes' public keys. A token signed by a key that is not known fetches them anew."""

    def __init__(self, client: AsyncSeatClient, pool: str) -> None:
        self._client = client
        self._pool = pool
        self._jwks = '{"keys": []}'
        self._fetching = asyncio.Lock()

    async def fetch(self) -> None:
        """Fetch the keys. Raises ``ServiceUnavailable``."""
        self._jwks = await self._client.cluster.jwks()

    async def verify(self, token: str) -> TokenClaims:
        """Return what a token for this agent's pool proves. Raises ``TokenInvalid``.

        Also for that of a borrowed seat: who sends it here has not proved to be the machine.
        """
        claims = await self._verified(token)
        if claims.machine is not None:
            raise TokenForOtherMachine("a borrowed seat is for its machine, not for an agent")
        return claims

    async def _verified(self, token: str) -> TokenClaims:
        try:
            return verify_token(token, self._jwks, pool=self._pool)
        except TokenKeyUnknown:
            before = self._jwks
        async with self._fetching:  # many builds with a new node's key: one fetch
            if self._jwks is before:
                await self.fetch()
        return verify_token(token, self._jwks, pool=self._pool)
