"""Bringing a listing of a pool into a view without holding up the node's other work.

Reading 100,000 grants takes most of a second of processor time, in which no client of any pool would be
answered. So it is done in steps of about a millisecond, with a turn of the event loop after each.

What a large pool is made of lives as long as the node follows it, and the garbage collector would look
through all of it in one go: another 50 ms for each 100,000 grants, each time. So it is set apart as it
is read. It is freed all the same once it is not referred to; only cycles that are garbage at that
moment, and older than the collection just before, stay.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from seatkeeper.server.pool.context import LISTING_STEP, PoolContext
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.subscribers import Subscribers
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.store import Listing

SET_APART = 10_000
"""Changes after which what was read is set apart from what is looked through for garbage."""


class ViewReader:
    """Brings listings of one pool into its view, and notifies those whom a change concerns."""

    def __init__(
        self,
        context: PoolContext,
        mirror: PoolMirror,
        subscribers: Subscribers,
        waits: WaitTimers,
        changed: Callable[[set[str]], None],
    ) -> None:
        """Read nothing yet. ``changed`` is called after each listing."""
        self._step = context.config.listing_step
        self._mirror = mirror
        self._subscribers = subscribers
        self._waits = waits
        self._changed = changed

    async def bring_in(self, listing: Listing) -> None:
        """Bring a listing of the whole pool into the view. Others run meanwhile."""
        await bring_in(self._mirror, listing, self.review, step=self._step)
        self._changed(set())

    def review(self, grant_ids: set[str]) -> None:
        """Notify clients, and set timers, for these ids."""
        self._subscribers.review(grant_ids, self._mirror.state, self._mirror.ends)
        for grant_id in grant_ids:
            self._mirror.ends.pop(grant_id, None)
        self._waits.review(grant_ids, self._mirror.state)


async def bring_in(
    mirror: PoolMirror,
    listing: Listing,
    review: Callable[[set[str]], None],
    *,
    step: int = LISTING_STEP,
) -> None:
    """Bring a listing of the whole pool into a view.

    ``review`` is called after each step with the grant ids that it affects.
    """
    changes = 0
    for touched in mirror.reset_in_steps(listing, step=step):
        review(touched)
        changes += len(touched)
        if changes >= SET_APART:
            changes = 0
            gc.collect(1)
            gc.freeze()
        await asyncio.sleep(0)
