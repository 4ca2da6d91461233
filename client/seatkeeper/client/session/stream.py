"""One `Session` call: a reader and a writer on one connection.

Both coalesce: whatever was queued while a frame was being written leaves in the next one, and a
queue that was empty is written at the next turn of the event loop. A message costs Python far
more than its content, so this is what makes thousands of operations a second possible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from grpc import aio

from seatkeeper.client.transport.status import FirstStatus
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc

COMMANDS_MAX = 256
"""Commands in one frame. The service takes 1024; smaller frames keep others from waiting."""


class SessionStream:
    """Sends commands and hands out events until one side ends the call."""

    __slots__ = ("_call", "_channel", "_on_events", "_outbox", "_stopped", "_wake")

    def __init__(
        self,
        channel: aio.Channel,
        on_events: Callable[[Iterable[pb.SessionEvent]], None],
    ) -> None:
        self._channel = channel
        self._on_events = on_events
        self._outbox: list[pb.SessionCommand] = []
        self._wake = asyncio.Event()
        self._stopped = False
        self._call: aio.StreamStreamCall[pb.SessionRequest, pb.SessionResponse] | None = None

    def send(self, command: pb.SessionCommand) -> None:
        """Queue a command. It leaves at the next turn of the event loop, or with the next frame."""
        self._outbox.append(command)
        self._wake.set()

    def stop(self) -> None:
        """End the call from this side. Nothing queued is sent any more."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()

    async def run(self) -> None:
        """Run the call until it ends; return when it was stopped here or ended well.

        Raises `AioRpcError` when the node or the connection ended it. Closes the channel.
        """
        call = pb_grpc.SeatServiceStub(self._channel).Session()
        self._call = call
        reader = asyncio.create_task(self._read(call), name="seatkeeper-read")
        writer = asyncio.create_task(self._write(call), name="seatkeeper-write")
        try:
            if not self._stopped:
                await asyncio.wait({reader})
        finally:
            # Ending the call ends the reads in it. Cancelling a read itself would leak in gRPC.
            call.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            await self._channel.close()
        if not self._stopped and not reader.cancelled():
            reader.result()

    async def _read(
        self, call: aio.StreamStreamCall[pb.SessionRequest, pb.SessionResponse]
    ) -> None:
        status = FirstStatus(call)
        try:
            while isinstance(response := await call.read(), pb.SessionResponse):
                if self._stopped:
                    return
                self._on_events(response.events)
        except aio.AioRpcError as error:
            raise status.of(error) from None

    async def _write(
        self, call: aio.StreamStreamCall[pb.SessionRequest, pb.SessionResponse]
    ) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    commands = self._outbox[:COMMANDS_MAX]
                    del self._outbox[:COMMANDS_MAX]
                    await call.write(pb.SessionRequest(commands=commands))
        except (aio.AioRpcError, asyncio.InvalidStateError):
            # The reader learns of the same end, with its cause.
            return
