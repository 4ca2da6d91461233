"""``SeatService``: the stream and the unary calls, over the same core."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.core.ring import Ring
from seatkeeper.core.serving.call_origin import peer_of_call
from seatkeeper.core.serving.failure import Context
from seatkeeper.core.serving.handlers import stopping
from seatkeeper.server.domain import Denied, Grant, Refusal
from seatkeeper.server.events import log as events
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.identity.peer import identity_of
from seatkeeper.server.pool.subscribers import (
    Position,
    SeatsCalledBack,
    SeatsGranted,
    SeatsLost,
    Update,
)
from seatkeeper.server.service.failures import answers, failure_of, failure_of_denial, too_much
from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.service.session_stream import SessionStream
from seatkeeper.server.sessions.sessions import SessionLost
from seatkeeper.v1 import seat_pb2, seat_service_pb2, seat_service_pb2_grpc

LOOK_SECONDS = 1.0
"""How often streams are looked at whose session may have ended, or that have not begun."""
LOOKS_AT_ONCE = 64
CROWD_MIN = 8
"""Unary calls under way at once from which on they wait a little for each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """How much one node lets in at once."""

    calls_max: int = 10_000
    """Unary calls under way from which on no more may take seats."""
    holder_streams_max: int = 10_000
    """Session streams of one holder. Sessions that are resumed are let in nevertheless."""


