"""List, then watch, then list again: how a node keeps a view of a part of the store."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing
from typing import Protocol

from seatkeeper.server.store import Listing, Store, StoreError, WatchBatch

_logger = logging.getLogger("seatkeeper.events")
PAUSE_MIN = 0.02
PAUSE_MAX = 2.0


class View(Protocol):
    """What is kept up to date."""

    def reset(self, listing: Listing) -> None:
        """Replace everything by what was listed."""
        ...

    def apply(self, batch: WatchBatch) -> None:
        """Bring in what changed."""
        ...


class Followed(Protocol):
    """The same of what may be large, and is also notified whether it works."""

    is_current: bool
    """Whether the watch of the store works. Set by ``follow``; False: what is known may be old."""

    async def reset(self, listing: Listing) -> None:
        """Replace everything by what was listed; nothing is delivered before this returns."""
        ...

    def apply(self, batch: WatchBatch) -> None:
        """Bring in what changed."""
        ...


class RelistObserver(Protocol):
    """Where it is reported that a view has to be read again."""

    def relisted(self, what: str, reason: str, /) -> None:
        """Take note that the watch of ``what`` ended."""
        ...


class Follower:
    """Keeps a view of a prefix up to date in the background."""

    def __init__(self, store: Store, prefix: str, view: View, observer: RelistObserver) -> None:
        self._store = store
        self._prefix = prefix
        self._view = view
        self._observer = observer
        self.is_current = False
        """Whether the watch of the store works; False: the view may be old."""
        self._listed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(
            follow(self._store, self._prefix, self, self._observer)
        )

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def ready(self) -> None:
        """Wait for the first listing."""
        await self._listed.wait()

    async def reset(self, listing: Listing) -> None:
        """Apply a listing to the view."""
        self._view.reset(listing)
        self._listed.set()

    def apply(self, batch: WatchBatch) -> None:
        """Apply changes to the view."""
        self._view.apply(batch)


async def follow(store: Store, prefix: str, view: Followed, observer: RelistObserver) -> None:
    """Keep ``view`` equal to what is below ``prefix``, forever; cancel to stop.

    Between the end of a watch and the next listing the view is old, never wrong: it is brought
    up to date by the listing, including what was deleted meanwhile. Retries pause for up to 2 s,
    with jitter, so that a cluster of nodes does not fall upon a store that comes back. What ``view``
    raises is logged, and all is read again.
    """
    pause = PAUSE_MIN
    while True:
        try:
            listing = await store.list(prefix)
            await view.reset(listing)
            view.is_current = True
            watch = store.watch(prefix, from_revision=listing.revision + 1)
            async with aclosing(watch):
                async for batch in watch:
                    pause = PAUSE_MIN
                    view.apply(batch)
        except StoreError as error:
            why = f"{type(error).__name__}: {error}"
            if view.is_current:  # else there was no watch: the listing has failed
                observer.relisted(prefix, why)
                _logger.debug("watch_ended", extra={"what": prefix, "error": why})
        except Exception as error:
            # A bug, or a record that nothing expects. If this ended here, the view would stay old, and
            # who asks would wait for an answer that never comes.
            observer.relisted(prefix, f"{type(error).__name__}: {error}")
            _logger.exception("view_failed", extra={"what": prefix})
        finally:
            view.is_current = False
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, PAUSE_MAX)
