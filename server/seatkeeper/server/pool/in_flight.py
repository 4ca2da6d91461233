"""A commit on its way, and the two sources that may report its success.

The store answers the commit, and the watch delivers what it wrote. Each decision leaves an id of
its own in the guard, so when the watch shows that id the decision took effect, whatever becomes of
the answer. Under load the watch is often the faster one; when the answer is lost, the only one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from seatkeeper.server.store import Committed


class InFlightCommit:
    """One commit. ``landed`` is its outcome: an answer, an error, or what the watch delivered."""

    def __init__(
        self,
        commit: Coroutine[Any, Any, Committed],
        decision_id: int,
        on_success: Callable[[Committed], None],
    ) -> None:
        """Send ``commit``. ``decision_id`` is what it leaves in the guard, if it writes.

        ``on_success`` is called as soon as either source reports success, before ``landed``:
        a task that awaits that runs only in a later turn of the event loop.
        """
        self.landed: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self.decision_id = decision_id
        self._on_success = on_success
        self._commit = asyncio.ensure_future(commit)
        self._commit.add_done_callback(self._answered)
        self.landed.add_done_callback(self._cancel_with)

    def seen(self, revision: int) -> None:
        """Take note that the watch shows the decision's id in the guard, written at ``revision``."""
        if not self.landed.done():
            self._land(Committed(True, revision))

    def _answered(self, commit: asyncio.Future[Committed]) -> None:
        # The result is retrieved in any case: an error that is never retrieved is reported as lost.
        error = None if commit.cancelled() else commit.exception()
        if self.landed.done():
            return
        if commit.cancelled():
            self.landed.cancel()
        elif error is not None:
            self.landed.set_exception(error)
        else:
            self._land(commit.result())

    def _land(self, committed: Committed) -> None:
        try:
            if committed.succeeded:
                self._on_success(committed)
        except Exception as error:
            self.landed.set_exception(error)
        else:
            self.landed.set_result(committed)

    def _cancel_with(self, landed: asyncio.Future[Committed]) -> None:
        if landed.cancelled():
            self._commit.cancel()
