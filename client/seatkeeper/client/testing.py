"""A service in memory, for tests of programs that take seats.

::

    def test_my_job_waits_for_its_seat() -> None:
        with InMemoryService({"tensorrt": 1}) as service, SeatClient(service.address) as client:
            with client.seat("tensorrt"):
                ...

It is the real node on a real loopback port, with the same decisions, sessions and tokens; only what
it keeps is kept in memory. So a test sees what production would show it: the queue, denials, a
seat that is lost, a service that is away. It needs nothing but this package.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from seatkeeper.client._loop_thread import LoopThread

if TYPE_CHECKING:
    from seatkeeper.client._memory_node import MemoryNode

_T = TypeVar("_T")
DEFAULT_TTL = timedelta(seconds=5)


class InMemoryService:
    """A service for tests: ``with`` or ``async with``. Runs on a thread of its own."""

    def __init__(
        self, pools: Mapping[str, int] | None = None, *, session_ttl: timedelta = DEFAULT_TTL
    ) -> None:
        """Make a service with ``pools`` of so many seats each.

        ``session_ttl`` is what sessions get that do not ask for a ttl of their own; at least 2 s.
        """
        self._pools = dict(pools or {})
        self._session_ttl = session_ttl
        self._thread: LoopThread | None = None
        self._node: MemoryNode | None = None

    @property
    def address(self) -> str:
        """Where it is: ``host:port``. Stays the same over `go_away` and `come_back`."""
        return self._running.address

    def start(self) -> None:
        """Start to serve. ``with`` does this."""
        # Here, because only tests need the server's code.
        from seatkeeper.client._memory_node import MemoryNode

        assert self._thread is None
        self._thread = LoopThread()
        try:
            self._node = self._thread.call(MemoryNode.start(self._pools, self._session_ttl))
        except BaseException:
            self._thread.end(_nothing)
            raise

    def stop(self) -> None:
        """Stop, and forget everything. ``with`` does this. Safe to call twice."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        node, self._node = self._running, None
        thread.end(node.stop)

    def create_pool(self, name: str, seats: int) -> None:
        """Create a pool, or change its capacity."""
        self._call(self._running.put_pool(name, seats))

    def held(self, pool: str) -> int:
        """Return how many seats of a pool are held."""
        return self._call(self._running.count(pool))[0]

    def waiting(self, pool: str) -> int:
        """Return how many tickets wait in a pool's queue."""
        return self._call(self._running.count(pool))[1]

    def lose_sessions(self) -> None:
        """End every session now, as if none had been renewed in time: all seats are lost."""
        self._call(self._running.lose_sessions())

    def go_away(self) -> None:
        """Stop answering, as if every node had died. Sessions run out meanwhile."""
        self._call(self._running.go_away())

    def come_back(self) -> None:
        """Answer again, on the same address."""
        self._call(self._running.come_back())

    def __enter__(self) -> Self:
        """Start to serve."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start to serve."""
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await asyncio.to_thread(self.stop)

    @property
    def _running(self) -> MemoryNode:
        assert self._node is not None, "the service is not running: use it as `with`"
        return self._node

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        assert self._thread is not None
        return self._thread.call(work)


async def _nothing() -> None:
    """Do nothing."""
