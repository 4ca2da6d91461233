"""A service in memory, for tests of programs that take seats.

::

    def test_my_job_waits_for_its_seat() -> None:
        with InMemoryService({"tensorrt": 1}) as service, service.client() as client:
            with client.seat("tensorrt"):
                ...

It is the real node on a real loopback port, with the same decisions, sessions and tokens; only what
it keeps is kept in memory. So a test sees what production would show it: the queue, denials, a
seat that is lost, a service that is away.

Its clock can be moved. It and every client that is made in this process while it runs count by the same
clock, which is the machine's until `InMemoryService.advance` moves it on: leases run out, waits end
and tokens expire without waiting.

With pytest, the fixture ``seatkeeper`` is such a service. It needs the extra ``server``.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.grants import AsyncGrant
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.sync import Grant, SeatClient
from seatkeeper.client.transport.loop_thread import LoopThread
from seatkeeper.core.clock import wall_time
from seatkeeper.core.environment import NODES
from seatkeeper.core.errors import InvalidArgument, UsageError
from seatkeeper.core.extras import explain, missing
from seatkeeper.core.typed import check_type
from seatkeeper.testing.movable_clock import MovableClock, share, unshare

if TYPE_CHECKING:
    from seatkeeper.testing.memory_node import MemoryNode

_T = TypeVar("_T")
DEFAULT_TTL = timedelta(seconds=5)
TTL_MIN, TTL_MAX = timedelta(seconds=2), timedelta(hours=1)
NOTICE_SECONDS_MAX = 10.0
"""How long a holder may take to learn that its seats are lost, in real time."""
POLL_SECONDS = 0.002


class InMemoryService:
    """A service for tests: ``with`` or ``async with``. Runs on a thread of its own."""

    def __init__(
        self, pools: Mapping[str, int] | None = None, *, session_ttl: timedelta = DEFAULT_TTL
    ) -> None:
        """Make a service with ``pools`` of so many seats each.

        ``session_ttl`` is what sessions get that do not ask for a ttl of their own: 2 s to 1 h.
        """
        check_type("session_ttl", session_ttl, timedelta)
        if not TTL_MIN <= session_ttl <= TTL_MAX:
            raise InvalidArgument("session_ttl must be from 2 s to 1 h", field="session_ttl")
        self._pools = dict(pools or {})
        self._session_ttl = session_ttl
        self._thread: LoopThread | None = None
        self._node: MemoryNode | None = None
        self._clock = MovableClock()
        self._clients: weakref.WeakSet[SeatClient] = weakref.WeakSet()

    @property
    def address(self) -> str:
        """Where it is: ``host:port``. Stays the same over `go_away` and `come_back`."""
        return self._running.address

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead ``SeatClient.from_env`` and the command line here.

        A program in a process of its own counts by its own clock, which is not moved.
        """
        return {NODES: self.address}

    @property
    def aio(self) -> AsyncControls:
        """The calls that change the world, for coroutines: ``await service.aio.advance(60)``."""
        return AsyncControls(self)

    def start(self) -> None:
        """Start to serve. ``with`` does this.

        Raises `UsageError`, which names what is missing, where the server is not installed.
        """
        assert self._thread is None, "the service runs already"
        if missing("server"):
            raise UsageError(explain("the service in memory", "server"))
        # Here, because only tests need the server's code.
        from seatkeeper.testing.memory_node import MemoryNode, NodeLoop

        self._clock = share()
        self._thread = LoopThread(NodeLoop(self._clock))
        try:
            self._node = self._thread.call(
                MemoryNode.start(self._pools, self._session_ttl, self._clock)
            )
        except BaseException:
            thread, self._thread = self._thread, None
            thread.end(_nothing)
            unshare()
            raise

    def stop(self) -> None:
        """Stop, and forget everything. ``with`` does this. Safe to call twice."""
        if self._thread is None:
            return
        for client in list(self._clients):
            client.close()
        thread, self._thread = self._thread, None
        node, self._node = self._running, None
        try:
            thread.end(node.stop)
        finally:
            unshare()

    # Clients -----------------------------------------------------------------------------------

    def client(
        self,
        *,
        holder: str | None = None,
        project: str = "",
        config: ClientConfig | None = None,
    ) -> SeatClient:
        """Return a client of this service; it is closed with the service at the latest."""
        client = SeatClient(self.address, holder=holder, project=project, config=config)
        self._clients.add(client)
        return client

    def async_client(
        self,
        *,
        holder: str | None = None,
        project: str = "",
        config: ClientConfig | None = None,
    ) -> AsyncSeatClient:
        """Return a client for an event loop; use it as ``async with``, which closes it."""
        return AsyncSeatClient(self.address, holder=holder, project=project, config=config)

    # Pools -------------------------------------------------------------------------------------

    def pool(self, name: str, seats: int = 1) -> str:
        """Create a pool, or change its capacity; return its name."""
        self.create_pool(name, seats)
        return name

    def create_pool(self, name: str, seats: int) -> None:
        """Create a pool, or change its capacity."""
        self._call(self._running.put_pool(name, seats))

    def held(self, pool: str) -> int:
        """Return how many seats of a pool are held."""
        return self._call(self._running.count(pool))[0]

    def waiting(self, pool: str) -> int:
        """Return how many tickets wait in a pool's queue."""
        return self._call(self._running.count(pool))[1]

    def until_waiting(self, pool: str, tickets: int = 1, *, seconds_max: float = 10.0) -> None:
        """Return when so many tickets wait. Raises ``TimeoutError`` after so long, in real time."""
        end = time.monotonic() + seconds_max
        while (waiting := self.waiting(pool)) != tickets:
            if time.monotonic() >= end:
                raise TimeoutError(f"{waiting} tickets wait for {pool}, not {tickets}")
            time.sleep(POLL_SECONDS)

    # Time --------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the date and time of this service: the machine's, moved on by `advance`."""
        return wall_time()

    def advance(self, seconds: float | timedelta, *, renewing: bool = True) -> None:
        """Let time pass at once, for the service and for the clients of this process.

        Sessions of these clients are renewed on the way, as they would be; all else runs out that
        has run out by then: waits, tokens, and leases that are not renewed, such as those of a client
        while the service has gone away. With ``renewing=False`` no client renews anything, as on a
        machine that was suspended for so long: leases shorter than that end, and their holders
        know it when this returns.

        From a coroutine, ``await service.aio.advance(...)``: the event loop must run meanwhile.
        """
        _refuse_in_a_loop("advance")
        span = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        if not 0 <= span < float("inf"):
            raise InvalidArgument(
                "seconds must be at least 0: time does not go back", field="seconds"
            )

        def do_what_is_due() -> None:
            self._call(self._running.do_what_is_due())

        if renewing:
            self._clock.pass_by(span, do_what_is_due)
        else:
            self._clock.move(span)
        do_what_is_due()
        end = time.monotonic() + NOTICE_SECONDS_MAX
        while self._call(self._running.has_waits_that_are_over()) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)

    # Misfortune --------------------------------------------------------------------------------

    def lose(self, grant: Grant | AsyncGrant) -> None:
        """Take the seats of ``grant`` away, as if the service had given them to somebody else.

        Its holder knows when this returns; what else its client holds, it keeps. From a
        coroutine, ``await service.aio.lose(grant)``.
        """
        _refuse_in_a_loop("lose")
        self._call(self._running.lose_grant(grant.pool, grant.grant_id))
        end = time.monotonic() + NOTICE_SECONDS_MAX
        while grant.state is not HoldingState.LOST:
            if time.monotonic() >= end:
                raise TimeoutError(
                    f"{grant!r}: its client was not notified within {NOTICE_SECONDS_MAX:.0f} s that it "
                    "is lost: has the service gone away, or is the client's event loop blocked?"
                )
            time.sleep(POLL_SECONDS)

    def lose_sessions(self) -> None:
        """End every session now, as if none had been renewed in time: all seats are lost.

        The holders are notified soon after.
        """
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


class AsyncControls:
    """What `InMemoryService` can do to the world, without blocking the event loop meanwhile."""

    def __init__(self, service: InMemoryService) -> None:
        self._service = service

    async def advance(self, seconds: float | timedelta, *, renewing: bool = True) -> None:
        """Let time pass at once; as `InMemoryService.advance`."""
        await asyncio.to_thread(self._service.advance, seconds, renewing=renewing)

    async def lose(self, grant: Grant | AsyncGrant) -> None:
        """Take seats away; as `InMemoryService.lose`."""
        await asyncio.to_thread(self._service.lose, grant)

    async def until_waiting(
        self, pool: str, tickets: int = 1, *, seconds_max: float = 10.0
    ) -> None:
        """Return when so many tickets wait; as `InMemoryService.until_waiting`."""
        service = self._service
        await asyncio.to_thread(service.until_waiting, pool, tickets, seconds_max=seconds_max)


def _refuse_in_a_loop(call: str) -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError(
            f"{call}() would block the event loop that must run meanwhile: "
            f"await service.aio.{call}(...)"
        )


async def _nothing() -> None:
    """Do nothing."""
