"""The link of this process to its helper: started when it is first needed, left behind by a fork."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress

from seatkeeper.client.helper import spawn
from seatkeeper.client.helper.link import Link


class _Present:
    """The link of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.link: Link | None = None

    def get(self) -> Link:
        """Return the link, starting a helper where there is none. Blocks; raises `HelperLost`."""
        with self.lock:
            if self.link is None or self.link.lost is not None:
                self.link = None
                link = Link(spawn.start())
                link.start()
                self.link = link
            return self.link


_present = _Present()


def running() -> Link | None:
    """Return the link of this process, if there is a helper."""
    link = _ours().link
    return link if link is not None and link.lost is None else None


async def connected() -> Link:
    """Return the link of this process, starting a helper where there is none."""
    if (link := running()) is not None:
        return link
    # A thread of its own: the program's executor may be full of those who wait for this.
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Link] = loop.create_future()

    def start() -> None:
        outcome: Link | BaseException
        try:
            outcome = _ours().get()
        except BaseException as error:
            outcome = error

        def notify() -> None:
            if future.done():
                return
            if isinstance(outcome, Link):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

        with suppress(RuntimeError):
            loop.call_soon_threadsafe(notify)

    threading.Thread(target=start, name="seatkeeper-start", daemon=True).start()
    return await future


def _ours() -> _Present:
    # Extensions fork without Python's handlers: uWSGI does so by default.
    if _present.pid != os.getpid():
        _after_fork()
    return _present


def _after_fork() -> None:
    """Let a forked child begin with nothing, and hold none of the parent's descriptors."""
    global _present  # a child's lock may have been taken by a thread it has not
    link, _present = _present.link, _Present()
    if link is not None:
        link.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
