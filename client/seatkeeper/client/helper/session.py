"""Stands where `SessionDriver` would: the session is the helper's, the belief is shared memory."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from seatkeeper.client.config.values import ClientConfig, TlsConfig
from seatkeeper.client.helper import link as links
from seatkeeper.client.helper.frames import Frame, error_from, frame
from seatkeeper.client.helper.link import Link
from seatkeeper.client.helper.settings import basis_from, config_fields, tls_fields
from seatkeeper.client.helper.slots import Slot, boot_ms
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.requests import (
    CLIENT_CLOSED,
    Held,
    OnQueued,
    OnState,
    QueuePosition,
    call_back,
)
from seatkeeper.core.errors import ClientClosed, HelperLost, SeatError
from seatkeeper.v1 import seat_service_pb2 as pb

CLOSE_SECONDS_MAX = 6.0
"""How long closing waits for the helper, which itself waits for the service."""
TRIES_MAX = 3
NEVER = float("inf")
_RAN_OUT = "the lease ran out before it was renewed"


class KeptBelief:
    """What may be believed of one grant: its own slot's word, and its lease's."""

    __slots__ = ("_lease", "_link", "_over", "_pid", "_slot", "number")

    def __init__(self, link: Link, number: int, lease: Slot, slot: Slot) -> None:
        self._link = link
        self._pid = os.getpid()
        self._lease = lease
        self._slot = slot
        self._over = False
        self.number = number
        """The request that took the grant."""

    def state(self, now: float) -> HoldingState:
        """Return what may be believed right now, by the machine's clock and no other."""
        if self._over or self._pid != os.getpid():
            return HoldingState.LOST
        # The words first, the clock last: the answer is true at the time that was read.
        until = min(
            self._link.slots.until_ms(self._lease), self._link.slots.until_ms(self._slot)
        )
        doubt = self._link.slots.doubt_ms(self._lease)
        moment = boot_ms()
        if moment >= until:
            # Final, even if the helper wakes up and finds that the lease was renewed after all.
            self._over = True
            return HoldingState.LOST
        if moment >= doubt or self._link.lost is not None:
            return HoldingState.JEOPARDY
        return HoldingState.SAFE

    def until(self) -> float:
        """Return until when it may be believed if nobody renews it, in seconds since boot."""
        slots = self._link.slots
        return min(slots.until_ms(self._lease), slots.until_ms(self._slot)) / 1000

    def ends_at(self) -> float:
        """Return the same: the margin is not shared, and earlier is safe."""
        return self.until()

    def seconds_left(self) -> float:
        """Return how long it may still be believed if nobody renews it."""
        return max(0.0, self.until() - boot_ms() / 1000)


