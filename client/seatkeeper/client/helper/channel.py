"""Stands where a gRPC channel would: its calls are made by the helper.

Only what our own calls need of a channel is here; whatever else is asked of it raises.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc import aio

from seatkeeper.client.helper.frames import PARTS_MAX, Frame, error_from, frame, rpc_error
from seatkeeper.client.helper.link import Link, in_loop
from seatkeeper.client.helper.session import KeptSession
from seatkeeper.core.errors import HelperLost, SeatError

_numbers = itertools.count(1)
_Serialize = Callable[[Message], bytes]
_Deserialize = Callable[[bytes], Message]


class RelayedChannel:
    """Reaches one node or agent through the helper. Usable from any event loop."""

    def __init__(
        self, address: str, session: KeptSession, *, keepalive: timedelta | None = None
    ) -> None:
        self._session = session
        self._fields = {
            "channel": next(_numbers),
            "address": address,
            "keepalive": None if keepalive is None else keepalive.total_seconds(),
        }
        self._link: Link | None = None
        self._client = 0

    async def is_ready(self) -> bool:
        """Connect; return whether that worked. Waits for as long as it is undecided."""
        link, client = await self._attached()
        answer = await link.ask("ready", {"client": client, **self._fields})
        return bool(answer["ready"])

    async def close(self, grace: float | None = None) -> None:
        """Close the connection. Calls under way get ``grace`` seconds to end."""
        link = self._link
        if link is not None and link.lost is None:
            client = self._client
            number = link.number(lambda _: None)
            link.forget(number)
            link.notify(
                frame(
                    "hang_up",
                    id=number,
                    client=client,
                    grace=grace,
                    channel=self._fields["channel"],
                )
            )

    def unary_unary(
        self,
        method: str,
        request_serializer: _Serialize,
        response_deserializer: _Deserialize,
        **_: object,
    ) -> Callable[..., Any]:
        """Return a call with one message each way."""

        async def call(request: Message, *, timeout: float | None = None) -> Message:
            link, client = await self._attached()
            fields = {"kind": "unary", "method": method, "timeout": timeout}
            try:
                answer = await link.ask(
                    "call",
                    {"client": client, **fields, **self._fields},
                    request_serializer(request),
                )
            except HelperLost as error:
                raise _unavailable(error) from error
            return response_deserializer(answer.body)

        return call

    def unary_stream(
        self,
        method: str,
        request_serializer: _Serialize,
        response_deserializer: _Deserialize,
        **_: object,
    ) -> Callable[..., Any]:
        """Return a call with one request and many answers."""

        def call(request: Message, *, timeout: float | None = None) -> RelayedStream:
            fields = {"kind": "listen", "method": method, "timeout": timeout, **self._fields}
            return RelayedStream(
                self._attached, fields, request_serializer(request), response_deserializer
            )

        return call

    def stream_stream(
        self,
        method: str,
        request_serializer: _Serialize,
        response_deserializer: _Deserialize,
        **_: object,
    ) -> Callable[..., Any]:
        """Return a call with many requests and many answers."""

        def call(
            requests: AsyncIterable[Message], *, timeout: float | None = None
        ) -> RelayedStream:
            fields = {"kind": "stream", "method": method, "timeout": timeout, **self._fields}

            async def parts() -> AsyncIterator[bytes]:
                async for request in requests:
                    yield request_serializer(request)

            return RelayedStream(self._attached, fields, b"", response_deserializer, parts())

        return call

    def stream_unary(self, method: str, *_: object, **__: object) -> Callable[..., None]:
        """Return what cannot be called: no service of ours has such a call."""

        def call(*_: object, **__: object) -> None:
            raise NotImplementedError(method)

        return call

    async def _attached(self) -> tuple[Link, int]:
        self._link, self._client = await self._session.attached()
        return self._link, self._client


class RelayedStream:
    """A call whose answers are a stream: ``async for``, and `cancel`."""

    def __init__(
        self,
        attach: Callable[[], Any],
        fields: dict[str, Any],
        body: bytes,
        deserialize: _Deserialize,
        parts: AsyncIterator[bytes] | None = None,
    ) -> None:
        self._attach = attach
        self._fields = fields
        self._body = body
        self._deserialize = deserialize
        self._parts = parts
        # Bounded by what the helper may send before it gets credit.
        self._arrived: asyncio.Queue[Frame | BaseException] = asyncio.Queue()
        self._credit = asyncio.Semaphore(PARTS_MAX)
        self._link: Link | None = None
        self._client = 0
        self._number = 0
        self._writer: asyncio.Task[None] | None = None
        self._over = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the answers; the first use makes the call. Raises `AioRpcError`."""
        try:
            await self._begin()
            assert self._link is not None
            while True:
                answer = await self._arrived.get()
                if isinstance(answer, BaseException):
                    raise answer
                match answer.op:
                    case "part":
                        self._notify("credit")
                        yield self._deserialize(answer.body)
                    case "ok":
                        return
                    case "rpc_error":
                        raise rpc_error(answer.header)
                    case "error":
                        raise error_from(answer.header)
        finally:
            self.cancel()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Do nothing: the helper sees to it that the status is the peer's."""

    def cancel(self) -> bool:
        """End the call. Safe to call twice."""
        if self._over or self._link is None:
            return False
        self._over = True
        self._link.forget(self._number)
        self._link.notify(frame("stop", of=self._number, client=self._client))
        if self._writer is not None:
            self._writer.cancel()
        return True

    async def _begin(self) -> None:
        try:
            self._link, self._client = await self._attach()
            loop = asyncio.get_running_loop()
            self._number = self._link.number(in_loop(loop, self._take))
            self._link.send(
                Frame(
                    {"op": "call", "id": self._number, "client": self._client, **self._fields},
                    self._body,
                )
            )
        except HelperLost as error:
            raise _unavailable(error) from error
        if self._parts is not None:
            self._writer = asyncio.create_task(self._write(self._parts))

    def _take(self, answer: Frame | HelperLost) -> None:
        if isinstance(answer, HelperLost):
            self._arrived.put_nowait(_unavailable(answer))
        elif answer.op == "credit":
            self._credit.release()
        else:
            self._arrived.put_nowait(answer)

    async def _write(self, parts: AsyncIterator[bytes]) -> None:
        try:
            async for part in parts:
                await self._credit.acquire()
                self._notify("part", part)
            self._notify("end")
        except Exception as error:
            # What makes the parts failed: the caller must know, and the call must not wait for more.
            self._arrived.put_nowait(error)

    def _notify(self, op: str, body: bytes = b"") -> None:
        assert self._link is not None
        with suppress(SeatError):
            self._link.send(Frame({"op": op, "id": self._number, "client": self._client}, body))


def _unavailable(error: HelperLost) -> aio.AioRpcError:
    return aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), str(error)
    )
