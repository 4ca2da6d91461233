"""``SeatService``: the stream and the unary calls, over the same core."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from seatkeeper.client.ring import Ring
from seatkeeper.server.core import Core
from seatkeeper.server.decide import Denied, Grant, Refusal
from seatkeeper.server.grpc_failure import Context
from seatkeeper.server.observer import Observer
from seatkeeper.server.pool.audience import News, Position, SeatsGranted, SeatsLost
from seatkeeper.server.service.failures import answers, failure_of, failure_of_denial
from seatkeeper.server.service.identity import identity_of
from seatkeeper.server.service.session_stream import SessionStream
from seatkeeper.server.sessions import SessionGone
from seatkeeper.v1 import seat_pb2, seat_service_pb2, seat_service_pb2_grpc

CROWD_MIN = 8
"""Unary calls under way at once from which on they wait a little for each other."""


class SeatService(seat_service_pb2_grpc.SeatServiceServicer):
    """Hands out seats."""

    def __init__(self, core: Core, observer: Observer) -> None:
        self._core = core
        self._observer = observer
        self._streams: set[SessionStream] = set()
        self._callers = 0
        self._ring = seat_service_pb2.Ring()

    def go_away(self, message: str, within: timedelta) -> None:
        """Ask the clients of all streams to resume elsewhere."""
        for stream in self._streams:
            stream.go_away(message, within)

    def ring_changed(self, ring: Ring) -> None:
        """Tell the clients of all streams which nodes there are."""
        self._ring = seat_service_pb2.Ring(revision=ring.revision)
        for node_id, address in ring.addresses.items():
            self._ring.nodes.add(node_id=node_id, address=address)
        for stream in self._streams:
            stream.tell_ring(self._ring)

    # The stubs know only servicers that yield; grpc.aio also takes one that reads and writes.
    async def Session(  # type: ignore[override]
        self, request_iterator: object, context: Context
    ) -> None:
        """Run a session over one stream."""
        stream = SessionStream(self._core, context, self._ring)
        self._streams.add(stream)
        self._observer.stream_opened()
        try:
            await stream.run()
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            await failure.tell(context)
        finally:
            self._streams.discard(stream)
            self._observer.stream_closed()

    @answers
    async def OpenSession(
        self, request: seat_service_pb2.OpenSessionRequest, context: Context
    ) -> seat_service_pb2.OpenSessionResponse:
        """Open a session without a stream."""
        session = await self._core.sessions.open(request.open, identity_of(context).name)
        return seat_service_pb2.OpenSessionResponse(opened=self._core.opened(session))

    @property
    def _crowded(self) -> bool:
        return self._callers >= CROWD_MIN

    @answers
    async def Acquire(
        self, request: seat_service_pb2.AcquireRequest, context: Context
    ) -> seat_service_pb2.AcquireResponse:
        """Take seats without a stream."""
        identity = identity_of(context)
        session = await self._core.sessions.find(request.credentials, identity.name)
        await self._core.sessions.assure(session)
        acquire = request.acquire
        caller = _Caller()
        self._callers += 1
        try:
            await self._core.seats.acquire(
                session, acquire, caller, wait_max=_wait_max(context), patient=self._crowded
            )
            news = await caller.answer
        finally:
            self._callers -= 1
            self._core.seats.detach(acquire.pool, acquire.grant_id, caller)
        match news:
            case SeatsGranted(grant):
                await self._core.sessions.assure(session)
                certificate = identity.certificate_sha256
                granted = self._core.granted(acquire.pool, grant, session, certificate)
                return seat_service_pb2.AcquireResponse(granted=granted)
            case Denied():
                raise failure_of_denial(acquire.pool, news)
            case SeatsLost():
                raise SessionGone(session.session_id)
            case _:
                message = "it was released before it was granted"
                denied = Denied(acquire.grant_id, Refusal.FINISHED, message)
                raise failure_of_denial(acquire.pool, denied)

    @answers
    async def Renew(
        self, request: seat_service_pb2.RenewRequest, context: Context
    ) -> seat_service_pb2.RenewResponse:
        """Renew without a stream."""
        identity = identity_of(context)
        session = await self._core.sessions.find(request.credentials, identity.name)
        certificate = identity.certificate_sha256
        renewed = await self._core.renewed(session, request.renew, certificate)
        return seat_service_pb2.RenewResponse(renewed=renewed)

    @answers
    async def Release(
        self, request: seat_service_pb2.ReleaseRequest, context: Context
    ) -> seat_service_pb2.ReleaseResponse:
        """Give back without a stream."""
        session = await self._core.sessions.find(request.credentials, identity_of(context).name)
        ref = request.release.grant
        caller = _Caller()
        self._callers += 1
        try:
            await self._core.seats.release(session, ref, caller, patient=self._crowded)
            news = await caller.answer
        finally:
            self._callers -= 1
        if isinstance(news, Denied):
            raise failure_of_denial(ref.pool, news)
        released = seat_pb2.Released(grant_id=ref.grant_id)
        return seat_service_pb2.ReleaseResponse(released=released)

    @answers
    async def CloseSession(
        self, request: seat_service_pb2.CloseSessionRequest, context: Context
    ) -> seat_service_pb2.CloseSessionResponse:
        """End a session without a stream."""
        try:
            session = await self._core.sessions.find(
                request.credentials, identity_of(context).name
            )
            await self._core.sessions.close(session)
        except SessionGone:
            pass
        return seat_service_pb2.CloseSessionResponse()


class _Caller:
    """A unary call: hears one answer. A place in the queue is not an answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[News] = asyncio.get_running_loop().create_future()

    def expect(self, pool: str, grant: Grant) -> None:
        pass

    def hear(self, pool: str, news: News) -> None:
        if not isinstance(news, Position) and not self.answer.done():
            self.answer.set_result(news)


def _wait_max(context: Context) -> timedelta | None:
    """Return how long a unary call may wait: its deadline, less the time to answer."""
    remaining = context.time_remaining()
    if remaining is None:
        return None
    return timedelta(seconds=max(remaining - 0.25, remaining / 2))
