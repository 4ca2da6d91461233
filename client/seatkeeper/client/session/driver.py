"""One client's session as the client uses it: seats, their release, and the end.

What the service and the clock do to the session is `SessionMachine`'s.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Callable
from contextlib import suppress

from grpc import aio

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.lease import NEVER, Account, Lease
from seatkeeper.client.session.machine import SessionMachine
from seatkeeper.client.session.requests import (
    CLIENT_CLOSED,
    Held,
    OnQueued,
    OnState,
    PendingRequest,
    Wanted,
)
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.core.clock import Clock
from seatkeeper.core.errors import ClientClosed
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc

URGE_SECONDS = 1.0
"""Between two renewals that say that a program is active which was called back."""
CLOSE_SECONDS_MAX = 2.0
"""How long closing waits for the service. Without an answer, the lease runs out by itself."""
_log = logging.getLogger("seatkeeper.client")


class SessionDriver:
    """Runs one session: takes seats, gives them back, keeps them alive, survives the nodes.

    Belongs to one event loop. Connects when something is first asked of it.
    """

    def __init__(
        self,
        nodes: NodePicker,
        connect: Callable[[str], aio.Channel],
        config: ClientConfig,
        account: Account,
        clock: Clock,
        *,
        random: Callable[[], float] = random_module.random,
        on_view: Callable[[Lease], None] | None = None,
    ) -> None:
        """Make a session. ``on_view`` is called whenever what may be believed of it has changed."""
        self._nodes = nodes
        self._connect = connect
        self._clock = clock
        self._call_seconds = config.call_timeout.total_seconds()
        self._machine = SessionMachine(nodes, connect, config, account, clock, random)
        self._machine.keeper.on_view = on_view
        self._loop: asyncio.AbstractEventLoop | None = None
        self._urged_at = -NEVER

    @property
    def node(self) -> str | None:
        """The address of the node that it is open on; None: there is no stream now."""
        link = self._machine.link
        return None if link.stream is None else link.address

    async def acquire(
        self,
        wanted: Wanted,
        *,
        wait: float | None,
        on_queued: OnQueued | None = None,
        on_state: OnState | None = None,
    ) -> Held:
        """Take seats. Cancelling leaves the queue, or gives back what was just granted."""
        if self._machine.is_closed:
            raise ClientClosed
        self._loop = asyncio.get_running_loop()
        now = self._clock.now()
        ask = PendingRequest(
            grant_id=wanted.own_id or new_id(),
            wanted=wanted,
            wait=wait,
            asked_at=now,
            future=self._loop.create_future(),
            on_queued=on_queued,
            on_state=on_state,
            expires_at=NEVER if wait is None else now + wait + self._call_seconds,
        )
        self._machine.ask(ask)
        try:
            return await ask.future
        except BaseException:
            # Also when it was granted in the same moment in which the caller was cancelled.
            self._machine.tables.abandon(ask, self._clock.now())
            raise

    def release(self, held: Held) -> asyncio.Future[None] | None:
        """Give seats back; the future ends when the service has confirmed it, or does not answer.

        Returns None when there is nothing to give: released before, or lost.
        """
        if held.grant_id not in self._machine.tables.held:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._machine.tables.leave(held.grant_id, held.pool, self._clock.now(), future)
        return future

    def report_activity(self, held: Held) -> None:
        """Note that the program does something with what is held. Callable from any thread.

        Renewals say so; where the seats are called back, one is sent soon: once in `URGE_SECONDS`.
        """
        now = self._clock.now()
        held.active_at = now
        if held.called is None or now < self._urged_at + URGE_SECONDS or self._loop is None:
            return
        self._urged_at = now
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._renew_soon)

    def _renew_soon(self) -> None:
        self._machine.keeper.renew_soon()
        self._machine.attend()

    async def opened(self) -> pb.SessionCredentials:
        """Return what proves that the session is ours, opening one when there is none."""
        if self._machine.is_closed:
            raise ClientClosed
        if self._machine.keeper.opened is not None:
            return self._machine.keeper.opened.credentials
        future = self._machine.openings.add(self._clock.now())
        self._machine.attend()
        return await future

    def is_waiting(self, pool: str) -> bool:
        """Return whether a request of this client waits for seats of the pool."""
        return any(ask.pool == pool for ask in self._machine.tables.asks.values())

    def state(self) -> HoldingState:
        """Return how sure the holder may be of the session; LOST while there is none."""
        lease = self._machine.keeper.lease
        return HoldingState.LOST if lease is None else lease.state(self._clock.now())

    def renews_at(self) -> float:
        """Return when the session is renewed next, in the past while it is being renewed.

        Infinity: not at all, because there is no session or no stream. Callable from any thread.
        """
        lease = self._machine.keeper.opened
        view = None if lease is None else lease.view
        if view is None or not view.connected:
            return NEVER
        return view.renew_at if view.sent_at is None else -NEVER

    async def close(self) -> None:
        """End the session: everything held is free at once, or at the latest after its ttl."""
        if self._machine.is_closed:
            return
        self._machine.is_closed = True
        self._machine.fail_all(ClientClosed())
        # Before the service is notified: from then on another client may have the seats.
        self._machine.tables.holdings.lose_all(CLIENT_CLOSED)
        try:
            if self._machine.keeper.opened is not None:
                await self._say_goodbye(self._machine.keeper.opened)
        finally:
            self._machine.on_lease_over(CLIENT_CLOSED)
            await self._machine.stop()

    async def close_elsewhere(self) -> None:
        """End the session from another event loop, because its own is gone or does not run."""
        if self._machine.is_closed:
            return
        self._machine.is_closed = True
        lease = self._machine.keeper.opened
        self._machine.tables.holdings.lose_all(CLIENT_CLOSED)
        self._machine.keeper.end()
        if lease is not None:
            await self._close_through_any(lease)

    def bind(self, on_state: OnState | None) -> OnState | None:
        """Return ``on_state``, which is called in this session's only event loop."""
        return on_state

    def freshen(self) -> None:
        """Do nothing: what has arrived is known."""

    async def _say_goodbye(self, lease: Lease) -> None:
        if self._machine.send(pb.SessionCommand(close=pb.Close())):
            timer = self._clock.call_at(
                self._clock.now() + CLOSE_SECONDS_MAX, self._machine.over.set
            )
            await self._machine.over.wait()
            timer.cancel()
            if self._machine.keeper.lease is None:
                return
        # Between two streams, or the node is silent: any other will do.
        await self._close_through_any(lease)

    async def _close_through_any(self, lease: Lease) -> None:
        for address in self._nodes.addresses:
            channel = self._connect(address)
            try:
                await pb_grpc.SeatServiceStub(channel).CloseSession(
                    pb.CloseSessionRequest(credentials=lease.credentials),
                    timeout=CLOSE_SECONDS_MAX / len(self._nodes.addresses),
                )
            except aio.AioRpcError as error:
                _log.info("closing through %s: %s", address, error.details())
            else:
                return
            finally:
                await channel.close()
