"""The helper's side of calls: makes those of the program on channels of its own."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any, Protocol

import grpc
from grpc import aio

from seatkeeper.client.helper.frames import PARTS_MAX, Frame, error_fields, frame, rpc_fields
from seatkeeper.client.helper.outbox import Outbox
from seatkeeper.client.transport.answers import answers_of
from seatkeeper.client.transport.status import FirstStatus
from seatkeeper.core.errors import SeatError

_log = logging.getLogger("seatkeeper.client")


class Connect(Protocol):
    """Opens channels."""

    def __call__(self, address: str, *, keepalive: timedelta | None = None) -> aio.Channel:
        """Return a channel to one node or agent."""


class Relay:
    """Makes the calls of one client."""

    def __init__(self, connect: Connect, outbox: Outbox) -> None:
        self._connect = connect
        self._outbox = outbox
        self._channels: dict[int, aio.Channel] = {}
        self._streams: dict[int, _Stream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def take(self, message: Frame) -> bool:
        """Do what a frame asks for; return whether it was about calls."""
        match message.op:
            case "ready":
                self._run(message.id, self._ready(message))
            case "call":
                stream = _Stream(self._outbox, message.id)
                self._streams[message.id] = stream
                self._run(message.id, self._call(message, stream))
            case "part" | "end" | "credit":
                if (known := self._streams.get(message.id)) is not None:
                    known.take(message)
            case "stop":
                if (task := self._tasks.get(int(message["of"]))) is not None:
                    task.cancel()
            case "hang_up":
                self._run(message.id, self._hang_up(message))
            case _:
                return False
        return True

    async def close(self) -> None:
        """End every call and channel."""
        for task in list(self._tasks.values()):
            if task is not asyncio.current_task():
                task.cancel()
        channels = list(self._channels.values())
        self._channels.clear()
        await asyncio.gather(*(channel.close() for channel in channels))

    def _run(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except aio.AioRpcError as error:
                self._outbox.send(frame("rpc_error", id=number, **rpc_fields(error)))
            except SeatError as error:
                self._outbox.send(frame("error", id=number, **error_fields(error)))
            except Exception as error:
                _log.exception("a call failed in the helper")
                broken = SeatError(f"the helper failed: {error!r}")
                self._outbox.send(frame("error", id=number, **error_fields(broken)))
            finally:
                self._streams.pop(number, None)
                self._tasks.pop(number, None)

        self._tasks[number] = asyncio.create_task(run())

    def _channel(self, message: Frame) -> aio.Channel:
        number = int(message["channel"])
        channel = self._channels.get(number)
        if channel is None:
            seconds = message["keepalive"]
            keepalive = None if seconds is None else timedelta(seconds=seconds)
            channel = self._connect(message["address"], keepalive=keepalive)
            self._channels[number] = channel
        return channel

    async def _ready(self, message: Frame) -> None:
        """Answer whether the channel is connected, as soon as that is decided."""
        channel = self._channel(message)
        state = channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state in (
                grpc.ChannelConnectivity.TRANSIENT_FAILURE,
                grpc.ChannelConnectivity.SHUTDOWN,
            ):
                break
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)
        is_ready = state is grpc.ChannelConnectivity.READY
        self._outbox.send(frame("ok", id=message.id, ready=is_ready))

    async def _call(self, message: Frame, stream: _Stream) -> None:
        # Bytes in, bytes out: the stubs' types are for messages.
        channel: Any = self._channel(message)
        number = message.id
        method, timeout = message["method"], message["timeout"]
        match message["kind"]:
            case "unary":
                body = await channel.unary_unary(method)(message.body, timeout=timeout)
                self._outbox.send(frame("ok", body, id=number))
                return
            case "listen":
                call: Any = channel.unary_stream(method)(message.body, timeout=timeout)
                status = None
            case _:
                call = channel.stream_stream(method)(stream.parts(), timeout=timeout)
                status = FirstStatus(call)
        try:
            async with answers_of(call) as answers:
                async for part in answers:
                    await stream.send(part)
        except aio.AioRpcError as error:
            if status is None:
                raise
            raise status.of(error) from None
        self._outbox.send(frame("ok", id=number))

    async def _hang_up(self, message: Frame) -> None:
        channel = self._channels.pop(int(message["channel"]), None)
        if channel is not None:
            await channel.close(message["grace"])
        self._outbox.send(frame("ok", id=message.id))


class _Stream:
    """The messages of one streaming call, both ways."""

    def __init__(self, outbox: Outbox, number: int) -> None:
        self._outbox = outbox
        self._number = number
        self._credit = asyncio.Semaphore(PARTS_MAX)
        self._parts: deque[bytes] = deque()
        self._ended = False
        self._wake = asyncio.Event()

    def take(self, message: Frame) -> None:
        """Take what the program says."""
        match message.op:
            case "credit":
                self._credit.release()
            case "part":
                self._parts.append(message.body)
                self._wake.set()
            case "end":
                self._ended = True
                self._wake.set()

    async def send(self, part: bytes) -> None:
        """Hand a message to the program, once it has taken enough of the earlier ones."""
        await self._credit.acquire()
        self._outbox.send(frame("part", part, id=self._number))

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the program's messages."""
        while True:
            while self._parts:
                self._outbox.send(frame("credit", id=self._number))
                yield self._parts.popleft()
            if self._ended:
                return
            self._wake.clear()
            await self._wake.wait()
