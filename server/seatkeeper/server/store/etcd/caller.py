"""One call to etcd: a member, a token, a deadline, and an honest answer when it fails.

Theory of operation. A request *leaves* when it is handed to a connected channel; before that
nothing can have happened, and ``StoreUnavailable`` is true. From then on only an error that etcd
gives before it proposes the request to its members proves that nothing happened (``failures.py``);
any other end of the call is ``OutcomeUnknown``.

``change`` therefore sends a request once. The one exception is a refused token: etcd looks at the
token before the request. ``read`` sends a request again, to the next member, until its deadline.
"""

from __future__ import annotations

import asyncio
import random

import grpc
import grpc.aio

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.errors import (
    OutcomeUnknown,
    StoreError,
    StoreForeign,
    StoreUnavailable,
)
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.calls import RANGE, TXN, Method, Req, Resp
from seatkeeper.server.store.etcd.cluster_identity import ADVICE
from seatkeeper.server.store.etcd.endpoint import Endpoint
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.failures import Failure, classify, raised

PAUSE_SECONDS_MIN = 0.01
PAUSE_SECONDS_MAX = 0.2
ATTEMPT_SECONDS_MIN = 0.05
"""Shortest time that a member is given to answer a read, where another could be asked."""


_LINEARIZABLE: frozenset[object] = frozenset({RANGE, TXN})
"""Methods whose answers have a revision that never goes back; other answers may lag behind."""
_NO_HEADER = pb.ResponseHeader()


class Caller:
    """Calls etcd's unary methods."""

    def __init__(self, endpoints: Endpoints, credentials: Credentials) -> None:
        self._endpoints = endpoints
        self._credentials = credentials
        self._identity = endpoints.identity
        self._closed = False

    async def change(self, method: Method[Req, Resp], request: Req, timeout: float) -> Resp:
        """Send a request that changes something, once."""
        deadline = asyncio.get_running_loop().time() + timeout
        endpoint = self._endpoints.ready() or await self._endpoints.connect(deadline)
        try:
            return await self._send(endpoint, method, request, deadline)
        except grpc.aio.AioRpcError as error:
            failure = self._learn(endpoint, error)
            raise raised(failure, error, endpoint.address) from error

    async def read(self, method: Method[Req, Resp], request: Req, timeout: float) -> Resp:
        """Send a request that changes nothing, again and again until a member answers it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        pause = PAUSE_SECONDS_MIN
        while True:
            endpoint = self._endpoints.ready() or await self._endpoints.connect(deadline)
            now = loop.time()
            time_limit = deadline - now
            if len(self._endpoints) > 1:
                # Leave time for another member, should this one say nothing.
                time_limit = max(time_limit / 2, min(time_limit, ATTEMPT_SECONDS_MIN))
            try:
                return await self._send(endpoint, method, request, now + time_limit)
            except grpc.aio.AioRpcError as error:
                failure = self._learn(endpoint, error)
                reason: StoreError = raised(failure, error, endpoint.address)
                if failure not in (Failure.UNKNOWN, Failure.NOT_RUN):
                    raise reason from error
            except (StoreUnavailable, OutcomeUnknown) as error:
                reason = error
            if loop.time() + pause >= deadline:
                if isinstance(reason, StoreForeign):
                    raise reason
                raise StoreUnavailable(str(reason)) from reason
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    def close(self) -> None:
        """Refuse calls from now on. Those under way fail when the endpoints close."""
        self._closed = True

    async def _send(
        self, endpoint: Endpoint, method: Method[Req, Resp], request: Req, deadline: float
    ) -> Resp:
        """Send once, and once more where the token was refused; believe only our own cluster."""
        # Before it is sent: what is answered meanwhile may be newer than this answer.
        floor = self._identity.revision if method in _LINEARIZABLE else 0
        answer = await self._sent(endpoint, method, request, deadline)
        header: pb.ResponseHeader = getattr(answer, "header", _NO_HEADER)
        if complaint := self._identity.complaint(header, floor):
            self._endpoints.exclude(endpoint, complaint)
            # Whatever it did, it did to another cluster.
            raise StoreForeign(f"{endpoint.address}: {complaint}. To fix it: {ADVICE}")
        if method in _LINEARIZABLE:
            self._identity.seen(header.revision)
        return answer

    async def _sent(
        self, endpoint: Endpoint, method: Method[Req, Resp], request: Req, deadline: float
    ) -> Resp:
        clock, credentials = asyncio.get_running_loop().time, self._credentials
        try:
            metadata = credentials.metadata or await self._token(endpoint, deadline)
            try:
                answer = await endpoint.unary(method)(
                    request, timeout=deadline - clock(), metadata=metadata
                )
                credentials.trust()
                return answer
            except grpc.aio.AioRpcError as error:
                failure = classify(error.code(), error.details())
                if failure is Failure.UNKNOWN:
                    credentials.doubt(metadata)
                if failure is not Failure.TOKEN_REFUSED or not credentials.renewable:
                    raise
            metadata = await self._token(endpoint, deadline, instead_of=metadata)
            return await endpoint.unary(method)(
                request, timeout=deadline - clock(), metadata=metadata
            )
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, which must not look like our own cancellation.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise OutcomeUnknown("the store was closed") from None
            raise

    async def _token(
        self,
        endpoint: Endpoint,
        deadline: float,
        instead_of: grpc.aio.Metadata | None = None,
    ) -> grpc.aio.Metadata:
        try:
            return await self._credentials.fetch(endpoint, deadline, instead_of=instead_of)
        except StoreUnavailable:
            self._endpoints.leave(endpoint)
            raise

    def _learn(self, endpoint: Endpoint, error: grpc.aio.AioRpcError) -> Failure:
        failure = classify(error.code(), error.details())
        if failure is Failure.UNKNOWN or failure is Failure.NOT_RUN:
            self._endpoints.leave(endpoint)
        return failure
