"""One watch on a ``MemoryStore``: a bounded backlog between the writer and a reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from seatkeeper.server.store.errors import WatchEnded
from seatkeeper.server.store.interface import Change, WatchBatch


class MemoryWatch:
    """Never blocks the writer: a reader that is too far behind is ended instead."""

    def __init__(
        self,
        prefix: str,
        from_revision: int,
        past: Iterable[tuple[Change, ...]],
        backlog_max: int,
    ) -> None:
        """Start with what of ``past`` concerns this watch, however long that is."""
        self._prefix = prefix
        self._from_revision = from_revision
        self._backlog: deque[WatchBatch] = deque()
        self._ended: str | None = None
        self._waiter: asyncio.Future[None] | None = None
        for changes in past:
            self._queue(changes)
        self._backlog_max = backlog_max + len(self._backlog)

    def offer(self, changes: tuple[Change, ...]) -> bool:
        """Queue what of ``changes`` concerns this watch; False when that ended it."""
        if len(self._backlog) >= self._backlog_max:
            self._backlog.clear()
            self.end(f"the reader is more than {self._backlog_max} batches behind")
            return False
        self._queue(changes)
        return True

    def heartbeat(self, revision: int) -> None:
        """Send a reader with nothing to read the store's revision."""
        if not self._backlog and revision >= self._from_revision:
            self._backlog.append(WatchBatch((), revision))
            self._wake()

    def end(self, reason: str) -> None:
        """Raise ``WatchEnded`` to the reader, after what it has not read yet."""
        self._ended = reason
        self._wake()

    async def take(self) -> WatchBatch:
        """Wait for the next batch. One reader at a time. Raises ``WatchEnded``."""
        while not self._backlog:
            if self._ended is not None:
                raise WatchEnded(self._ended)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._backlog.popleft()

    def _queue(self, changes: tuple[Change, ...]) -> None:
        revision = changes[0].revision
        if revision < self._from_revision:
            return
        prefix = self._prefix
        mine = tuple([change for change in changes if change.key.startswith(prefix)])
        if mine:
            self._backlog.append(WatchBatch(mine, revision))
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
