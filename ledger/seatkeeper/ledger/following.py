"""From etcd's change stream to the database, one page after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from seatkeeper.ledger.accounts import Accounts, digest_of
from seatkeeper.ledger.database import (
    HistorySource,
    LedgerDatabase,
    NewHistory,
    Taken,
    TakenOver,
)
from seatkeeper.ledger.rows import Page, Standing
from seatkeeper.server.domain import Instant
from seatkeeper.server.store import (
    Change,
    HistoryCompacted,
    Store,
    StoreError,
    WatchBatch,
    records,
)
from seatkeeper.server.store.keys import Keys

PENDING_MAX = 20_000
"""Rows that wait to be written; then nothing is read until some are."""
GATHER_SECONDS = 0.1
"""How long a page is gathered after its first row."""
IDLE_SECONDS = 10.0
"""How often it is written down how far a quiet history was read."""
SERVICE_SECONDS = 1.0
"""How often it is looked whether there is a service, where there was none."""
PAUSE_MIN = 0.1
PAUSE_MAX = 5.0

BEGAN = "began"
COMPACTED = "compacted"
RESTORED = "restored"
REPLACED = "another store"
"""Causes of a gap, or of a history."""
NOTHING = Standing(0, 0, 0, b"", Instant(0))

_logger = logging.getLogger("seatkeeper.events")


class WallClock(Protocol):
    """The time of day."""

    def now(self) -> Instant:
        """Return Unix time in milliseconds."""
        ...


FAILURES_MAX = 5
"""How often in a row it may go wrong before another ledger is let try."""


class LedgerRefused(Exception):
    """It is not the etcd of that ledger; the message says what to do."""


class _Forked(Exception):
    """The history is another than the one that is written down."""


class _Replaced(Exception):
    """The store holds another service than when it was looked at first."""


class LedgerFollower:
    """Keeps a ledger up to date."""

    def __init__(
        self,
        store: Store,
        database: LedgerDatabase,
        clock: WallClock,
        *,
        keys: Keys | None = None,
        writer: str = "",
    ) -> None:
        """``writer`` is for people: which process writes."""
        self._store = store
        self._database = database
        self._clock = clock
        self._keys = keys or Keys()
        self._writer = writer
        self._epoch = 0
        self._deployment_id = ""
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self.written = 0
        """Up to which revision everything is in the database."""

    async def run(self) -> None:
        """Follow; cancel to stop. Begins anew from the database after whatever goes wrong.

        Returns where it has gone wrong too often with nothing written: another ledger, elsewhere, may
        do better. Raises ``LedgerRefused``.
        """
        pause, failures = PAUSE_MIN, 0
        while failures < FAILURES_MAX:
            before = self.written
            try:
                await self.follow()
            except TakenOver as error:
                _logger.warning("ledger_taken_over", extra={"error": str(error)})
            except (StoreError, SQLAlchemyError, OSError) as error:
                why = f"{type(error).__name__}: {error}"
                _logger.warning("ledger_interrupted", extra={"error": why})
            except LedgerRefused:
                raise
            except _Replaced:
                _logger.warning("ledger_store_replaced")
            except Exception:
                _logger.exception("ledger_failed")
            moved = self.written != before
            pause, failures = (
                (PAUSE_MIN, 0) if moved else (min(2 * pause, PAUSE_MAX), failures + 1)
            )
            await asyncio.sleep(pause)

    async def follow(self) -> None:
        """Go on from what is written, until something goes wrong, and raise that."""
        taken = await asyncio.to_thread(self._database.take_over, self._writer)
        self._epoch = taken.epoch
        source, revision = await self._source()
        if source in taken.earlier:
            raise LedgerRefused(
                "this ledger has followed another etcd, or another prefix, since it followed this one: "
                "give each service a ledger of its own with --ledger-name"
            )
        self._deployment_id = source.deployment_id
        standing = taken.standing
        if standing is None:
            await self._begin(taken, source, BEGAN)
        elif taken.source != source:
            await self._begin(taken, source, REPLACED)
        elif revision < standing.revision:
            await self._begin(taken, source, RESTORED)
        else:
            await self._go_on(taken, source, standing, revision)

    async def _source(self) -> tuple[HistorySource, int]:
        """Return whose history it is, once there is a service, and the store's revision."""
        key = self._keys.deployment()
        while True:
            # A listing's revision is the present one; a member's status may lag behind.
            listing = await self._store.list(key)
            if (entry := listing.find(key)) is not None:
                cluster_id = (await self._store.status()).cluster_id
                deployment_id = records.deployment_id_of(key, entry.value)
                return HistorySource(cluster_id, deployment_id), listing.revision
            _logger.info("ledger_waits_for_a_service", extra={"key": key})
            await asyncio.sleep(SERVICE_SECONDS)

    def _check_deployment(self, changes: Sequence[Change]) -> None:
        key = self._keys.deployment()
        for change in changes:
            if change.key == key and (
                change.entry is None
                or records.deployment_id_of(key, change.entry.value) != self._deployment_id
            ):
                raise _Replaced

    async def _begin(self, taken: Taken, source: HistorySource, cause: str) -> None:
        """Begin a history with what is there now."""
        listing = await self._store.list(f"{self._keys.prefix}/")
        before = taken.standing
        now = self._clock.now()
        if before is None:
            first = Standing(1, 0, 0, b"", Instant(0))
            accounts = Accounts(self._keys, first)
            accounts.begin(listing, now)
        else:
            accounts = Accounts(self._keys, before, taken.opened)
            accounts.find(listing, before.history + 1, cause, now)
        page = accounts.page()
        page.before = before or NOTHING
        await self._write(page, NewHistory(source, cause))
        await self._follow(accounts, listing.revision + 1, listing.revision)

    async def _go_on(
        self, taken: Taken, source: HistorySource, standing: Standing, latest: int
    ) -> None:
        def known() -> Accounts:
            return Accounts(self._keys, standing, taken.opened)

        try:
            if standing.marked:
                # From the revision that is known, to see whether it is the same.
                await self._follow(known(), standing.marked, latest)
            else:
                await self._follow(known(), standing.revision + 1, latest)
        except _Forked:
            await self._begin(taken, source, RESTORED)
        except HistoryCompacted:
            if self.written > standing.revision:
                raise  # it was not at once: go on from there
            if standing.marked:
                try:
                    await self._follow(known(), standing.revision + 1, latest)
                except HistoryCompacted:
                    if self.written > standing.revision:
                        raise
            await self._bridge(known())

    async def _bridge(self, accounts: Accounts) -> None:
        """Go on after what etcd has forgotten."""
        listing = await self._store.list(f"{self._keys.prefix}/")
        accounts.find(listing, accounts.standing.history, COMPACTED, self._clock.now())
        await self._write(accounts.page())
        await self._follow(accounts, listing.revision + 1, listing.revision)

    async def _follow(self, accounts: Accounts, from_revision: int, late_until: int) -> None:
        """Read and write at the same time, until one of both goes wrong."""
        self.written = accounts.standing.revision
        self._changed.clear()
        self._has_room.set()
        reading = asyncio.create_task(self._read(accounts, from_revision, late_until))
        writing = asyncio.create_task(self._keep_writing(accounts))
        both = {reading, writing}
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        for each in done:
            each.result()

    async def _read(self, accounts: Accounts, from_revision: int, late_until: int) -> None:
        prefix = f"{self._keys.prefix}/"
        watch = self._store.watch(prefix, from_revision=from_revision)
        known = accounts.standing
        expected = known.marked if from_revision == known.marked else 0
        async with aclosing(watch):
            async for batch in watch:
                await self._has_room.wait()
                now = self._clock.now()
                for revision, changes in _revisions(batch):
                    if expected:
                        if revision != expected or digest_of(changes) != known.digest:
                            raise _Forked
                        expected = 0
                    elif known.marked < revision <= known.revision:
                        raise _Forked  # where nothing of ours was
                    self._check_deployment(changes)
                    if revision > known.revision:
                        is_late = revision <= late_until
                        accounts.read(revision, changes, now, is_late=is_late)
                if 0 < expected <= batch.revision:
                    raise _Forked
                accounts.passed(batch.revision, now)
                self._changed.set()
                if accounts.pending > PENDING_MAX:
                    self._has_room.clear()

    async def _keep_writing(self, accounts: Accounts) -> None:
        loop = asyncio.get_running_loop()
        idle_until = loop.time() + IDLE_SECONDS
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._changed.clear()
            if not accounts.pending and loop.time() < idle_until:
                continue
            await self._write(accounts.page())
            idle_until = loop.time() + IDLE_SECONDS
            self._has_room.set()

    async def _write(self, page: Page, begins: NewHistory | None = None) -> None:
        await asyncio.to_thread(self._database.write, page, self._epoch, begins)
        self.written = page.after.revision
        _logger.debug("ledger_written", extra={"rows": page.size, "revision": self.written})


def _revisions(batch: WatchBatch) -> Iterator[tuple[int, list[Change]]]:
    for revision, changes in groupby(batch.changes, key=attrgetter("revision")):
        yield revision, list(changes)
