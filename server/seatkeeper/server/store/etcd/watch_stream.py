"""Many watches on one stream of etcd's.

Theory of operation. A node follows hundreds of pools, and most of them are idle. A stream for each
would cost a question and an answer every few seconds for each; on one stream one question serves all.

etcd answers the making of watches in the order in which it was asked, and from then on names the watch;
so those that are asked for wait in a line. What is delivered is kept for its watch until that is read:
a consumer that is slow holds up no other, and one that leaves ``PENDING_MAX`` changes unread loses its
watch.

etcd says less than one would like when a watch is over, so every way in which it can end is looked for:

- refused: a *created* answer that is *canceled* too (no permission, bad token, bad revision);
- compacted: a canceled answer with a ``compact_revision``;
- the stream ends, with an error or without one;
- the member has lost its leader: it says so only to streams with ``hasleader`` metadata;
- silence: without a word for a quarter of ``watch_silence`` progress is asked for, and any answer is a
  sign of life. Without one for ``watch_silence`` the stream is cancelled. A process that was itself
  paused begins to count anew.

The first two end one watch, the others all of the stream's. All of them become ``WatchEnded``.

Revisions come whole: fragments are not asked for, and etcd then never splits one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.errors import HistoryCompacted, StoreError, WatchEnded
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.calls import WATCH
from seatkeeper.server.store.etcd.endpoint import Endpoint
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.failures import Failure, classify
from seatkeeper.server.store.etcd.key_bytes import prefix_range
from seatkeeper.server.store.etcd.page_entries import decode
from seatkeeper.server.store.interface import Change, Entry, WatchBatch

PENDING_MAX = 200_000
"""Changes that one watch may leave unread."""
QUESTIONS = 4
"""Progress is asked for so many times within the silence that ends a stream."""
_PROGRESS = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
# Before 3.5.13 or so, a bad token was called a lack of permission here.
_TOKEN_REASONS = ("auth token", "permission denied", "user name is empty", "auth store is old")


class Watch:
    """One watch, and what has been delivered for it and not been read."""

    def __init__(self) -> None:
        self.created: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.watch_id: int | None = None
        """What etcd calls it; None: it has not answered. The first of a stream is 0."""
        self.is_closed = False
        self.is_behind = False
        """Whether changes have come since etcd last said how far it is."""
        self._batches: deque[WatchBatch] = deque()
        self._pending = 0
        self._failure: StoreError | None = None
        self._more: asyncio.Future[None] | None = None

    async def read(self) -> WatchBatch:
        """Return what comes next. Raises ``WatchEnded`` once all before the end has been read."""
        while not self._batches:
            if self._failure is not None:
                raise self._failure
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        batch = self._batches.popleft()
        self._pending -= len(batch.changes)
        return batch

    def deliver(self, batch: WatchBatch) -> bool:
        """Keep a batch until it is read; return False when too much is unread."""
        self._batches.append(batch)
        self._pending += len(batch.changes)
        self._wake()
        return self._pending <= PENDING_MAX

    def end(self, failure: StoreError) -> None:
        """Note why nothing more comes."""
        if self._failure is None:
            self._failure = failure
            if not self.created.done():
                self.created.set_exception(failure)
                self.created.exception()  # it may be that no task waits for it any more
            self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class WatchStream:
    """The stream, its reader, and the task that notices when it has fallen silent."""

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
        self.metadata = metadata
        self.is_over = False
        self._endpoint = endpoint
        self._endpoints = endpoints
        self._credentials = credentials
        self._clock = loop.time
        self._call_timeout = call_timeout
        self._silence = silence
        self._answered_at = loop.time()
        self._reported_at = loop.time()
        """When all watches last received how far etcd is."""
        self._silent_for = 0.0
        self._asked: deque[Watch] = deque()
        """Watches that etcd has not answered, in the order in which they were asked for."""
        self._watches: dict[int, Watch] = {}
        self._writing = asyncio.Lock()
        self._asking: asyncio.Task[None] | None = None
        self._call = endpoint.stream(WATCH)(metadata=metadata)
        self._tasks = [
            loop.create_task(self._read_loop()),
            loop.create_task(self._notice_silence()),
        ]

    @property
    def is_idle(self) -> bool:
        """Whether no watch is on it."""
        return not self._watches and not self._asked

    async def create(self, prefix: str, from_revision: int) -> Watch:
        """Start a watch, or raise ``WatchEnded``."""
        first, end = prefix_range(prefix)
        create = pb.WatchCreateRequest(key=first, range_end=end, start_revision=from_revision)
        watch = Watch()
        try:
            async with asyncio.timeout(min(self._call_timeout, self._silence)):
                # Whole, also when the caller goes: what stands in the line is always answered.
                await asyncio.shield(self._start(self._ask(watch, create)))
                await asyncio.shield(watch.created)
        except TimeoutError:
            self._fall_silent(min(self._call_timeout, self._silence))
            raise self._ended("no answer to a new watch in time") from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            self._endpoints.leave(self._endpoint)
            raise self._ended(str(error)) from error
        except asyncio.CancelledError:
            self.drop(watch)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._ended("the store was closed") from None
        return watch

    async def _ask(self, watch: Watch, create: pb.WatchCreateRequest) -> None:
        async with self._writing:
            if self.is_over:
                raise self._ended("its stream has ended")
            self._asked.append(watch)
            await self._call.write(pb.WatchRequest(create_request=create))

    def drop(self, watch: Watch) -> None:
        """Stop a watch. Safe to call twice."""
        watch.is_closed = True
        number = watch.watch_id
        if number is None or self._watches.get(number) is not watch:
            return
        del self._watches[number]
        if not self.is_over:
            cancel = pb.WatchCancelRequest(watch_id=number)
            self._send_soon(pb.WatchRequest(cancel_request=cancel))

    def close(self) -> None:
        """End the stream and all its watches. Safe to call twice."""
        self._end(self._ended("the store was closed"))

    # Reading ----------------------------------------------------------------------------------

    async def _read_loop(self) -> None:
        try:
            while True:
                answer = await self._call.read()
                if not isinstance(answer, pb.WatchResponse):
                    self._endpoints.leave(self._endpoint)
                    raise self._ended("etcd ended the stream")
                self._answered_at = self._clock()
                if complaint := self._endpoints.identity.complaint(answer.header):
                    self._endpoints.exclude(self._endpoint, complaint)
                    raise self._ended(complaint)
                self._dispatch(answer)
        except grpc.aio.AioRpcError as error:
            if classify(error.code(), error.details()) is Failure.TOKEN_REFUSED:
                self._credentials.drop(self.metadata)
            else:
                self._endpoints.leave(self._endpoint)
            self._end(self._ended(error.details() or error.code().name))
        except StoreError as error:
            self._end(error)
        except asyncio.CancelledError:
            silent = f"silent for {self._silent_for:g} s" if self._silent_for else ""
            self._end(self._ended(silent or "the store was closed"))
            raise

    def _dispatch(self, answer: pb.WatchResponse) -> None:
        if answer.created:
            self._created(answer)
        elif answer.canceled:
            if (watch := self._watches.pop(answer.watch_id, None)) is not None:
                watch.end(self._end_of(answer))
        elif answer.events:
            if (watch := self._watches.get(answer.watch_id)) is not None:
                changes = tuple(map(_change, answer.events))
                # Not the header's revision: of a batch from the past, that is the present.
                watch.is_behind = True
                if not watch.deliver(WatchBatch(changes, changes[-1].revision)):
                    self.drop(watch)
                    watch.end(self._ended(f"over {PENDING_MAX} changes unread"))
        else:
            self._progressed(answer.header.revision)

    def _created(self, answer: pb.WatchResponse) -> None:
        watch = self._asked.popleft()
        if answer.canceled:
            watch.end(self._end_of(answer))
            return
        watch.watch_id = answer.watch_id
        self._watches[answer.watch_id] = watch
        if watch.is_closed:  # while it was asked for
            self.drop(watch)
        elif not watch.created.done():
            watch.created.set_result(None)

    def _progressed(self, revision: int) -> None:
        """Say how far etcd is: where something has happened now, elsewhere once in a silence."""
        is_due = self._answered_at >= self._reported_at + self._silence
        if is_due:
            self._reported_at = self._answered_at
        for watch in self._watches.values():
            if watch.is_behind or is_due:
                watch.is_behind = False
                watch.deliver(WatchBatch((), revision))

    def _end_of(self, answer: pb.WatchResponse) -> WatchEnded:
        """Return why etcd ended one watch."""
        if answer.compact_revision:
            return HistoryCompacted(
                f"{self._endpoint.address}: revisions before {answer.compact_revision} are compacted"
            )
        if any(reason in answer.cancel_reason for reason in _TOKEN_REASONS):
            self._credentials.drop(self.metadata)
        return self._ended(answer.cancel_reason or "etcd cancelled the watch")

    # Silence ----------------------------------------------------------------------------------

    async def _notice_silence(self) -> None:
        interval = self._silence / QUESTIONS
        while True:
            slept_at = self._clock()
            await asyncio.sleep(interval)
            now = self._clock()
            if now - slept_at > 2 * interval:
                self._answered_at = now  # this process was away, and nothing was read
            if now - self._answered_at >= self._silence:
                self._fall_silent(self._silence)
                return
            # Not awaited: on a stuck connection a write may take as long as a read.
            if self._asking is None or self._asking.done():
                self._asking = self._send_soon(_PROGRESS)

    def _fall_silent(self, seconds: float) -> None:
        self._silent_for = seconds
        self._credentials.doubt(self.metadata)
        self._endpoints.leave(self._endpoint)
        self._end(self._ended(f"silent for {seconds:g} s"))

    def _send_soon(self, request: pb.WatchRequest) -> asyncio.Task[None]:
        return self._start(self._send(request))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that the end of the stream ends, and nothing else."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_look_at_error)
        self._tasks = [each for each in self._tasks if not each.done()]
        self._tasks.append(task)
        return task

    async def _send(self, request: pb.WatchRequest) -> None:
        # The end of the stream is the reader's to report.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with self._writing:
                await self._call.write(request)

    def _end(self, failure: StoreError) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._call.cancel()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for watch in (*self._asked, *self._watches.values()):
            watch.end(failure)
        self._asked.clear()
        self._watches.clear()

    def _ended(self, reason: str) -> WatchEnded:
        return WatchEnded(f"{self._endpoint.address}: {reason}")


def _look_at_error(task: asyncio.Task[None]) -> None:
    """Retrieve it: a caller that is gone does not, and it would be reported as lost."""
    if not task.cancelled():
        task.exception()


def _change(event: pb.Event) -> Change:
    kv = event.kv
    key = decode(kv.key)
    revision = kv.mod_revision
    if event.type == pb.Event.DELETE:
        return Change(key, None, revision)
    return Change(key, Entry(key, kv.value, revision, kv.lease), revision)
