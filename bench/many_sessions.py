"""Thousands of sessions in one process: streams of generated stubs, and nothing else of the client."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import grpc.aio

from seatkeeper.core.channels import dial
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import seat_pb2, seat_service_pb2, seat_service_pb2_grpc

STREAMS_PER_CHANNEL = 500
OPEN_AT_ONCE = 200
ANSWER_SECONDS_MAX = 60.0
TRIES_MAX = 5
PAUSE_SECONDS = 1.0
Command = seat_service_pb2.SessionCommand


@dataclass
class ManySessions:
    """Opens sessions, keeps them, takes a seat for each, and counts those that are lost."""

    addresses: list[str]
    ttl: timedelta
    connect: Callable[[str], grpc.aio.Channel] = field(
        default=lambda address: dial(address, options=[("grpc.use_local_subchannel_pool", 1)])
    )
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    sessions: list[LightSession] = field(default_factory=list)
    renewals: int = 0
    lost: int = 0

    async def open(self, count: int) -> None:
        """Open so many more."""
        for opened in range(0, count, OPEN_AT_ONCE):
            await self._open_some(min(OPEN_AT_ONCE, count - opened))

    async def _open_some(self, count: int) -> None:
        channels = []
        for number in range(len(self.sessions), len(self.sessions) + count):
            if number % STREAMS_PER_CHANNEL == 0:
                address = self.addresses[len(self.channels) % len(self.addresses)]
                self.channels.append(self.connect(address))
            channels.append(self.channels[-1])
        self.sessions += await asyncio.gather(*map(self._opened, channels))

    async def _opened(self, channel: grpc.aio.Channel) -> LightSession:
        """Open one, and ask again where a node says so, as a client does: many come at once."""
        for left in range(TRIES_MAX - 1, -1, -1):
            session = LightSession(self, channel)
            try:
                await session.open()
            except grpc.aio.AioRpcError as error:
                session.drop()
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not left:
                    raise
                await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.0))
            else:
                return session
        raise AssertionError("unreachable")

    async def acquire(self, pool: str) -> None:
        """Take a seat of ``pool`` for each session."""
        for at in range(0, len(self.sessions), OPEN_AT_ONCE):
            some = self.sessions[at : at + OPEN_AT_ONCE]
            await asyncio.gather(*(one.acquire(pool) for one in some))

    async def close(self) -> None:
        """Drop everything; the leases run out by themselves."""
        for session in self.sessions:
            session.drop()
        await asyncio.gather(*(channel.close() for channel in self.channels))


class LightSession:
    """One session on a stream of its own."""

    __slots__ = ("_answer", "_awaited", "_call", "_many", "_reader", "_timer", "_writing")

    def __init__(self, many: ManySessions, channel: grpc.aio.Channel) -> None:
        self._many = many
        self._call = seat_service_pb2_grpc.SeatServiceStub(channel).Session()
        self._awaited = ""
        self._writing = asyncio.Lock()
        self._answer: asyncio.Future[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Open it, and renew it from now on."""
        credentials = seat_service_pb2.SessionCredentials(
            session_id=new_id(), secret=secrets.token_bytes(16)
        )
        opening = seat_service_pb2.Open(credentials=credentials, holder="many")
        opening.ttl.FromTimedelta(self._many.ttl)
        self._reader = asyncio.create_task(self._read())
        await self._ask(Command(open=opening), "opened")

    async def acquire(self, pool: str) -> None:
        """Take a seat."""
        acquire = seat_pb2.Acquire(pool=pool, grant_id=new_id(), seats=1)
        await self._ask(Command(acquire=acquire), "granted")

    def drop(self) -> None:
        """End the stream."""
        if self._timer is not None:
            self._timer.cancel()
        self._call.cancel()

    async def _ask(self, command: Command, answer: str) -> None:
        self._awaited = answer
        self._answer = asyncio.get_running_loop().create_future()
        with suppress(asyncio.InvalidStateError):  # it has ended: the reader says why
            await self._send(command)
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            await self._answer

    async def _send(self, command: Command) -> None:
        async with self._writing:  # two writes at once end a call
            await self._call.write(seat_service_pb2.SessionRequest(commands=[command]))

    async def _read(self) -> None:
        try:
            while isinstance(
                response := await self._call.read(), seat_service_pb2.SessionResponse
            ):
                for event in response.events:
                    self._take(event)
        except asyncio.CancelledError:
            return
        except grpc.aio.AioRpcError as error:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(error)

    def _take(self, event: seat_service_pb2.SessionEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "opened":
            self._renew_in(event.opened.renew_in.ToTimedelta())
        elif kind == "renewed":
            self._many.renewals += 1
            self._renew_in(event.renewed.renew_in.ToTimedelta())
        elif kind in {"session_lost", "lost", "denied"}:
            self._many.lost += 1
        if kind == self._awaited and self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _renew_in(self, pause: timedelta) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            pause.total_seconds(), lambda: loop.create_task(self._renew())
        )

    async def _renew(self) -> None:
        renew = Command(renew=seat_service_pb2.Renew(sequence=1))
        try:
            await self._send(renew)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self._many.lost += 1
