"""Watches: all of a store's share one stream, until that ends or its token is no longer good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from seatkeeper.server.store.errors import StoreError, WatchEnded
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.watch_stream import WatchStream
from seatkeeper.server.store.interface import WatchBatch


class Watches:
    """Makes watches."""

    def __init__(
        self, endpoints: Endpoints, credentials: Credentials, config: EtcdConfig
    ) -> None:
        self._endpoints = endpoints
        self._credentials = credentials
        self._call_timeout = config.call_timeout.total_seconds()
        self._silence = config.watch_silence.total_seconds()
        self._opening = asyncio.Lock()
        self._streams: list[WatchStream] = []
        """The last is the one for new watches; others have watches of before its token."""

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Yield changes below ``prefix`` until ``WatchEnded``. See ``Store.watch``."""
        assert from_revision > 0
        stream = await self._stream()
        watch = await stream.create(prefix, from_revision)
        try:
            yield WatchBatch((), from_revision - 1)
            while True:
                yield await watch.read()
        finally:
            stream.drop(watch)
            self._close_unused()

    def close(self) -> None:
        """End every watch. Safe to call twice."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    async def _stream(self) -> WatchStream:
        """Return the stream for a new watch. Raises ``WatchEnded``."""
        async with self._opening:
            last = self._streams[-1] if self._streams else None
            is_good = last is not None and not last.is_over
            if last is not None and is_good and last.metadata is self._credentials.metadata:
                return last
            opened = await self._open()
            self._streams = [each for each in self._streams if not each.is_over]
            self._streams.append(opened)
            self._close_unused()
            return opened

    def _close_unused(self) -> None:
        """Close streams that new watches do not come to, once they have none left."""
        for stream in self._streams[:-1]:
            if stream.is_idle:
                stream.close()
                self._streams.remove(stream)

    async def _open(self) -> WatchStream:
        deadline = asyncio.get_running_loop().time() + self._call_timeout
        try:
            endpoint = self._endpoints.ready() or await self._endpoints.connect(deadline)
            metadata = self._credentials.metadata or await self._credentials.fetch(
                endpoint, deadline
            )
            return WatchStream(
                endpoint,
                self._endpoints,
                self._credentials,
                metadata,
                call_timeout=self._call_timeout,
                silence=self._silence,
            )
        except StoreError as error:
            raise WatchEnded(str(error)) from error
