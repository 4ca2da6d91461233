"""Watches etcd while a run goes on, so that its whole history can be checked afterwards."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import aclosing, suppress
from math import inf

from seatkeeper.oracle.stored import PREFIX
from seatkeeper.server.store import Change, HistoryCompacted, Store, StoreError

LOOK_SECONDS = 0.2
RETRY_SECONDS = 0.2
SLOW_SECONDS = 0.5
CATCH_UP_SECONDS_MAX = 30.0


class RevisionTimes(Mapping[int, float]):
    """When each revision came about: not before this.

    A revision above one that was read, after everything that was asked for before that read: this is
    all that can be known from outside. So a time here is up to one look too early, and more while etcd
    does not answer; what is checked by it is checked that much more leniently, and never wrongly.
    ``by`` says the other side: not after that.
    """

    def __init__(self) -> None:
        self._revisions: list[int] = []
        self._times: list[float] = []
        self._answered: list[float] = []

    def note(self, asked_at: float, revision: int, answered_at: float = inf) -> None:
        """Take a linearizable read that had this revision, between these times."""
        if not self._revisions or revision >= self._revisions[-1]:
            # In this order: the checker looks revisions up from another thread.
            self._times.append(asked_at)
            self._answered.append(answered_at)
            self._revisions.append(revision)

    def by(self, revision: int) -> float:
        """Return a time by which a revision had come about; infinity: that is not known yet."""
        at = bisect_left(self._revisions, revision)
        return self._answered[at] if at < len(self._revisions) else inf

    def __getitem__(self, revision: int) -> float:
        at = bisect_left(self._revisions, revision)
        return self._times[at - 1] if at else 0.0

    def __iter__(self) -> Iterator[int]:
        return iter(self._revisions)

    def __len__(self) -> int:
        return len(self._revisions)


class Witness:
    """Collects every change below a prefix, from the moment it starts."""

    def __init__(self, store: Store, prefix: str = PREFIX) -> None:
        self.changes: list[Change] = []
        self.changed_at = RevisionTimes()
        self.prefix = prefix
        self.slow: list[tuple[float, float]] = []
        """When etcd, or this machine, took more than ``SLOW_SECONDS`` for a read."""
        self.lost = ""
        """Why a part of the history is missing; empty: none is."""
        self._store = store
        self._below = f"{prefix}/"
        self._revision = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def revision(self) -> int:
        """Everything up to this one has been seen."""
        return self._revision

    async def start(self) -> None:
        """Take what there is now as the beginning. Raises ``StoreError``.

        Where other pools are used while the run lasts, their changes are seen as well.
        """
        asked_at = time.monotonic()
        listing = await self._store.list(self._below)
        self.changes += [
            Change(entry.key, entry, entry.mod_revision)
            for entry in sorted(listing.entries, key=lambda entry: entry.mod_revision)
        ]
        self._revision = listing.revision
        self.changed_at.note(asked_at, listing.revision, time.monotonic())
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._look())]

    async def catch_up(self) -> None:
        """Wait until all that has happened before now has been seen, or is lost.

        Raises ``TimeoutError``.
        """
        async with asyncio.timeout(CATCH_UP_SECONDS_MAX):
            while True:
                with suppress(StoreError):
                    present = (await self._store.list(f"{self._below}none/")).revision
                    break
                await asyncio.sleep(RETRY_SECONDS)
            while self._revision < present and not self.lost:
                await asyncio.sleep(RETRY_SECONDS / 4)

    async def stop(self) -> None:
        """Watch no more. Safe to call twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while not self.lost:
            try:
                watch = self._store.watch(self._below, from_revision=self._revision + 1)
                async with aclosing(watch):
                    async for batch in watch:
                        self.changes += batch.changes
                        self._revision = max(self._revision, batch.revision)
            except HistoryCompacted:
                self.lost = f"etcd has thrown away what came after revision {self._revision}"
            except StoreError:
                pass
            await asyncio.sleep(RETRY_SECONDS)

    async def _look(self) -> None:
        while True:
            asked_at = time.monotonic()
            with suppress(StoreError):
                listing = await self._store.list(f"{self._below}none/")
                self.changed_at.note(asked_at, listing.revision, time.monotonic())
            if (answered_at := time.monotonic()) - asked_at > SLOW_SECONDS:
                self.slow.append((asked_at, answered_at))
            await asyncio.sleep(LOOK_SECONDS)
