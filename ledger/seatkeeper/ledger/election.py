"""Which of several ledgers tries to write. The database decides who does: see `database`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

from seatkeeper.server.store import Put, Store, StoreError, Unchanged

TTL = timedelta(seconds=10)
"""How long a ledger that has died stays elected."""
RENEWALS = 3
"""How often in that time it renews."""
LOOK_SECONDS = 1.0
"""How often one that waits looks whether none is elected."""

_logger = logging.getLogger("seatkeeper.events")


class Election:
    """One candidate for a key on a lease."""

    def __init__(self, store: Store, key: str, value: bytes) -> None:
        """``value``: what the key says of the one that is elected."""
        self._store = store
        self._key = key
        self._value = value

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait until elected, do ``work`` for as long as that lasts, and again; cancel to end.

        ``work`` is cancelled when another may be elected. Returns when ``work`` does. Raises what
        ``work`` raises.
        """
        while True:
            lease = await self._elected()
            try:
                doing = asyncio.ensure_future(work())
                renewing = asyncio.ensure_future(self._renew(lease))
                both = {doing, renewing}
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for each in both:
                        each.cancel()
                    await asyncio.gather(*both, return_exceptions=True)
                if not doing.cancelled():
                    doing.result()
                    return
                _logger.warning("ledger_not_elected")
            finally:
                with suppress(StoreError):
                    await self._store.revoke_lease(lease)

    async def _elected(self) -> int:
        """Wait until elected; return the lease."""
        while True:
            try:
                if await self._store.get(self._key) is None:
                    lease = random.getrandbits(63) | 1
                    await self._store.grant_lease(lease, TTL)
                    put = Put(self._key, self._value, lease)
                    done = await self._store.commit([put], only_if=[Unchanged(self._key, 0)])
                    if done.succeeded:
                        _logger.info("ledger_elected")
                        return lease
                    await self._store.revoke_lease(lease)
            except StoreError as error:
                _logger.warning("ledger_waits_for_etcd", extra={"error": str(error)})
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.0))

    async def _renew(self, lease: int) -> None:
        """Return when another may be elected."""
        clock = asyncio.get_running_loop().time
        until = clock() + TTL.total_seconds()
        while True:
            left = until - clock()
            if left <= 0:
                return
            await asyncio.sleep(min(left, TTL.total_seconds() / RENEWALS))
            asked = clock()
            try:
                ttl = await self._store.keep_alive(lease)
            except StoreError as error:
                if not error.retryable:
                    return
            else:
                until = asked + min(ttl, TTL).total_seconds()
