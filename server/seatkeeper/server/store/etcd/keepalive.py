"""One stream that keeps leases alive.

etcd answers in the order it was asked, naming the lease but not the question. Answers are given
to the askers of a lease in their order, so an asker never gets the answer to a question that was
sent *before* its own: a holder that counts a lease from the moment it asked counts too little, not too
much. That is also why two askers for one lease send two questions.

The stream is lost when it ends, and when no message has come for ``time_limit`` seconds while
an answer was due. Everybody waiting then gets ``StreamLostError`` and asks again elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import grpc
import grpc.aio

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.calls import LEASE_KEEP_ALIVE
from seatkeeper.server.store.etcd.endpoint import Endpoint
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.failures import Failure, classify


class StreamLostError(Exception):
    """The answer will not come on this stream."""


class KeepAliveStream:
    """One stream, until it is lost."""

    def __init__(
        self,
        endpoint: Endpoint,
        endpoints: Endpoints,
        credentials: Credentials,
        metadata: grpc.aio.Metadata,
        time_limit: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.lost = False
        self._endpoint = endpoint
        self._endpoints = endpoints
        self._credentials = credentials
        self._metadata = metadata
        self._time_limit = time_limit
        self._clock = loop.time
        self._received_at = 0.0
        self._unsent: deque[int] = deque()
        self._asked = asyncio.Event()
        self._waiting: dict[int, deque[asyncio.Future[int]]] = {}
        self._call = endpoint.stream(LEASE_KEEP_ALIVE)(metadata=metadata)
        self._writer = loop.create_task(self._write())
        self._reader = loop.create_task(self._read())

    async def renew(self, lease_id: int, deadline: float) -> int:
        """Return the lease's new ttl in seconds; 0 or less: it has ended.

        Raises ``StreamLostError``, also at ``deadline``.
        """
        if self.lost:
            raise StreamLostError("the stream was lost")
        asked_at = self._clock()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lease_id, deque()).append(future)
        self._unsent.append(lease_id)
        self._asked.set()
        try:
            while True:
                # A slow stream is left alone as long as it answers anybody.
                silent_at = max(asked_at, self._received_at) + self._time_limit
                timeout = min(deadline, silent_at) - self._clock()
                await asyncio.wait((future,), timeout=max(0.0, timeout))
                if future.done():
                    return future.result()
                if self._clock() >= silent_at:
                    self._credentials.doubt(self._metadata)
                    self._lose("silent", blame=True)
                elif self._clock() >= deadline:
                    raise StreamLostError("no answer before the deadline")
        finally:
            # Left in the queue, so that the answer to it is not taken for the next one's.
            future.cancel()

    async def close(self) -> None:
        """End the stream. Safe to call twice."""
        self._lose("closed", blame=False)
        await asyncio.wait((self._reader, self._writer))

    async def _write(self) -> None:
        request = pb.LeaseKeepAliveRequest()
        # An error of the stream is the reader's to report.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                while self._unsent:
                    request.id = self._unsent.popleft()
                    await self._call.write(request)
                self._asked.clear()
                await self._asked.wait()

    async def _read(self) -> None:
        reason = "etcd ended the stream"
        try:
            while True:
                answer = await self._call.read()
                if not isinstance(answer, pb.LeaseKeepAliveResponse):
                    break
                if complaint := self._endpoints.identity.complaint(answer.header):
                    self._endpoints.exclude(self._endpoint, complaint)
                    reason = complaint
                    break
                self._received_at = self._clock()
                self._credentials.trust()
                waiting = self._waiting.get(answer.id)
                if waiting:
                    future = waiting.popleft()
                    if not waiting:
                        del self._waiting[answer.id]
                    if not future.done():
                        future.set_result(answer.ttl)
        except grpc.aio.AioRpcError as error:
            reason = error.details() or error.code().name
            if classify(error.code(), error.details()) is Failure.TOKEN_REFUSED:
                self._credentials.drop(self._metadata)
        finally:
            self._lose(reason, blame=True)

    def _lose(self, reason: str, *, blame: bool) -> None:
        if self.lost:
            return
        self.lost = True
        if blame:
            self._endpoints.leave(self._endpoint)
        self._call.cancel()
        self._writer.cancel()
        for waiting in self._waiting.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(StreamLostError(f"{self._endpoint.address}: {reason}"))
        self._waiting.clear()