class KeptSession:
    """One client's session, kept by the helper. Usable from any event loop of this process."""

    def __init__(
        self,
        addresses: Iterable[str],
        config: ClientConfig,
        tls: TlsConfig | None,
        *,
        holder: str,
        project: str,
    ) -> None:
        self._config = config
        self._opening = {
            "addresses": list(addresses),
            "config": config_fields(config),
            "tls": tls_fields(tls),
            "holder": holder,
            "project": project,
            "random": random.random(),
        }
        # Taken again by the end of a client that is forgotten, which may come at any moment.
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._client = 0
        self._opened = 0
        self._slot: Slot | None = None
        self._held: dict[int, Held] = {}
        self._waiting: dict[int, str] = {}
        self._said: dict[int, HoldingState] = {}
        """What holders were told last, where that was not that all is well."""
        self._doubted = False
        self._closed = False

    async def attached(self) -> tuple[Link, int]:
        """Return the link, and this client's number there. Raises `HelperLost`."""
        for left in reversed(range(TRIES_MAX)):
            if self._closed:
                raise ClientClosed
            link = await links.connected()
            try:
                return link, self._attach(link)
            except HelperLost:
                # It ended in this moment, because nobody needed it.
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
            # Forgotten meanwhile: perhaps before there was anything to be told of.
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
        pool: str,
        *,
        seats: int,
        project: str,
        priority: int,
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
                    place = _position(answer)
                    _in_loop(loop, functools.partial(call_back, on_queued, place))
            elif number in self._held:
                self._on_news(number, answer)
            elif number in self._waiting:
                outcome = self._outcome(link, number, answer, bound)
                # Whoever gives the request up does these in the other order, so one of us sees it.
                if number not in self._waiting:
                    self._held.pop(number, None)
                elif not _in_loop(loop, functools.partial(_settle, future, outcome)):
                    self._let_go(link, number)

        number = link.number(handle)
        self._waiting[number] = pool
        try:
            link.send(
                frame(
                    "acquire",
                    id=number,
                    client=client,
                    pool=pool,
                    seats=seats,
                    project=project,
                    priority=priority,
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
        self._said.pop(belief.number, None)
        if self._held.pop(belief.number, None) is None or link is None:
            return None
        link.forget(belief.number)
        return self._release(link, belief.number)

    def _release(self, link: Link, number: int) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def handle(_: Frame | HelperLost) -> None:
            link.forget(request)
            _in_loop(loop, functools.partial(_finish, done))

        request = link.number(handle)
        try:
            link.send(frame("release", id=request, client=self._client, of=number))
        except SeatError:
            # Without a helper the lease ends by itself.
            link.forget(request)
            done.set_result(None)
        return done

    async def opened(self) -> pb.SessionCredentials:
        """Return what proves that the session is ours, opening one when there is none."""
        link, client = await self.attached()
        answer = await link.ask("session", {"client": client})
        return pb.SessionCredentials.FromString(answer.body)

    def is_waiting(self, pool: str) -> bool:
        """Tell whether a request of this client waits for seats of the pool."""
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
        link = self._link
        if link is None:
            return
        # Before the service is told: from then on somebody else may have the seats.
        for number in list(self._held):
            self._lose(number, CLIENT_CLOSED)
        for number in list(self._waiting):
            link.tell(frame("cancel", client=self._client, of=number))
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
        link = self._link
        if link is not None and link.lost is None:
            link.tell(frame("forget", client=self._client))
            link.forget(self._opened)
            link.detach(self._client)

    def bind(self, on_state: OnState | None) -> OnState | None:
        """Return a callback that is called in the running event loop, whoever has the news."""
        if on_state is None:
            return None
        loop = asyncio.get_running_loop()
        return lambda state: _tell(loop, on_state, state)

    def freshen(self) -> None:
        """Take in what the helper has said until now, such as new tokens."""
        if self._link is not None and self._link.lost is None:
            self._link.pump()

    # For the link --------------------------------------------------------------------------------

    def look(self) -> float:
        """Tell of leases that have run out by the clock; return when the next one may."""
        left = NEVER
        for number, held in list(self._held.items()):
            belief = held.lease
            assert isinstance(belief, KeptBelief)
            if held.lost:
                continue
            state = belief.state(0.0)
            if state is HoldingState.LOST:
                self._lose(number, _RAN_OUT, keep=True)
                continue
            # The helper says this, too, while it runs.
            self._say(number, held, state)
            left = min(left, belief.seconds_left())
        return left

    def is_believing(self) -> bool:
        """Tell whether any grant is still believed in."""
        return any(h.state(0.0) is not HoldingState.LOST for h in list(self._held.values()))

    def _on_helper_lost(self) -> None:
        link = self._link
        if link is None or link.lost is None or self._doubted:
            # Silent, not gone.
            return
        self._doubted = True
        for number, held in list(self._held.items()):
            if held.state(0.0) is HoldingState.JEOPARDY:
                self._say(number, held, HoldingState.JEOPARDY)

    def _say(self, number: int, held: Held, state: HoldingState) -> None:
        """Tell a holder what it was not told yet."""
        if self._said.get(number, HoldingState.SAFE) is not state:
            self._said[number] = state
            held.tell(state)

    # Requests ------------------------------------------------------------------------------------

    def _outcome(
        self, link: Link, number: int, answer: Frame | HelperLost, on_state: OnState | None
    ) -> Held | SeatError:
        if isinstance(answer, HelperLost):
            return HelperLost(str(answer))
        if answer.op != "ok":
            link.forget(number)
            return error_from(answer.header)
        belief = KeptBelief(link, number, Slot(*answer["lease"]), Slot(*answer["slot"]))
        held = Held(
            grant_id=answer["grant_id"],
            pool=answer["pool"],
            seats=answer["seats"],
            project=answer["project"],
            priority=answer["priority"],
            fence=answer["fence"],
            token=answer["token"],
            granted_at=Timestamp.FromString(answer.body),
            lease=belief,
            on_state=on_state,
        )
        self._held[number] = held
        return held

    def _on_news(self, number: int, answer: Frame | HelperLost) -> None:
        held = self._held[number]
        if isinstance(answer, HelperLost):
            self._on_helper_lost()
        elif answer.op == "token":
            held.renew_token(str(answer["token"]))
        elif answer.op == "state":
            state = HoldingState(answer["state"])
            if state is HoldingState.LOST:
                self._lose(number, str(answer["why"]))
            elif not held.lost:
                self._say(number, held, state)

    def _lose(self, number: int, why: str, *, keep: bool = False) -> None:
        """End a grant. ``keep``: the helper has not said so, and must be told of its release."""
        held = self._held.get(number) if keep else self._held.pop(number, None)
        if held is None or held.lost:
            return
        held.lost = why
        self._said.pop(number, None)
        if self._config.on_loss == "kill" and not self._closed:
            # The helper does this when it runs, also while native code holds the interpreter.
            os.kill(os.getpid(), signal.SIGKILL)
        held.tell(HoldingState.LOST)

    def _let_go(self, link: Link, number: int) -> None:
        """Give up whatever is or may come of a request: nobody will ever look at it."""
        self._waiting.pop(number, None)
        self._held.pop(number, None)
        link.forget(number)
        link.tell(frame("cancel", client=self._client, of=number))

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


def _tell(loop: asyncio.AbstractEventLoop, on_state: OnState, state: HoldingState) -> None:
    _in_loop(loop, functools.partial(call_back, on_state, state))


def _position(answer: Frame) -> QueuePosition:
    estimate = answer["estimate"]
    return QueuePosition(
        int(answer["position"]),
        None if estimate is None else timedelta(seconds=estimate),
        basis_from(answer["basis"]),
    )
