"""The progress of one build, for one client who may read slower than it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from time import monotonic

from seatkeeper.builder.progress import Progress
from seatkeeper.v1 import build_service_pb2

HEARTBEAT = 5.0
"""Seconds after which the last progress is sent again: the compiler may be silent for long."""


class ProgressFeed:
    """Keeps the newest progress only: an old one is of no use to anybody."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._newest = Progress(phase=build_service_pb2.BUILD_PHASE_RECEIVING)
        self._updated = asyncio.Event()
        self._updated.set()
        self._closed = False
        self._wanted: build_service_pb2.Wanted | None = None

    def want(self, wanted: build_service_pb2.Wanted) -> None:
        """Ask the client for what it is to send."""
        self._wanted = wanted
        self._updated.set()

    def take_wanted(self) -> build_service_pb2.Wanted | None:
        """Return what is to be asked for, once."""
        wanted, self._wanted = self._wanted, None
        return wanted

    def notify(self, progress: Progress) -> None:
        """Take note of progress."""
        self._newest = progress
        self._updated.set()

    def close(self) -> None:
        """Say that there is no more to come."""
        self._closed = True
        self._updated.set()

    async def messages(self) -> AsyncIterator[build_service_pb2.BuildProgress]:
        """Yield the newest progress whenever there is a newer one, until closed."""
        while not self._closed:
            self._updated.clear()
            elapsed = timedelta(seconds=monotonic() - self._began)
            yield self._newest.to_message(elapsed)
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with the event, and
            # then the build of a client that has gone is never stopped.
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self._updated.wait()
