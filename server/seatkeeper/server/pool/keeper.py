"""Work on all pools of a node that is looked for again and again: after a change, and in time."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress


class Keeper(ABC):
    """Looks, in a task of its own, as often as the latest look said, and after each change."""

    def __init__(self) -> None:
        """Look at nothing yet."""
        self._changed = asyncio.Event()
        """Set where the next look cannot wait."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @abstractmethod
    async def _look(self) -> float | None:
        """Do what is due; return in how many seconds to look again; None: after a change."""

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            pause = await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
