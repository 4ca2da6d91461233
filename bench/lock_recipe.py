"""etcd's lock recipe, as ``concurrency.Mutex`` of etcd's own client does it: what to compare with.

A key of one's own under the lock's name, attached to a lease that is kept; the key that was created
first has the lock; every other waits until the one before it is gone. One watch stream a client, on
which each wait is a watch of its own, as in that client.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc.aio

from seatkeeper.core.channels import dial
from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.etcd.calls import (
    LEASE_GRANT,
    LEASE_REVOKE,
    RANGE,
    TXN,
    WATCH,
    Method,
    Req,
    Resp,
)
from seatkeeper.server.store.etcd.key_bytes import prefix_range

TTL_SECONDS = 60
CALL_SECONDS = 10.0
WAIT_SECONDS_MAX = 60.0


class LockClient:
    """One client of the recipe: a channel, a lease, and a watch stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._calls: dict[str, Any] = {}
        self._watch = channel.stream_stream(
            WATCH.path,
            request_serializer=WATCH.request.SerializeToString,
            response_deserializer=WATCH.response.FromString,
        )()
        self.lease_id = secrets.randbits(62) + 1

    async def _call(self, method: Method[Req, Resp], request: Req) -> Resp:
        call = self._calls.get(method.path)
        if call is None:
            call = self._calls[method.path] = self._channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return cast("Resp", await call(request, timeout=CALL_SECONDS))

    @classmethod
    @asynccontextmanager
    async def connected(cls, address: str) -> AsyncIterator[LockClient]:
        """Connect to etcd and make a lease; end both in the end."""
        async with dial(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            client = cls(channel)
            lease = pb.LeaseGrantRequest(id=client.lease_id, ttl=TTL_SECONDS)
            await client._call(LEASE_GRANT, lease)
            try:
                yield client
            finally:
                client._watch.cancel()
                revoke = pb.LeaseRevokeRequest(id=client.lease_id)
                await client._call(LEASE_REVOKE, revoke)

    async def lock(self, name: str) -> None:
        """Return when this client has the lock."""
        prefix, end = prefix_range(f"{name}/")
        key = prefix + f"{self.lease_id:x}".encode()
        request = pb.TxnRequest()
        request.compare.add(target=pb.Compare.CREATE, key=key, create_revision=0)
        request.success.add().request_put.CopyFrom(pb.PutRequest(key=key, lease=self.lease_id))
        first = pb.RangeRequest(
            key=prefix,
            range_end=end,
            limit=1,
            sort_order=pb.RangeRequest.ASCEND,
            sort_target=pb.RangeRequest.CREATE,
        )
        request.success.add().request_range.CopyFrom(first)
        answer = await self._call(TXN, request)
        assert answer.succeeded, "a client locks once at a time"
        mine = answer.header.revision
        if answer.responses[1].response_range.kvs[0].key == key:
            return
        before = pb.RangeRequest(
            key=prefix,
            range_end=end,
            limit=1,
            sort_order=pb.RangeRequest.DESCEND,
            sort_target=pb.RangeRequest.CREATE,
            max_create_revision=mine - 1,
        )
        while True:
            found = await self._call(RANGE, before)
            if not found.kvs:
                break
            await self._wait_deleted(found.kvs[0].key, found.header.revision)
        # Whether the lease lived on while it waited.
        own = await self._call(RANGE, pb.RangeRequest(key=key))
        assert own.kvs, "the lease has ended"

    async def unlock(self, name: str) -> None:
        """Give the lock back."""
        request = pb.TxnRequest()
        key = f"{name}/{self.lease_id:x}".encode()
        request.success.add().request_delete_range.key = key
        await self._call(TXN, request)

    async def _wait_deleted(self, key: bytes, seen_at: int) -> None:
        create = pb.WatchCreateRequest(key=key, start_revision=seen_at + 1)
        await self._watch.write(pb.WatchRequest(create_request=create))
        while True:
            answer = await asyncio.wait_for(self._watch.read(), WAIT_SECONDS_MAX)
            assert isinstance(answer, pb.WatchResponse), "etcd ended the stream"
            if any(event.type == pb.Event.DELETE for event in answer.events):
                break
        cancel = pb.WatchCancelRequest(watch_id=answer.watch_id)
        await self._watch.write(pb.WatchRequest(cancel_request=cancel))