class SeatService(seat_service_pb2_grpc.SeatServiceServicer):
    """Hands out seats."""

    def __init__(self, core: Core, observer: Observer, limits: ApiLimits) -> None:
        self._core = core
        self._observer = observer
        self._streams: dict[SessionStream, None] = {}
        self._not_begun: set[SessionStream] = set()
        self._looking: asyncio.Task[None] | None = None
        self._limits = limits
        self._away: tuple[str, timedelta] | None = None
        self._holders: Counter[str] = Counter()
        self._callers: dict[_Caller, None] = {}
        self._stopping = ""
        self._ring = seat_service_pb2.Ring()

    def streams_open(self) -> int:
        """Return how many session streams are open."""
        return len(self._streams)

    @property
    def load(self) -> dict[str, int]:
        """How much is under way here, for the log."""
        return {"streams": len(self._streams), "calls": len(self._callers)}

    def go_away(self, message: str, within: timedelta) -> None:
        """Ask the clients of all streams, also of those yet to come, to go elsewhere."""
        self._away = (message, within)
        for stream in self._streams:
            stream.go_away(message, within)
        self.turn_away(message)

    def turn_away(self, message: str) -> None:
        """Answer the unary calls that wait. Their places stay: another node finds them."""
        for caller in self._callers:
            caller.turn_away(message)

    def stop(self, message: str) -> None:
        """Answer the unary calls that wait, and from now on those that are about to."""
        self._stopping = message
        self.turn_away(message)

    def end_streams(self) -> None:
        """End the streams that are still there."""
        for stream in self._streams:
            stream.end(stopping())

    async def close(self) -> None:
        """Stop looking after streams."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def ring_changed(self, ring: Ring) -> None:
        """Send the ring to the clients of all streams."""
        self._ring = seat_service_pb2.Ring(revision=ring.revision)
        for node_id, address in ring.addresses.items():
            self._ring.nodes.add(node_id=node_id, address=address)
        for stream in self._streams:
            stream.notify_ring(self._ring)

    # The stubs know only servicers that yield; grpc.aio also takes one that reads and writes.
    async def Session(  # type: ignore[override]  # the stub's types allow other shapes too
        self, request_iterator: object, context: Context
    ) -> None:
        """Run a session over one stream."""
        if len(self._not_begun) >= self._limits.calls_max:
            waiting = f"{self._limits.calls_max} streams wait for their first command"
            await too_much(waiting).notify(context)
        stream = SessionStream(
            *(self._core, context, self._ring),
            admit=self._admit,
            begun=self._not_begun.discard,
        )
        self._streams[stream] = None
        self._not_begun.add(stream)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_after_streams())
        if self._away is not None:
            stream.go_away(*self._away)
        self._observer.stream_opened()
        try:
            await stream.run()
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            await failure.notify(context)
        finally:
            del self._streams[stream]
            self._not_begun.discard(stream)
            if stream.holder:
                self._leave(stream.holder)
            self._observer.stream_closed()

    async def _look_after_streams(self) -> None:
        """End the streams of sessions that have ended, and those that never begin."""
        while self._streams:
            await asyncio.sleep(LOOK_SECONDS)
            due = [stream for stream in self._streams if stream.needs_a_look()]
            for first in range(0, len(due), LOOKS_AT_ONCE):
                looks = (stream.look() for stream in due[first : first + LOOKS_AT_ONCE])
                await asyncio.gather(*looks)

    def _admit(self, holder: str, *, is_new: bool) -> None:
        """Count one stream more for a holder. Raises ``Failure`` for a new session too many."""
        if is_new and self._holders[holder] >= self._limits.holder_streams_max:
            raise too_much(
                f"{holder} has {self._limits.holder_streams_max} session streams on this node"
            )
        self._holders[holder] += 1

    def _leave(self, holder: str) -> None:
        self._holders[holder] -= 1
        if self._holders[holder] <= 0:
            del self._holders[holder]

    @answers
    async def OpenSession(
        self, request: seat_service_pb2.OpenSessionRequest, context: Context
    ) -> seat_service_pb2.OpenSessionResponse:
        """Open a session without a stream."""
        session = await self._core.sessions.open(request.open, identity_of(context).name)
        events.session("session_opened", session, peer_of_call(context))
        return seat_service_pb2.OpenSessionResponse(opened=self._core.opened(session))

    @property
    def _crowded(self) -> bool:
        return len(self._callers) >= CROWD_MIN

    def _begin_call(self, grant_id: str, context: Context, *, takes: bool) -> _Caller:
        """Count a call among those under way.

        Raises ``Failure`` when one that ``takes`` seats is one too many. One that gives them back never
        is: those that wait may be waiting for it.
        """
        if takes and len(self._callers) >= self._limits.calls_max:
            raise too_much(f"{self._limits.calls_max} calls are under way on this node")
        caller = _Caller(grant_id, peer_of_call(context))
        self._callers[caller] = None
        if takes and self._stopping:
            caller.turn_away(self._stopping)
        return caller

    @answers
    async def Acquire(
        self, request: seat_service_pb2.AcquireRequest, context: Context
    ) -> seat_service_pb2.AcquireResponse:
        """Take seats without a stream."""
        identity = identity_of(context)
        session = await self._core.sessions.find(request.credentials, identity.name)
        await self._core.sessions.assure(session)
        acquire = request.acquire
        caller = self._begin_call(acquire.grant_id, context, takes=True)
        try:
            await self._core.seats.acquire(
                *(session, acquire, caller),
                wait_max=_wait_max(context),
                may_delay=self._crowded,
                heeds_reclaim=False,
            )
            update = await caller.answer
        finally:
            del self._callers[caller]
            self._core.seats.detach(acquire.pool, acquire.grant_id, caller)
        match update:
            case SeatsGranted(grant):
                await self._core.sessions.assure(session)
                certificate = identity.certificate_sha256
                response = seat_service_pb2.AcquireResponse()
                self._core.fill_granted(
                    *(response.granted, acquire.pool, grant, session, certificate),
                    with_token=not acquire.without_token,
                )
                return response
            case Denied():
                raise failure_of_denial(acquire.pool, update)
            case SeatsLost(message=message, is_forced=True):
                denied = Denied(acquire.grant_id, Refusal.FINISHED, message)
                raise failure_of_denial(acquire.pool, denied)
            case SeatsLost():
                raise SessionLost(session.session_id)
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
        caller = self._begin_call(ref.grant_id, context, takes=False)
        try:
            await self._core.seats.release(
                *(session, request.release, caller), may_delay=self._crowded
            )
            update = await caller.answer
        finally:
            del self._callers[caller]
        if isinstance(update, Denied):
            raise failure_of_denial(ref.pool, update)
        released = seat_pb2.Released(grant_id=ref.grant_id)
        return seat_service_pb2.ReleaseResponse(released=released)

    @answers
    async def CloseSession(
        self, request: seat_service_pb2.CloseSessionRequest, context: Context
    ) -> seat_service_pb2.CloseSessionResponse:
        """End a session without a stream."""
        sessions, name = self._core.sessions, identity_of(context).name
        try:
            session = await sessions.find(request.credentials, name)
            await sessions.close(session)
            events.session("session_closed", session, peer_of_call(context))
        except SessionLost:
            await sessions.put_tombstone(request.credentials, name)
        return seat_service_pb2.CloseSessionResponse()


class _Caller:
    """A unary call: receives one answer. A place in the queue is not an answer."""

    def __init__(self, grant_id: str, peer: str) -> None:
        self._grant_id = grant_id
        self.peer = peer
        self.answer: asyncio.Future[Update] = asyncio.get_running_loop().create_future()

    def turn_away(self, message: str) -> None:
        """Have it asked again elsewhere."""
        message = f"{message}: send the same request to another node"
        self.receive("", Denied(self._grant_id, Refusal.UNAVAILABLE, message))

    def expect(self, pool: str, grant: Grant) -> None:
        pass

    def receive(self, pool: str, update: Update) -> None:
        is_answer = not isinstance(update, Position | SeatsCalledBack)
        if is_answer and not self.answer.done():
            self.answer.set_result(update)


def _wait_max(context: Context) -> timedelta | None:
    """Return how long a unary call may wait: its deadline, less the time to answer."""
    remaining = context.time_remaining()
    if remaining is None:
        return None
    return timedelta(seconds=max(remaining - 0.25, remaining / 2))
