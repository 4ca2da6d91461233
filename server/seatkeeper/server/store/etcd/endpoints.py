"""Which member is called next.

All calls go to one member until it fails; then they go to another, and the failed one is avoided
for a while. Avoided is not excluded: it is used again when no other member can be reached. One that
is of another cluster *is* excluded: see ``cluster_identity.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from seatkeeper.server.store.errors import StoreForeign, StoreUnavailable
from seatkeeper.server.store.etcd.cluster_identity import RECHECK_SECONDS, ClusterIdentity
from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.endpoint import Endpoint

POLL_SECONDS = 0.005
"""How often connecting members are looked at. Waiting for grpc's own notice instead would have to
be cancelled when another member is quicker, and grpc does not promise that this is safe."""

HEAD_START_SECONDS = 0.3
"""How long the other members have to connect before an avoided one is used."""


PROBE_SECONDS_MAX = 0.5
"""How long a member has to say which cluster it is of."""
Probe = Callable[[Endpoint, float], Awaitable[str]]
"""Returns a complaint, or "" ; raises ``StoreUnavailable`` when there is no answer by the deadline."""


class Endpoints:
    """The members of one etcd cluster."""

    def __init__(self, config: EtcdConfig, identity: ClusterIdentity | None = None) -> None:
        self.identity = identity or ClusterIdentity()
        self.probe: Probe | None = None
        """Asks a member which cluster it is of; None: all are taken for ours."""
        self._checking = asyncio.Lock()
        self._all = [Endpoint(address, config) for address in config.addresses]
        self.current = self._all[0]
        """The member in use; maybe not connected."""
        self._closed = False
        self._avoided_seconds = config.endpoint_avoided.total_seconds()

    def ready(self) -> Endpoint | None:
        """Return the member in use when a request to it would leave now, else None."""
        return self.current if self.current.verified and self.current.ready() else None

    async def connect(self, deadline: float) -> Endpoint:
        """Return a member that a request would leave to; connects to all of them at once.

        Raises ``StoreUnavailable`` at ``deadline`` (event-loop time), and ``StoreForeign`` where all
        that can be reached is of another cluster.
        """
        loop = asyncio.get_running_loop()
        for endpoint in self._all:
            await endpoint.renew_channel()
        now = loop.time()
        retry_until = now + min(HEAD_START_SECONDS, (deadline - now) / 2)
        while not self._closed:
            ready = [endpoint for endpoint in self._all if endpoint.ready()]
            for endpoint in ready:
                is_due = endpoint.avoided_until <= now or now >= retry_until
                if is_due and (endpoint.verified or await self._verify(endpoint, deadline)):
                    self.current = endpoint
                    return endpoint
            now = loop.time()
            foreign = self.identity.foreign
            if len(foreign) == len(self._all) or (foreign and now >= deadline):
                raise StoreForeign(self.identity.describe())
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

    async def _verify(self, endpoint: Endpoint, deadline: float) -> bool:
        """Return whether a member is of our cluster, by asking it."""
        loop = asyncio.get_running_loop()
        async with self._checking:  # one asks, and all who wait know
            if endpoint.verified or endpoint.recheck_at > loop.time():
                return endpoint.verified
            if self.probe is None:
                endpoint.verified = True
                return True
            time_limit = min(PROBE_SECONDS_MAX, (deadline - loop.time()) / 2)
            try:
                complaint = await self.probe(endpoint, loop.time() + max(0.05, time_limit))
            except StoreUnavailable:
                self.leave(endpoint)
                return False
            if complaint:
                self.exclude(endpoint, complaint)
                return False
            self.identity.admit(endpoint.address)
            endpoint.verified = True
            return True

    def exclude(self, endpoint: Endpoint, complaint: str) -> None:
        """Leave a member out, because it is another cluster's."""
        self.leave(endpoint)
        endpoint.recheck_at = asyncio.get_running_loop().time() + RECHECK_SECONDS
        self.identity.exclude(endpoint.address, complaint)

    def leave(self, endpoint: Endpoint) -> None:
        """Prefer other members to this one for a while, because a call to it failed."""
        endpoint.verified = False
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
