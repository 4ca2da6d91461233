"""Leases: made and ended by calls, kept alive on one stream for all of them."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.errors import (
    LeaseNotFound,
    OutcomeUnknown,
    StoreRefused,
    StoreUnavailable,
)
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.caller import Caller
from seatkeeper.server.store.etcd.calls import LEASE_GRANT, LEASE_REVOKE, LEASE_TIME_TO_LIVE
from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.keepalive import KeepAliveStream, StreamLostError

PAUSE_SECONDS = 0.02
"""Time between the loss of a stream and the next try."""


class Leases:
    """The leases of one etcd."""

    def __init__(
        self,
        caller: Caller,
        endpoints: Endpoints,
        credentials: Credentials,
        config: EtcdConfig,
    ) -> None:
        self._caller = caller
        self._endpoints = endpoints
        self._credentials = credentials
        self._timeout = config.call_timeout.total_seconds()
        self._stream: KeepAliveStream | None = None
        self._opening = asyncio.Lock()

    async def grant(self, lease_id: int, ttl: timedelta) -> timedelta:
        """Make a lease of this id. Sent once; see ``Store.grant_lease``."""
        if lease_id <= 0:
            raise StoreRefused("a lease id is above 0")
        request = pb.LeaseGrantRequest(id=lease_id, ttl=max(1, math.ceil(ttl.total_seconds())))
        answer = await self._caller.change(LEASE_GRANT, request, self._timeout)
        return timedelta(seconds=answer.ttl)

    async def revoke(self, lease_id: int) -> None:
        """End a lease, also one that has ended."""
        request = pb.LeaseRevokeRequest(id=lease_id)
        try:
            await self._caller.change(LEASE_REVOKE, request, self._timeout)
        except LeaseNotFound:
            return

    async def remaining(self, lease_id: int) -> timedelta | None:
        """Return the time left, rounded down to whole seconds, or None."""
        request = pb.LeaseTimeToLiveRequest(id=lease_id)
        answer = await self._caller.read(LEASE_TIME_TO_LIVE, request, self._timeout)
        return None if answer.ttl < 0 else timedelta(seconds=answer.ttl)

    async def keep_alive(self, lease_id: int) -> timedelta:
        """Restart a lease's clock.

        Sent again when its stream is lost: doing it twice does no harm. Raises
        ``StoreUnavailable`` when it never left, ``OutcomeUnknown`` when it did and no member
        answered before the deadline.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        left = False
        while True:
            try:
                stream = self._stream
                if stream is None or stream.lost:
                    stream = await self._open(deadline)
                left = True
                ttl = await stream.renew(lease_id, deadline)
            except StreamLostError as lost:
                reason = str(lost)
            except StoreUnavailable as unavailable:
                if not left:
                    raise
                raise OutcomeUnknown(str(unavailable)) from unavailable
            else:
                if ttl <= 0:
                    raise LeaseNotFound(f"lease {lease_id:x} has ended")
                return timedelta(seconds=ttl)
            if loop.time() + PAUSE_SECONDS >= deadline:
                raise OutcomeUnknown(f"lease {lease_id:x}: no answer in time: {reason}")
            await asyncio.sleep(PAUSE_SECONDS)

    async def close(self) -> None:
        """End the stream. Safe to call twice."""
        if self._stream is not None:
            await self._stream.close()

    async def _open(self, deadline: float) -> KeepAliveStream:
        """Return the stream, made anew by one of the callers that found it lost."""
        try:
            async with asyncio.timeout_at(deadline), self._opening:
                if self._stream is None or self._stream.lost:
                    if self._stream is not None:
                        await self._stream.close()
                    endpoint = self._endpoints.ready() or await self._endpoints.connect(
                        deadline
                    )
                    metadata = self._credentials.metadata or await self._credentials.fetch(
                        endpoint, deadline
                    )
                    self._stream = KeepAliveStream(
                        endpoint,
                        self._endpoints,
                        self._credentials,
                        metadata,
                        self._timeout / 2,
                    )
                return self._stream
        except TimeoutError:
            raise StoreUnavailable("no keep-alive stream in time") from None
