"""Which member is called next.

All calls go to one member until it fails; then they go to another, and the failed one is avoided
for a while. Avoided is not excluded: it is used again when no other member can be reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from seatkeeper.server.store.errors import StoreUnavailable
from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.endpoint import Endpoint

POLL_SECONDS = 0.005
"""How often connecting members are looked at. Waiting for grpc's own notice instead would have to
be cancelled when another member is quicker, and grpc does not promise that this is safe."""

HEAD_START_SECONDS = 0.3
"""How long the other members have to connect before an avoided one is used."""


class Endpoints:
    """The members of one etcd cluster."""

    def __init__(self, config: EtcdConfig) -> None:
        self._all = [Endpoint(address, config) for address in config.addresses]
        self.current = self._all[0]
        """The member in use; maybe not connected."""
        self._closed = False
        self._avoided_seconds = config.endpoint_avoided.total_seconds()

    def ready(self) -> Endpoint | None:
        """Return the member in use when a request to it would leave now, else None."""
        return self.current if self.current.ready() else None

    async def connect(self, deadline: float) -> Endpoint:
        """Return a member that a request would leave to; connects to all of them at once.

        Raises ``StoreUnavailable`` at ``deadline`` (event-loop time).
        """
        loop = asyncio.get_running_loop()
        for endpoint in self._all:
            await endpoint.renew_channel()
        now = loop.time()
        patient_until = now + min(HEAD_START_SECONDS, (deadline - now) / 2)
        while not self._closed:
            ready = [endpoint for endpoint in self._all if endpoint.ready()]
            for endpoint in ready:
                if endpoint.avoided_until <= now or now >= patient_until:
                    self.current = endpoint
                    return endpoint
            if now >= deadline:
                addresses = ", ".join(endpoint.address for endpoint in self._all)
                raise StoreUnavailable(f"no member of etcd can be reached at {addresses}")
            await asyncio.sleep(min(POLL_SECONDS, max(0.0, deadline - now)))
            now = loop.time()
        raise StoreUnavailable("the store is closed")

    @property
    def members(self) -> Sequence[Endpoint]:
        """All members, in the order of the configuration."""
        return self._all

    async def connected(self, endpoint: Endpoint, deadline: float) -> bool:
        """Return whether this very member can be reached before ``deadline`` (event-loop time)."""
        loop = asyncio.get_running_loop()
        while not endpoint.ready():
            if self._closed or loop.time() >= deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    def leave(self, endpoint: Endpoint) -> None:
        """Prefer other members to this one for a while, because a call to it failed."""
        endpoint.avoided_until = asyncio.get_running_loop().time() + self._avoided_seconds
        if endpoint is self.current:
            start = self._all.index(endpoint) + 1
            others = self._all[start:] + self._all[:start]
            self.current = min(others, key=lambda other: other.avoided_until)

    def __len__(self) -> int:
        return len(self._all)

    async def close(self) -> None:
        """End every call. Safe to call twice."""
        self._closed = True
        for endpoint in self._all:
            await endpoint.close()
