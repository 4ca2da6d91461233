"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from seatkeeper.core.errors import ClientClosed, UsageError

_T = TypeVar("_T")
STOP_SECONDS_MAX = 5.0


class LoopThread:
    """Runs coroutines for any thread of this process but its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._pid = os.getpid()
        self._loop = loop or asyncio.new_event_loop()
        # A daemon: a program that forgets to close its client must be able to end.
        self._thread = threading.Thread(target=self._run, name="seatkeeper", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether coroutines can be run: not after `stop`, and not in a forked child."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run ``work`` on the thread. Raises `ClientClosed` or `UsageError` where that cannot be."""
        try:
            if self._pid != os.getpid():
                raise ClientClosed(
                    "this client came through a fork, and its thread did not; "
                    "make one after forking"
                )
            if threading.current_thread() is self._thread:
                raise UsageError(
                    "a callback of the client must not call the client: it would wait for itself"
                )
            if not self._thread.is_alive():
                raise ClientClosed("this client is closed; make another")
        except BaseException:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` and return its result. An interrupt of the waiting thread cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` like `call`, but to its end even if the waiting thread is interrupted."""
        return self.submit(work).result()

    def iterate(self, items: AsyncIterator[_T]) -> Iterator[_T]:
        """Yield what ``items`` yields; leaving the loop ends it."""

        async def next_item() -> tuple[_T, ...]:
            async for item in items:
                return (item,)
            return ()

        async def end() -> None:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

        try:
            while found := self.call(next_item()):
                yield found[0]
        finally:
            if self.is_running:
                self.finish(end())

    def end(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``last()`` to its end, then end the thread. Nothing in a forked child, or twice."""
        if not self.is_running:
            return
        if threading.current_thread() is self._thread:
            # Garbage is collected anywhere, also here, where nothing may be waited for.
            self._finish_up(last)
            return
        try:
            self.finish(last())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS_MAX)

    def end_soon(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have ``last()`` run to its end and the thread end, without waiting for either.

        For the garbage collector, which calls in any thread and in the middle of anything.
        """
        if self.is_running:
            with suppress(RuntimeError):  # it has ended in this moment
                self._loop.call_soon_threadsafe(self._finish_up, last)

    def _finish_up(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(last())
        task.add_done_callback(lambda _: self._loop.stop())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


class ClientThread:
    """The thread of one blocking client, which ends when nothing refers to this any more.

    Everything of the client's holds this: its administration, its seats, a stream that is being read.
    So a client that a program forgets ends, and gives its seats back, but not while it is in use.
    """

    def __init__(
        self, thread: LoopThread, last: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Run coroutines on ``thread``, and ``last()`` in the end."""
        self._thread = thread
        self._last = last
        self._forgotten = weakref.finalize(self, _forgotten, thread, last)
        _note_the_exit()

    @property
    def is_running(self) -> bool:
        """Whether coroutines can be run: not after `end`, and not in a forked child."""
        return self._thread.is_running

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run ``work`` on the thread; as `LoopThread.submit`."""
        return self._thread.submit(work)

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` and return its result; as `LoopThread.call`."""
        return self._thread.call(work)

    def finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` to its end; as `LoopThread.finish`."""
        return self._thread.finish(work)

    def iterate(self, items: AsyncIterator[_T]) -> Iterator[_T]:
        """Yield what ``items`` yields; as `LoopThread.iterate`."""
        yield from self._thread.iterate(items)

    def end(self) -> None:
        """Run ``last()`` to its end, then end the thread. Safe to call twice."""
        if self._forgotten.detach() is not None:
            self._thread.end(self._last)


_is_exiting = False


def _forgotten(thread: LoopThread, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """End a client that nothing refers to any more.

    At the end of the program there is time to give the seats back. At any other time the garbage
    collector calls, perhaps in a thread that the client's end would wait for.
    """
    if _is_exiting:
        thread.end(last)
    else:
        thread.end_soon(last)


@functools.cache
def _note_the_exit() -> None:
    """See to it that `_forgotten` knows of the exit; after ``finalize`` has registered itself."""

    def note() -> None:
        global _is_exiting
        _is_exiting = True

    atexit.register(note)
