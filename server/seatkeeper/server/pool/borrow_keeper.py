"""Frees borrowed seats of pools that no client uses.

A pool's loop frees what is due, and a node follows a pool while there is something due to come. What
is missing is a node that begins to: after all nodes were restarted, or where the node that lent a seat
is gone. So the owner of each pool that lends seats looks into it once in a while, which begins its
loop; one in which nothing is held is left again as any idle pool.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.keeper import Keeper
from seatkeeper.server.store import StoreError

LOOK_SECONDS = 60.0
"""Seconds until the next look: how late a seat may be freed of a pool that no node follows."""

logger = logging.getLogger(__name__)


class BorrowKeeper(Keeper):
    """Has a pool's owner follow it where its seats may be borrowed."""

    def __init__(
        self,
        catalogue: PoolCatalogue,
        follow: Callable[[str], Awaitable[object]],
        is_elsewhere: Callable[[str], bool],
    ) -> None:
        """Look at nothing yet. ``follow`` begins a pool's loop; ``is_elsewhere``: another owns it."""
        super().__init__()
        self._catalogue = catalogue
        self._follow = follow
        self._is_elsewhere = is_elsewhere

    async def _look(self) -> float | None:
        for pool in self._catalogue.names():
            spec, _ = self._catalogue.spec(pool)
            if spec is None or spec.policy.borrow is None or self._is_elsewhere(pool):
                continue
            try:
                await self._follow(pool)
            except StoreError as error:
                logger.warning(
                    "borrowed_not_looked_at", extra={"pool": pool, "error": str(error)}
                )
        return LOOK_SECONDS
