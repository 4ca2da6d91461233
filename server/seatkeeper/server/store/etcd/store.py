"""The store on etcd."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.errors import StoreForeign, StoreRefused, StoreUnavailable
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.caller import Caller
from seatkeeper.server.store.etcd.calls import ALARM, LEASE_TIME_TO_LIVE, STATUS
from seatkeeper.server.store.etcd.cluster_identity import ClusterIdentity
from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.health import Health
from seatkeeper.server.store.etcd.kv import KeyValues
from seatkeeper.server.store.etcd.lease import Leases
from seatkeeper.server.store.etcd.probe import Prober
from seatkeeper.server.store.etcd.watch import Watches
from seatkeeper.server.store.interface import (
    Committed,
    Entry,
    LargeWrite,
    Listing,
    StoreHealth,
    StoreStatus,
    Unchanged,
    UnwrittenBelow,
    WatchBatch,
    Write,
)


class EtcdStore:
    """The ``Store`` on etcd. Of one event loop, and never carried across a fork.

    Making one costs nothing; members are connected to at the first call.
    """

    def __init__(self, config: EtcdConfig) -> None:
        self._timeout = config.call_timeout.total_seconds()
        self.identity = ClusterIdentity()
        """Which etcd this is of."""
        self._endpoints = Endpoints(config, self.identity)
        credentials = Credentials(config)
        self._prober = Prober(self.identity, credentials)
        self._endpoints.probe = self._prober.probe
        self._caller = Caller(self._endpoints, credentials)
        self._keys = KeyValues(self._caller, config)
        self._watches = Watches(self._endpoints, credentials, config)
        self._health = Health(self._caller, self._endpoints, credentials, self._timeout)
        self._leases = Leases(self._caller, self._endpoints, credentials, config)

    @property
    def is_foreign(self) -> bool:
        """Whether every endpoint is another cluster's, so that nothing can be read or written."""
        return len(self.identity.foreign) >= len(self._endpoints)

    @property
    def endpoint(self) -> str:
        """Address of the member in use, as ``host:port``; for logs and metrics."""
        return self._endpoints.current.address

    async def identify(self) -> None:
        """Ask every endpoint which cluster it is of, and take that of most of them for ours.

        Without it, the first answer decides. Raises ``StoreForeign`` where as many are of another,
        and ``StoreUnavailable`` where none answers in time.
        """
        found = await self._prober.clusters(self._endpoints, self._timeout)
        if not found:
            raise StoreUnavailable("no member of etcd says which cluster it is of")
        counts = Counter(found.values()).most_common(2)
        if len(counts) > 1 and counts[0][1] == counts[1][1]:
            said = ", ".join(f"{address} is of {which:x}" for address, which in found.items())
            raise StoreForeign(
                f"etcd_endpoints are of different clusters: {said}; name the members of one"
            )
        self.identity.pin(counts[0][0])

    async def get(self, key: str) -> Entry | None:
        """Return the entry as of now, or None. Linearizable."""
        return await self._keys.get(key)

    async def list(self, prefix: str) -> Listing:
        """Return all entries whose key starts with ``prefix``, at one revision. Linearizable.

        Read page by page; each page has the configured deadline of its own.
        """
        return await self._keys.list(prefix)

    async def commit(
        self,
        writes: Sequence[Write],
        *,
        only_if: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Committed:
        """Make ``writes`` if every comparison holds; otherwise read ``else_read``.

        Sent to one member, once. Without writes it is a read, and goes on to the next member
        when one does not answer.
        """
        seconds = None if timeout is None else timeout.total_seconds()
        return await self._keys.commit(writes, only_if, else_read, seconds)

    async def commit_large(
        self,
        writes: Sequence[LargeWrite],
        *,
        only_if: Sequence[Unchanged] = (),
        unwritten_below: UnwrittenBelow,
    ) -> Committed:
        """Make many writes at one revision if every comparison holds. Sent to one member, once."""
        return await self._keys.commit_large(writes, only_if, unwritten_below)

    def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Yield every change below ``prefix`` from ``from_revision`` on, until ``WatchEnded``."""
        return self._watches.watch(prefix, from_revision)

    async def grant_lease(self, lease_id: int, ttl: timedelta) -> timedelta:
        """Make a lease of the caller's id and return its ttl, in whole seconds, rounded up.

        etcd does not go below its minimum, which is 2 s at its default election timeout.
        """
        return await self._leases.grant(lease_id, ttl)

    async def keep_alive(self, lease_id: int) -> timedelta:
        """Restart the lease's clock and return its ttl. Raises ``LeaseNotFound``.

        All leases share one stream. Asked again of another member while there is time.
        """
        return await self._leases.keep_alive(lease_id)

    async def revoke_lease(self, lease_id: int) -> None:
        """End the lease and delete its keys. Succeeds also when there was none."""
        await self._leases.revoke(lease_id)

    async def lease_remaining(self, lease_id: int) -> timedelta | None:
        """Return the whole seconds that the lease has left, or None when it does not exist.

        The lease ends within one second more than that.
        """
        return await self._leases.remaining(lease_id)

    async def status(self) -> StoreStatus:
        """Return what the member in use says of itself; its revision may lag behind the others.

        The version is empty where etcd reports it to root only: with users, from 3.5.28 and
        3.6.9 on, until they relaxed it.
        """
        try:
            answer = await self._caller.read(STATUS, pb.StatusRequest(), self._timeout)
            version, header = answer.version, answer.header
        except StoreRefused:
            # Every user may ask about a lease, also one that does not exist.
            lease = pb.LeaseTimeToLiveRequest(id=1)
            version = ""
            header = (await self._caller.read(LEASE_TIME_TO_LIVE, lease, self._timeout)).header
        return StoreStatus("etcd", version, header.cluster_id, header.revision)

    async def alarms(self) -> frozenset[str]:
        """Return the alarms that are on: ``NOSPACE``, ``CORRUPT``, or none."""
        answer = await self._caller.read(ALARM, pb.AlarmRequest(), self._timeout)
        return frozenset(pb.AlarmType.Name(alarm.alarm) for alarm in answer.alarms)

    async def health(self) -> StoreHealth:
        """Look at every member. Never raises; takes one call's deadline where a member is silent."""
        return await self._health.look()

    async def close(self) -> None:
        """Release connections; every call under way fails. Safe to call twice."""
        self._caller.close()
        self._watches.close()
        await self._endpoints.close()
        await self._leases.close()
