"""Stands where `SessionDriver` would: the session is the helper's, the belief is shared memory."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta

from seatkeeper.client.config.values import ClientConfig, TlsConfig
from seatkeeper.client.helper import present
from seatkeeper.client.helper.belief import KeptBelief
from seatkeeper.client.helper.frames import Frame, error_from, frame
from seatkeeper.client.helper.kept_grants import KeptGrants
from seatkeeper.client.helper.link import Link
from seatkeeper.client.helper.settings import basis_from, config_fields, tls_fields
from seatkeeper.client.helper.slots import Slot
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.lease import Account
from seatkeeper.client.session.requests import (
    CLIENT_CLOSED,
    Held,
    OnQueued,
    OnState,
    QueuePosition,
    Wanted,
    call_back,
)
from seatkeeper.core.errors import ClientClosed, HelperLost, SeatError
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

CLOSE_SECONDS_MAX = 6.0
"""How long closing waits for the helper, which itself waits for the service."""
TRIES_MAX = 3
ACTIVITY_SECONDS = 0.5
"""Between two reports of a program's activity to its helper."""


class KeptSession:
    """One client's session, kept by the helper. Usable from any event loop of this process."""

    def __init__(
        self,
        addresses: Iterable[str],
        config: ClientConfig,
        tls: TlsConfig | None,
        account: Account,
    ) -> None:
        self._opening = {
            "addresses": list(addresses),
            "config": config_fields(config),
            "tls": tls_fields(tls),
            "account": asdict(account),
            "random": random.random(),
        }
        # Taken again by the end of a client that is forgotten, which may come at any moment.
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._client = 0
        self._opened = 0
        self._slot: Slot | None = None
        self._grants = KeptGrants(kills=config.on_loss == "kill")
        self._waiting: dict[int, str] = {}
        self._doubted = False
        self._closed = False

    async def attached(self) -> tuple[Link, int]:
        """Return the link, and this client's number there. Raises `HelperLost`."""
        for left in reversed(range(TRIES_MAX)):
            if self._closed:
                raise ClientClosed
            link = await present.connected()
            try:
                return link, self._attach(link)
            except HelperLost:
                # It ended in this moment, because it was not needed.
                if not left:
                    raise
        raise AssertionError

    def _attach(self, link: Link) -> int:
        with self._lock:
            if self._closed:
                raise ClientClosed
            if self._link is not link:
                self._client = link.attach(self)
                self._link, self._slot, self._doubted = link, None, False
                self._opened = link.number(self._on_opened)
                link.send(frame("open", client=self._client, id=self._opened, **self._opening))
        if self._closed:
            # Forgotten meanwhile: perhaps before there was anything to report.
            self.forget()
            raise ClientClosed
        return self._client

    def _on_opened(self, answer: Frame | HelperLost) -> None:
        if isinstance(answer, Frame) and answer.op == "ok":
            self._slot = Slot(*answer["slot"])
        elif isinstance(answer, HelperLost):
            self._on_helper_lost()

    # As `SessionDriver` --------------------------------------------------------------------------

    async def acquire(
        self,
        wanted: Wanted,
        *,
        wait: float | None,
        on_queued: OnQueued | None = None,
        on_state: OnState | None = None,
    ) -> Held:
        """Take seats. Cancelling leaves the queue, or gives back what was just granted."""
        link, client = await self.attached()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Held] = loop.create_future()
        bound = self.bind(on_state)

        def handle(answer: Frame | HelperLost) -> None:
            # In whatever thread reads the socket.
            if isinstance(answer, Frame) and answer.op == "queued":
                if on_queued is not None:
                    place = _position(answer, wanted.pool)
                    _in_loop(loop, functools.partial(call_back, on_queued, place))
            elif number in self._grants:
                self._on_update(number, answer)
            elif number in self._waiting:
                outcome = self._outcome(link, number, wanted, answer, bound)
                # A caller that gives the request up does these in the other order, so one of both
                # sees it.
                if number not in self._waiting:
                    self._grants.drop(number)
                elif not _in_loop(loop, functools.partial(_settle, future, outcome)):
                    self._let_go(link, number)

        number = link.number(handle)
        self._waiting[number] = wanted.pool
        try:
            link.send(
                frame(
                    "acquire",
                    wanted.message().SerializeToString(),
                    id=number,
                    client=client,
                    wait=wait,
                    queued=on_queued is not None,
                )
            )
            return await future
        except BaseException:
            # Also when it was granted in the same moment in which the caller was cancelled.
            self._let_go(link, number)
            raise
        finally:
            self._waiting.pop(number, None)

    def release(self, held: Held) -> Awaitable[None] | None:
        """Give seats back; None when there is nothing to give: released before, or lost."""
        belief = held.lease
        assert isinstance(belief, KeptBelief)
        link = self._link
        if not self._grants.drop(belief.number) or link is None:
            return None
        link.forget(belief.number)
        return self._release(link, belief.number, held.work_end)

    def _release(
        self, link: Link, number: int, work_end: seat_pb2.WorkEnd | None
    ) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def handle(_: Frame | HelperLost) -> None:
            link.forget(request)
            _in_loop(loop, functools.partial(_finish, done))

        request = link.number(handle)
        try:
            said = pb.Release(work_end=work_end).SerializeToString()
            link.send(frame("release", said, id=request, client=self._client, of=number))
        except SeatError:
            # Without a helper the lease ends by itself.
            link.forget(request)
            done.set_result(None)
        return done

    def report_activity(self, held: Held) -> None:
        """Have the helper note that the program does something, at most once in `ACTIVITY_SECONDS`."""
        belief, link, now = held.lease, self._link, time.monotonic()
        assert isinstance(belief, KeptBelief)
        if link is None or (
            held.active_at is not None and now < held.active_at + ACTIVITY_SECONDS
        ):
            return
        held.active_at = now
        link.notify(frame("active", client=self._client, of=belief.number))

    async def opened(self) -> pb.SessionCredentials:
        """Return what proves that the session is ours, opening one when there is none."""
        link, client = await self.attached()
        answer = await link.ask("session", {"client": client})
        return pb.SessionCredentials.FromString(answer.body)

    def is_waiting(self, pool: str) -> bool:
        """Return whether a request of this client waits for seats of the pool."""
        return pool in list(self._waiting.values())

    def state(self) -> HoldingState:
        """Return how sure the holder may be of the session; LOST while there is none."""
        link, slot = self._link, self._slot
        if link is None or slot is None or self._closed:
            return HoldingState.LOST
        return KeptBelief(link, 0, slot, slot).state(0.0)

    async def close(self) -> None:
        """End the session: everything held is free at once, or at the latest after its ttl."""
        if self._closed:
            return
        self._closed = True
        self._grants.kills = False
        link = self._link
        if link is None:
            return
        # Before the service is notified: from then on another client may have the seats.
        self._grants.lose_all(CLIENT_CLOSED)
        for number in list(self._waiting):
            link.notify(frame("cancel", client=self._client, of=number))
            self._fail(link, number)
        try:
            with suppress(SeatError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await link.ask("close", {"client": self._client})
        finally:
            self.forget()

    def forget(self) -> None:
        """Have the helper end the session, without waiting for that.

        The garbage collector calls this at any moment and in any thread, so it takes no lock.
        """
        self._closed = True
        self._grants.kills = False
        link = self._link
        if link is not None and link.lost is None:
            link.notify(frame("forget", client=self._client))
            link.forget(self._opened)
            link.detach(self._client)

    def bind(self, on_state: OnState | None) -> OnState | None:
        """Return a callback that is called in the running event loop, from any thread."""
        if on_state is None:
            return None
        loop = asyncio.get_running_loop()
        return lambda state: _notify(loop, on_state, state)

    def freshen(self) -> None:
        """Apply what the helper has said until now, such as new tokens."""
        if self._link is not None and self._link.lost is None:
            self._link.pump()

    # For the link --------------------------------------------------------------------------------

    def look(self) -> float:
        """Report leases that have run out by the clock; return when the next one may."""
        return self._grants.look()

    def is_believing(self) -> bool:
        """Return whether any grant is still believed in."""
        return self._grants.is_believing()

    def _on_helper_lost(self) -> None:
        link = self._link
        if link is None or link.lost is None or self._doubted:
            # Silent, not gone.
            return
        self._doubted = True
        self._grants.on_helper_lost()

    # Requests ------------------------------------------------------------------------------------

    def _outcome(
        self,
        link: Link,
        number: int,
        wanted: Wanted,
        answer: Frame | HelperLost,
        on_state: OnState | None,
    ) -> Held | SeatError:
        if isinstance(answer, HelperLost):
            return HelperLost(str(answer))
        if answer.op != "ok":
            link.forget(number)
            return error_from(answer.header)
        return self._grants.add(link, number, wanted, answer, on_state)

    def _on_update(self, number: int, update: Frame | HelperLost) -> None:
        if isinstance(update, HelperLost):
            self._on_helper_lost()
        else:
            self._grants.on_update(number, update)

    def _let_go(self, link: Link, number: int) -> None:
        """Give up whatever is or may come of a request: no caller will use it."""
        self._waiting.pop(number, None)
        self._grants.drop(number)
        link.forget(number)
        link.notify(frame("cancel", client=self._client, of=number))

    def _fail(self, link: Link, number: int) -> None:
        handler = link.handler(number)
        if handler is not None:
            fields = {"kind": "ClientClosed", "message": str(ClientClosed())}
            handler(frame("error", id=number, **fields))


def _settle(future: asyncio.Future[Held], outcome: Held | SeatError) -> None:
    if future.done():
        # Cancelled a moment ago; its caller gives the seats back.
        return
    if isinstance(outcome, Held):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _in_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], object]) -> bool:
    """Have ``work`` done in ``loop``; return whether that loop still is."""
    try:
        loop.call_soon_threadsafe(work)
    except RuntimeError:
        return False
    return True


def _notify(loop: asyncio.AbstractEventLoop, on_state: OnState, state: HoldingState) -> None:
    _in_loop(loop, functools.partial(call_back, on_state, state))


def _position(answer: Frame, pool: str) -> QueuePosition:
    estimate = answer["estimate"]
    between = answer.header.get("between")
    return QueuePosition(
        int(answer["position"]),
        None if estimate is None else timedelta(seconds=estimate),
        basis_from(answer["basis"]),
        bool(answer.header.get("waits_for_work")),
        None if between is None else _span(*between),
        pool,
    )


def _span(low: float, high: float) -> tuple[timedelta, timedelta]:
    return timedelta(seconds=low), timedelta(seconds=high)
