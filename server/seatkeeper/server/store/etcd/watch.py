"""One watch, on a stream of its own.

Theory of operation. etcd says less than one would like when a watch is over, so every way in
which it can end is looked for:

- refused: a *created* answer that is *canceled* too (no permission, bad token, bad revision);
- compacted: a canceled answer with a ``compact_revision``;
- the stream ends, with an error or without one;
- the member has lost its leader: it says so only to streams with ``hasleader`` metadata;
- silence. A task asks for progress while the reader waits; an answer, or any event, is a sign of
  life. Without one for ``watch_silence`` the stream is cancelled. The time that the consumer
  spends away from the reader does not count: meanwhile no reader listens.

All of them become ``WatchEnded``. One watch a stream, because etcd matches answers to questions
by order only, and a late answer to a lost question would name the wrong watch.

Revisions come whole: fragments are not asked for, and etcd then never splits one. Nothing is
buffered here; a slow consumer is held back by HTTP/2 flow control, and etcd keeps its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import grpc
import grpc.aio

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.errors import HistoryCompacted, StoreError, WatchEnded
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.calls import WATCH
from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.endpoint import Endpoint
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.failures import Failure, classify
from seatkeeper.server.store.etcd.kv import decode, prefix_range
from seatkeeper.server.store.interface import Change, Entry, WatchBatch

_PROGRESS = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
# Before 3.5.13 or so, a bad token was called a lack of permission here.
_TOKEN_REASONS = ("auth token", "permission denied", "user name is empty", "auth store is old")


class Watches:
    """Makes watches."""

    def __init__(
        self, endpoints: Endpoints, credentials: Credentials, config: EtcdConfig
    ) -> None:
        self._endpoints = endpoints
        self._credentials = credentials
        self._call_timeout = config.call_timeout.total_seconds()
        self._silence = config.watch_silence.total_seconds()

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Yield changes below ``prefix`` until ``WatchEnded``. See ``Store.watch``."""
        assert from_revision > 0
        stream = await self._open()
        try:
            await stream.create(prefix, from_revision)
            revision = from_revision - 1
            yield WatchBatch((), revision)
            while True:
                answer = await stream.read()
                if answer.events:
                    changes = tuple(map(_change, answer.events))
                    # Not the header's revision: of a batch from the past, that is the present.
                    revision = changes[-1].revision
                    yield WatchBatch(changes, revision)
                else:
                    revision = max(revision, answer.header.revision)
                    yield WatchBatch((), revision)
        finally:
            stream.close()

    async def _open(self) -> _WatchStream:
        deadline = asyncio.get_running_loop().time() + self._call_timeout
        try:
            endpoint = self._endpoints.ready() or await self._endpoints.connect(deadline)
            metadata = self._credentials.metadata or await self._credentials.fetch(
                endpoint, deadline
            )
            return _WatchStream(
                endpoint,
                self._endpoints,
                self._credentials,
                metadata,
                call_timeout=self._call_timeout,
                silence=self._silence,
            )
        except StoreError as error:
            raise WatchEnded(str(error)) from error


class _WatchStream:
    """The stream, and the task that notices when it has fallen silent."""

    def __init__(
        self,
        endpoint: Endpoint,
        endpoints: Endpoints,
        credentials: Credentials,
        metadata: grpc.aio.Metadata,
        *,
        call_timeout: float,
        silence: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._endpoints = endpoints
        self._credentials = credentials
        self._metadata = metadata
        self._clock = loop.time
        self._silence = silence
        self._silence_max = min(call_timeout, silence)  # until the watch is created
        self._waiting_since: float | None = loop.time()
        self._silent = False
        self._asking: asyncio.Task[None] | None = None
        self._call = endpoint.stream(WATCH)(metadata=metadata)
        self._silence_task = loop.create_task(
            self._notice_silence(min(call_timeout, silence) / 4)
        )

    async def create(self, prefix: str, from_revision: int) -> None:
        """Start the watch, or raise ``WatchEnded``."""
        first, end = prefix_range(prefix)
        create = pb.WatchCreateRequest(
            key=first, range_end=end, start_revision=from_revision, progress_notify=True
        )
        try:
            await self._call.write(pb.WatchRequest(create_request=create))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            self._endpoints.leave(self._endpoint)
            raise self._ended(str(error)) from error
        except asyncio.CancelledError:
            self._reraise_unless_silent()
        answer = await self.read()
        if not answer.created:
            raise self._ended("etcd answered before the watch was made")
        self._silence_max = self._silence

    async def read(self) -> pb.WatchResponse:
        """Return the next answer that is not an end, or raise ``WatchEnded``."""
        self._waiting_since = self._clock()
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if classify(error.code(), error.details()) is Failure.TOKEN_REFUSED:
                self._credentials.drop(self._metadata)
            else:
                self._endpoints.leave(self._endpoint)
            raise self._ended(error.details() or error.code().name) from error
        except asyncio.CancelledError:
            self._reraise_unless_silent()
        finally:
            self._waiting_since = None
        if not isinstance(answer, pb.WatchResponse):
            self._endpoints.leave(self._endpoint)
            raise self._ended("etcd ended the stream")
        if complaint := self._endpoints.identity.complaint(answer.header):
            self._endpoints.exclude(self._endpoint, complaint)
            raise self._ended(complaint)
        if answer.compact_revision:
            raise HistoryCompacted(
                f"{self._endpoint.address}: revisions before {answer.compact_revision} are compacted"
            )
        if answer.canceled:
            if any(reason in answer.cancel_reason for reason in _TOKEN_REASONS):
                self._credentials.drop(self._metadata)
            raise self._ended(answer.cancel_reason or "etcd cancelled the watch")
        return answer

    def close(self) -> None:
        """End the stream. Safe to call twice."""
        self._silence_task.cancel()
        if self._asking is not None:
            self._asking.cancel()
        self._call.cancel()

    async def _notice_silence(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            if self._waiting_since is None:
                continue
            if self._clock() - self._waiting_since >= self._silence_max:
                self._silent = True
                self._credentials.doubt(self._metadata)
                self._endpoints.leave(self._endpoint)
                self._call.cancel()
                return
            # Not awaited: on a stuck connection a write may take as long as a read.
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask_progress())

    async def _ask_progress(self) -> None:
        # The end of the stream is the reader's to report.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(_PROGRESS)

    def _reraise_unless_silent(self) -> None:
        """Distinguish a stream that was cancelled under its reader from a cancelled reader."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        if self._silent:
            raise self._ended(f"silent for {self._silence_max:g} s") from None
        raise self._ended("the store was closed") from None

    def _ended(self, reason: str) -> WatchEnded:
        return WatchEnded(f"{self._endpoint.address}: {reason}")


def _change(event: pb.Event) -> Change:
    kv = event.kv
    key = decode(kv.key)
    revision = kv.mod_revision
    if event.type == pb.Event.DELETE:
        return Change(key, None, revision)
    return Change(key, Entry(key, kv.value, revision, kv.lease), revision)
