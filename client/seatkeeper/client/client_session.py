"""The session of one client: which process and event loop it belongs to, and who keeps it alive."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import cast

from grpc import aio

from seatkeeper.client.config.values import ClientConfig, TlsConfig
from seatkeeper.client.helper.channel import RelayedChannel
from seatkeeper.client.helper.session import KeptSession
from seatkeeper.client.helper.spawn import why_none
from seatkeeper.client.session.driver import SessionDriver
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.lease import Account
from seatkeeper.client.transport.channels import open_channel
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.core.channels import check_fork
from seatkeeper.core.clock import Clock, FollowedClock, SystemClock
from seatkeeper.core.errors import ClientClosed, OtherLoop
from seatkeeper.v1 import seat_service_pb2 as pb

CLOSE_SECONDS_MAX = 6.0
"""How long closing waits for another event loop to do it."""
_log = logging.getLogger("seatkeeper.client")


class ClientSession:
    """Opened when it is first used, by a helper process or by this process itself.

    With a helper it may be used in several event loops; without one it belongs to the first. It ends
    when nothing refers to it any more.
    """

    def __init__(
        self,
        nodes: NodePicker,
        config: ClientConfig,
        tls: TlsConfig | None,
        clock: Clock,
        account: Account,
    ) -> None:
        self._nodes = nodes
        self._config = config
        self._tls = tls
        self._clock = clock
        self.account = account
        """Whom it is opened for."""
        self._pid = os.getpid()
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._driver: SessionDriver | KeptSession | None = None
        self.kept: KeptSession | None = None
        """The session as the helper keeps it; None: this process keeps it itself."""
        if (
            config.keeper == "helper"
            # A clock of a test's own is not shared with another process.
            and type(clock) is SystemClock
            and _can_have_helper()
        ):
            self.kept = KeptSession(nodes.addresses, config, tls, account)
            # A client that is forgotten must not hold seats without end.
            weakref.finalize(self, self.kept.forget)
        else:
            check_fork()
        self.connect: Callable[[str], aio.Channel] = functools.partial(
            _open, self.kept, config, tls
        )
        """Opens a channel to a node, through the helper where there is one."""

    def driver(self) -> SessionDriver | KeptSession:
        """Return who takes seats under this session. Raises what `check_usable` raises."""
        self.check_usable()
        if self._driver is None and self.kept is not None:
            self._driver = self.kept
        elif self._driver is None:
            self._driver = SessionDriver(
                self._nodes,
                self.connect,
                self._config,
                self.account,
                self._clock,
            )
            if isinstance(self._clock, FollowedClock):
                self._clock.follow(self._driver)
        return self._driver

    def living(self) -> SessionDriver | KeptSession | None:
        """Return who took seats under this session; None where none were, or it is over here."""
        return None if self._is_closed or not self.is_here() else self._driver

    async def credentials(self) -> pb.SessionCredentials:
        """Return what proves that the session is ours, opening it when it is not open."""
        return await self.driver().opened()

    def connect_to_agent(self, address: str, keepalive: timedelta) -> aio.Channel:
        """Return a channel to an agent, which is pinged that often."""
        self.check_usable()
        return _open(self.kept, self._config, self._tls, address, keepalive)

    def is_here(self) -> bool:
        """Return whether this is the process that made the client."""
        return self._pid == os.getpid()

    def state(self) -> HoldingState:
        """Return how sure the client may be of all it holds; LOST while there is no session."""
        if self._driver is None or not self.is_here():
            return HoldingState.LOST
        return self._driver.state()

    def freshen(self) -> None:
        """Read what has arrived, such as new tokens."""
        if self._driver is not None and self.is_here():
            self._driver.freshen()

    def check_usable(self) -> None:
        """Raise `ClientClosed` after a fork or a close, and `OtherLoop` in a second event loop."""
        if self._pid != os.getpid():
            raise ClientClosed(
                "this client came through a fork, where neither its connection nor its session "
                "is its own; make one after forking"
            )
        if self._is_closed:
            raise ClientClosed("this client is closed; make another")
        if self.kept is not None:
            return
        check_fork()
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            self._loop = self._loop or loop
            if self._loop is not loop:
                raise OtherLoop(
                    "this client belongs to the event loop that it was first used in; make one for "
                    'each loop, or leave out keeper="process": then one serves them all'
                )

    async def close(
        self, before: Callable[[], None], after: Callable[[], Awaitable[None]]
    ) -> None:
        """End the session in the loop that it belongs to. Safe to call twice.

        ``before`` and ``after`` are called there, too, unless that loop does not run any more.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._pid != os.getpid():
            return
        home = self._loop
        if home is None or home is asyncio.get_running_loop():
            await self._end(before, after)
        elif home.is_running():
            # In another thread: only there may what belongs to it be touched.
            closing = asyncio.run_coroutine_threadsafe(self._end(before, after), home)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await asyncio.wrap_future(closing)
        elif isinstance(self._driver, SessionDriver):
            await self._driver.close_elsewhere()

    async def _end(
        self, before: Callable[[], None], after: Callable[[], Awaitable[None]]
    ) -> None:
        before()
        if self._driver is not None:
            await self._driver.close()
        await after()


def _open(
    kept: KeptSession | None,
    config: ClientConfig,
    tls: TlsConfig | None,
    address: str,
    keepalive: timedelta | None = None,
) -> aio.Channel:
    if kept is None:
        return open_channel(address, config, tls, keepalive=keepalive)
    return cast("aio.Channel", RelayedChannel(address, kept, keepalive=keepalive))


@functools.cache
def _can_have_helper() -> bool:
    reason = why_none()
    if reason:
        _log.warning(
            "sessions are kept by this process itself, which must not be forked nor hold its "
            "interpreter for long: no helper process can be had, as %s",
            reason,
        )
    return not reason
