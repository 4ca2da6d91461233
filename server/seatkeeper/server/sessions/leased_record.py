"""A record of this node in the store that goes when the node does."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import timedelta

from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import LeaseExists, LeaseNotFound, Put, Store, StoreError

logger = logging.getLogger(__name__)


WRITES_MAX = 20
"""A record whose lease ends while it is written is written again this often."""
WRITE_PAUSE = 0.02
"""Seconds between two of those times, times their number: etcd may take a moment to end a lease."""


class LeasedRecord:
    """Keeps one key in the store under a lease of its own."""

    def __init__(self, store: Store, key: str, value: bytes, ttl: timedelta) -> None:
        self._store = store
        self._put = Put(key, value, lease_id_of(key))
        self._ttl = ttl
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Write the record and keep it; returns when it is written. Raises ``StoreError``."""
        await self._write()
        self._task = asyncio.create_task(self._keep_loop())

    async def stop(self, *, remove: bool) -> None:
        """Stop keeping the record. With ``remove`` it goes now, otherwise with its ttl."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if remove:
            try:
                await self._store.revoke_lease(self._put.lease_id)
            except StoreError as error:
                about = {"key": self._put.key, "error": str(error)}
                logger.warning("record_left_to_expire", extra=about)

    async def _write(self) -> None:
        """Make the lease and write the record.

        The lease of a predecessor under the same name may be there, and may end between any two of
        these steps: then all of them are due again, and the lease is ours. Raises ``LeaseNotFound``
        when that happens ``WRITES_MAX`` times.
        """
        for attempt in range(1, WRITES_MAX + 1):
            try:
                try:
                    await self._store.grant_lease(self._put.lease_id, self._ttl)
                except LeaseExists:
                    await self._store.keep_alive(self._put.lease_id)
                await self._store.commit([self._put])
            except LeaseNotFound:
                if attempt == WRITES_MAX:
                    raise
                await asyncio.sleep(WRITE_PAUSE * attempt)
            else:
                return

    async def _keep_loop(self) -> None:
        pause = self._ttl.total_seconds() / 3
        while True:
            await asyncio.sleep(pause * random.uniform(0.8, 1.0))
            try:
                try:
                    await self._store.keep_alive(self._put.lease_id)
                except LeaseNotFound:
                    await self._write()
                pause = self._ttl.total_seconds() / 3
            except StoreError as error:
                pause = min(1.0, self._ttl.total_seconds() / 10)
                about = {"key": self._put.key, "error": str(error), "retry_in_s": pause}
                logger.warning("record_renewal_failed", extra=about)
