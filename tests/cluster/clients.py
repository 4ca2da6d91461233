"""Clients made of the generated stubs, which know nothing of how the service works."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc.aio

from seatkeeper.core.ids import new_id
from seatkeeper.v1 import seat_pb2, seat_service_pb2, seat_service_pb2_grpc

Command = seat_service_pb2.SessionCommand
Event = seat_service_pb2.SessionEvent
TIME_LIMIT = 30.0
TTL = timedelta(seconds=10)


class StreamEnded(Exception):
    """The node has ended the stream, or is gone."""


class Client:
    """One session. Attach it to a node, to another one, to the first one again."""

    def __init__(self, *, ttl: timedelta = TTL) -> None:
        self.credentials = seat_service_pb2.SessionCredentials(
            session_id=new_id(), secret=secrets.token_bytes(16)
        )
        self._ttl = ttl
        self._is_open = False
        self._events: list[Event] = []
        self._call: (
            grpc.aio.StreamStreamCall[
                seat_service_pb2.SessionRequest, seat_service_pb2.SessionResponse
            ]
            | None
        ) = None

    @asynccontextmanager
    async def attached(self, address: str) -> AsyncIterator[Client]:
        """Open or resume the session on a node; leave the node, not the session."""
        async with grpc.aio.insecure_channel(address) as channel:
            self._call = seat_service_pb2_grpc.SeatServiceStub(channel).Session(timeout=120)
            self._events = []
            if self._is_open:
                resume = seat_service_pb2.Resume(credentials=self.credentials)
                await self.send(Command(resume=resume))
            else:
                opening = seat_service_pb2.Open(credentials=self.credentials, holder="test")
                opening.ttl.FromTimedelta(self._ttl)
                await self.send(Command(open=opening))
            await self.event("opened")
            self._is_open = True
            try:
                yield self
            finally:
                self._call.cancel()

    async def send(self, *commands: Command) -> None:
        """Send commands in one message."""
        assert self._call is not None
        try:
            await self._call.write(seat_service_pb2.SessionRequest(commands=commands))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise StreamEnded from error

    async def ask(self, pool: str, grant_id: str) -> None:
        """Ask for a seat, without waiting for it."""
        acquire = seat_pb2.Acquire(pool=pool, grant_id=grant_id, seats=1)
        await self.send(Command(acquire=acquire))

    async def acquire(self, pool: str, grant_id: str) -> seat_pb2.Granted:
        """Take a seat."""
        await self.ask(pool, grant_id)
        return (await self.event("granted")).granted

    async def release(self, pool: str, grant_id: str) -> None:
        """Give a seat back."""
        grant = seat_service_pb2.GrantRef(pool=pool, grant_id=grant_id)
        await self.send(Command(release=seat_service_pb2.Release(grant=grant)))
        await self.event("released")

    async def renew(self) -> None:
        """Keep the session alive."""
        await self.send(Command(renew=seat_service_pb2.Renew(sequence=1)))
        await self.event("renewed")

    async def close(self) -> None:
        """End the session."""
        await self.send(Command(close=seat_service_pb2.Close()))
        # A proxy that sees the node end a stream which we have not ended resets it, and the reset may
        # overtake the node's last message.
        assert self._call is not None
        await self._call.done_writing()
        await self.event("session_lost")

    async def event(self, kind: str, *, within: float = TIME_LIMIT) -> Event:
        """Return the next event of this kind, which only transient events may precede."""
        async with asyncio.timeout(within):
            while True:
                event = await self._next()
                found = event.WhichOneof("event")
                if found == kind:
                    return event
                assert found in {"queued", "ring"}, f"{kind} expected: {event}"

    async def _next(self) -> Event:
        assert self._call is not None
        while not self._events:
            try:
                response = await self._call.read()
            except grpc.aio.AioRpcError as error:
                raise StreamEnded(error.details()) from error
            if not isinstance(response, seat_service_pb2.SessionResponse):
                raise StreamEnded
            self._events = list(response.events)
        return self._events.pop(0)
