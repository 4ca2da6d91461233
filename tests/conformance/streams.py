"""What comes from the other side, taken one command or event at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from tests.conformance.matching import Mismatch, match, matches
from tests.conformance.values import Bindings, Json


class Inbox:
    """What has come, in order, and how it ended."""

    def __init__(self, name: str, kind: Callable[[Json], str] | None = None) -> None:
        """Begin empty. ``kind``: which kind an item is, for what a step ignores."""
        self.name = name
        self._kind = kind or kind_of
        self._items: asyncio.Queue[Json] = asyncio.Queue()
        self._status: Json = None
        self._ended = asyncio.Event()

    def put(self, item: Json) -> None:
        """Add a command or an event."""
        self._items.put_nowait(item)

    def end(self, status: Json) -> None:
        """Note that nothing more will come. Only the first end counts."""
        if not self._ended.is_set():
            self._status = status
            self._ended.set()

    async def expect(
        self,
        patterns: Sequence[Json],
        bindings: Bindings,
        *,
        ignore: Collection[str],
        unordered: bool,
        within: float,
    ) -> None:
        """Take items until each pattern has one. Raises `Mismatch` at the first that fits none."""
        left = list(patterns)
        deadline = asyncio.get_running_loop().time() + within
        while left:
            item = await self._next(deadline, left)
            candidates = left if unordered else left[:1]
            found = next((p for p in candidates if matches(p, item, bindings)), None)
            if found is not None:
                left.remove(found)
            elif self._kind(item) not in ignore:
                why = ""
                try:
                    match(candidates[0], item, bindings, self.name)
                except Mismatch as error:
                    why = str(error)
                raise Mismatch(f"{why}; came: {item!r:.600}")

    async def expect_end(
        self, status: Json, bindings: Bindings, *, ignore: Collection[str], within: float
    ) -> None:
        """Wait for the end; what comes before must be of a kind to ignore."""
        deadline = asyncio.get_running_loop().time() + within
        while (item := await self._next(deadline, None)) is not None:
            if self._kind(item) not in ignore:
                raise Mismatch(f"{self.name}: expected its end; came: {item!r:.600}")
        match(status, self._status, bindings, f"the end of {self.name}")

    async def _next(self, deadline: float, wanted: Sequence[Json] | None) -> Json:
        """Return the next item; None at the end, where that is what is ``wanted``."""
        taking = asyncio.ensure_future(self._items.get())
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.wait(
                {taking, ending}, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if taking.done():
                return taking.result()
            if not ending.done():
                missing = "its end" if wanted is None else f"{wanted[0]!r:.400}"
                raise Mismatch(f"{self.name}: nothing came in time; expected {missing}")
            if not self._items.empty():
                return self._items.get_nowait()
            if wanted is None:
                return None
            raise Mismatch(
                f"{self.name} ended with {self._status!r:.600}; expected {wanted[0]!r:.400}"
            )
        finally:
            taking.cancel()
            ending.cancel()


def kind_of(item: Json) -> str:
    """Return which of the kinds an item is; empty: one that the suite does not know."""
    return next(iter(item), "") if isinstance(item, dict) else ""
