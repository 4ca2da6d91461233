"""Calls that are no part of the session stream: unary ones, and streams that only listen.

A call goes to the node that answered last, and on to the next when that one cannot be reached.
Once a call may have taken effect it is sent again only if repeating it is harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol, TypeVar, runtime_checkable

import grpc
from grpc import aio

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.transport.answers import answers_of
from seatkeeper.client.transport.backoff import delay_seconds
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.client.transport.translate import Overrides, from_rpc, is_transport_trouble
from seatkeeper.core.clock import Clock
from seatkeeper.core.errors import SeatError, ServiceUnavailable

_T = TypeVar("_T")
_Q = TypeVar("_Q")
_Invoke = Callable[[aio.Channel, float], Awaitable[_T]]
_Open = Callable[[aio.Channel], aio.UnaryStreamCall[_Q, _T]]
STABLE_SECONDS = 1.0
"""A stream that lived for so long was a good one: the next is tried at once."""

ROUNDS_THAT_DOUBLE = 10
"""In so many rounds over the nodes, what each has to answer in doubles."""

_TRY_ANOTHER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # by a node that stopped: our own cancelling is no error
)
_log = logging.getLogger("seatkeeper.client")


class Calls:
    """Makes calls over whichever node answers. Keeps one channel per node."""

    def __init__(
        self,
        nodes: NodePicker,
        connect: Callable[[str], aio.Channel],
        config: ClientConfig,
        clock: Clock,
        check_usable: Callable[[], None],
    ) -> None:
        self._check_usable = check_usable
        self._nodes = nodes
        self._connect = connect
        self._config = config
        self._clock = clock
        self._channels: dict[str, aio.Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def unary(
        self,
        invoke: _Invoke[_T],
        *,
        repeatable: bool = True,
        timeout: float | None = None,
        overrides: Overrides | None = None,
    ) -> _T:
        """Return what ``invoke(channel, timeout)`` returns, from the first node that answers.

        Raises what the service says, or `ServiceUnavailable` when no node answered in time. When
        the call is not ``repeatable``, its outcome may be unknown then; the message says so.
        """
        whole = self._config.call_timeout.total_seconds() if timeout is None else timeout
        deadline = self._clock.now() + whole
        attempt = _Attempt(self, deadline)
        while True:
            address = await attempt.next_address()
            left = deadline - self._clock.now()
            # A call that is meant to be long gets all the time there is.
            some = left if timeout is not None or not repeatable else attempt.seconds(left)
            try:
                channel = await self._reach(address, self._attempt_seconds(left))
                answer = await invoke(channel, some)
            except aio.AioRpcError as error:
                if error.code() not in _TRY_ANOTHER and not is_transport_trouble(error):
                    self._nodes.succeeded(address)
                    raise from_rpc(error, overrides) from error
                trouble = from_rpc(error)
                await self._failed(address)
                if not repeatable:
                    raise ServiceUnavailable(
                        f"{address}: {trouble}; the outcome is unknown: look before repeating it"
                    ) from error
                silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                attempt.failed(ServiceUnavailable(f"{address}: {trouble}"), silent=silent)
            except _NotReached:
                await self._failed(address)
                attempt.failed(ServiceUnavailable(_unreachable(address)), silent=True)
            else:
                self._nodes.succeeded(address)
                return answer

    async def listen(
        self, open_stream: _Open[_Q, _T], *, overrides: Overrides | None = None
    ) -> AsyncGenerator[_T, None]:
        """Yield what a stream says, going on with the next node when one goes away.

        A new stream begins with the present state, so what was said while there was none is not
        missed, only not reported twice. Ends when the service ends it; raises what the service says,
        or `ServiceUnavailable` when no node answered for ``call_timeout``.
        """
        whole = self._config.call_timeout.total_seconds()
        attempt = _Attempt(self, self._clock.now() + whole)
        while True:
            address = await attempt.next_address()
            began = self._clock.now()
            left = max(0.0, attempt.deadline - began)
            trouble = ServiceUnavailable(_unreachable(address))
            answered, silent = False, True
            try:
                channel = await self._reach(address, self._attempt_seconds(left))
                async with answers_of(open_stream(channel)) as answers:
                    async for message in answers:
                        answered = True
                        yield message
                    return
            except aio.AioRpcError as error:
                if error.code() not in _TRY_ANOTHER and not is_transport_trouble(error):
                    raise from_rpc(error, overrides) from error
                trouble = ServiceUnavailable(f"{address}: {from_rpc(error)}")
                silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            except _NotReached:
                pass
            await self._failed(address)
            attempt.failed(trouble, silent=silent)
            now = self._clock.now()
            if answered:
                attempt.deadline = now + whole
            if answered and now - began >= STABLE_SECONDS:
                # Otherwise a node that says one thing and breaks would be asked without rest.
                attempt.rounds = 0

    async def close(self) -> None:
        """Close every channel; calls under way are cancelled."""
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))
        # Those of another loop end with it.
        here = asyncio.get_running_loop()
        closing = [task for task in self._closing if task.get_loop() is here]
        for task in closing:
            task.cancel()
        await asyncio.gather(*closing, return_exceptions=True)

    def _attempt_seconds(self, left: float) -> float:
        return min(left, self._config.attempt_timeout.total_seconds())

    async def _reach(self, address: str, seconds: float) -> aio.Channel:
        """Return a connected channel. Nothing is sent before, so another node may be tried."""
        self._check_usable()
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._connect(address)
        try:
            async with asyncio.timeout(seconds):
                await _connected(channel)
        except TimeoutError:
            raise _NotReached from None
        return channel

    async def _failed(self, address: str) -> None:
        _log.info("%s does not answer", address)
        self._nodes.failed(address, self._clock.now())
        # A channel that has failed waits before it connects again; a new one does not.
        channel = self._channels.pop(address, None)
        if channel is not None:
            # Other calls may be under way on it: they fail by themselves, or are answered yet.
            closing = asyncio.create_task(
                channel.close(self._config.call_timeout.total_seconds())
            )
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _unreachable(address: str) -> str:
    return f"{address} cannot be reached: is it running, and is it right about TLS?"


@runtime_checkable
class ChannelElsewhere(Protocol):
    """A stand-in for a channel that another process has: it is asked whether that is connected."""

    async def is_ready(self) -> bool:
        """Connect; return whether that worked. Waits for as long as it is undecided."""


class _NotReached(Exception):
    """There is no connection to the node, and nothing was sent."""


class _Attempt:
    """Chooses nodes for one call until its deadline, resting between rounds over them."""

    def __init__(self, calls: Calls, deadline: float) -> None:
        self._calls = calls
        self.deadline = deadline
        self._tried: set[str] = set()
        self.rounds = 0
        self._trouble: SeatError | None = None

    def failed(self, trouble: SeatError, *, silent: bool) -> None:
        """Note why an attempt failed, to be reported if it was the last.

        A ``silent`` one, which no node answered, that the deadline cut short says nothing about the
        node: the reason before it stays.
        """
        if silent and self._trouble is not None and self._calls._clock.now() >= self.deadline:
            return
        self._trouble = trouble

    def seconds(self, left: float) -> float:
        """Return how long to wait for the next answer: in each round over the nodes twice as long.

        A node that takes long, because there is much to read or because it is busy, answers in the
        end; one that does not answer is left early at first.
        """
        most = self._calls._config.attempt_timeout.total_seconds()
        return min(left, most * (1 << min(self.rounds, ROUNDS_THAT_DOUBLE)))

    async def next_address(self) -> str:
        calls = self._calls
        now = calls._clock.now()
        address = calls._nodes.pick(now, tried=self._tried)
        if address in self._tried:
            self._tried.clear()
            self.rounds += 1
            delay = delay_seconds(self.rounds, calls._config.backoff, random=random.random())
            if now + delay >= self.deadline:
                raise ServiceUnavailable(f"no node answered; {self._trouble}")
            await asyncio.sleep(delay)
        elif now >= self.deadline:
            raise ServiceUnavailable(f"no node answered in time; {self._trouble}")
        self._tried.add(address)
        return address


async def _connected(channel: aio.Channel) -> None:
    stand_in: object = channel
    if isinstance(stand_in, ChannelElsewhere):
        if not await stand_in.is_ready():
            raise _NotReached
        return
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (
            grpc.ChannelConnectivity.TRANSIENT_FAILURE,
            grpc.ChannelConnectivity.SHUTDOWN,
        ):
            raise _NotReached
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
