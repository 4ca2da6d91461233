"""One session stream: commands in, events out, both in batches.

The reader applies commands as they come. Whatever becomes of them is appended to one list of events;
the writer sends all that is pending in one message, and what arrives while it sends is the next
message. A message costs Python far more than an event in it, so a busy stream gets cheaper.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Protocol

import grpc
import grpc.aio

from seatkeeper.server import events
from seatkeeper.server.core import Core
from seatkeeper.server.decide import Denied, Grant, Released
from seatkeeper.server.denials import encode_denied
from seatkeeper.server.grpc_context import peer_of_call
from seatkeeper.server.grpc_failure import Context, Failure
from seatkeeper.server.pool.audience import News, Position, SeatsGranted, SeatsLost
from seatkeeper.server.service.identity import Identity, identity_of
from seatkeeper.server.sessions import Session, SessionError, SessionGone
from seatkeeper.server.store import StoreError
from seatkeeper.server.validate import Malformed
from seatkeeper.v1 import seat_pb2, seat_service_pb2

COMMANDS_MAX = 1024
"""Most commands in one message."""
EVENTS_MAX = 512
"""Most events in one message."""
PENDING_MAX = 50_000
"""A client that leaves this many events unread is cut off; its session lives on."""
EXPECTED_MAX = 1024
"""Grants signed ahead of their commit."""
RENEWALS_MAX = 4
"""Renewals of one stream under way at once; more are dropped, and the client sends another."""
Event = seat_service_pb2.SessionEvent


class Admit(Protocol):
    """Counts a stream for its holder, or raises ``Failure`` when it is one too many."""

    def __call__(self, holder: str, *, is_new: bool) -> None:
        """Let one stream more in."""
        ...


class SessionStream:
    """Serves one stream. A ``Listener`` of every pool that its session uses."""

    def __init__(
        self, core: Core, context: Context, ring: seat_service_pb2.Ring, admit: Admit
    ) -> None:
        """Serve one stream; ``admit`` is asked before its session is opened."""
        self._core = core
        self._context = context
        self._ring = ring
        self._admit = admit
        self.holder = ""
        """Whom this stream is counted for; empty: nobody yet."""
        self._identity: Identity = identity_of(context)
        self.peer = peer_of_call(context)
        """Where the client is, for logs."""
        self._session: Session | None = None
        self._events: list[Event | tuple[str, News]] = []
        self._pending = asyncio.Event()
        self._finished = False
        self._leaving = False
        self._farewell: Event | None = None
        """To be said as soon as the session is open."""
        self._failure: Exception | None = None
        self._open: set[tuple[str, str]] = set()
        self._signed: dict[tuple[str, Grant], seat_pb2.Granted] = {}
        self._renewals: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until either side ends the stream. Raises what ends it otherwise."""
        reader = asyncio.create_task(self._read())
        try:
            await self._write()
        finally:
            for task in (reader, *self._renewals):
                task.cancel()
            await asyncio.gather(reader, *self._renewals, return_exceptions=True)
            self._detach()

    def go_away(self, message: str, within: timedelta) -> None:
        """Ask the client to resume elsewhere."""
        self._leaving = True
        event = Event(go_away=seat_service_pb2.GoAway(message=message))
        event.go_away.within.FromTimedelta(within)
        if self._session is None:
            self._farewell = event
        else:
            self._send(event)

    def tell_ring(self, ring: seat_service_pb2.Ring) -> None:
        """Tell the client which nodes there are."""
        self._ring = ring
        if self._session is not None and not self._leaving and ring.nodes:
            self._send(Event(ring=ring))

    def hear(self, pool: str, news: News) -> None:
        """Tell the client what became of one of its requests."""
        if isinstance(news, SeatsGranted):
            self._open.add((pool, news.grant.grant_id))
        elif isinstance(news, Position):
            self._open.add((pool, news.grant_id))
        else:
            self._open.discard((pool, news.grant_id))
        self._send((pool, news))

    def expect(self, pool: str, grant: Grant) -> None:
        """Sign a grant's token while the store commits the grant."""
        if len(self._signed) >= EXPECTED_MAX:  # what came to nothing
            self._signed.clear()
        self._signed[pool, grant] = self._granted(pool, grant)

    def _detach(self) -> None:
        for pool, grant_id in self._open:
            self._core.seats.detach(pool, grant_id, self)

    @property
    def session(self) -> Session:
        """The session of this stream; there is one once the first command is applied."""
        assert self._session is not None
        return self._session

    def _send(self, event: Event | tuple[str, News]) -> None:
        self._events.append(event)
        self._pending.set()

    def _event(self, event: Event | tuple[str, News]) -> Event:
        """Return the message of an event. Signs tokens: done here, while the next batch commits."""
        if isinstance(event, Event):
            return event
        pool, news = event
        match news:
            case SeatsGranted(grant):
                # Of this very grant only: what was signed for one that came to nothing is no proof.
                expected = self._signed.pop((pool, grant), None)
                return Event(granted=expected or self._granted(pool, grant))
            case Position(grant_id, position, estimate):
                queued = seat_pb2.Queued(grant_id=grant_id, position=position)
                if estimate is not None:
                    queued.estimate.FromTimedelta(estimate)
                return Event(queued=queued)
            case Released(grant_id):
                return Event(released=seat_pb2.Released(grant_id=grant_id))
            case Denied():
                return Event(denied=encode_denied(news))
            case SeatsLost(grant_id, message):
                reason = seat_pb2.LOST_REASON_SESSION_EXPIRED
                lost = seat_pb2.Lost(grant_id=grant_id, reason=reason, message=message)
                return Event(lost=lost)

    def _granted(self, pool: str, grant: Grant) -> seat_pb2.Granted:
        certificate = self._identity.certificate_sha256
        return self._core.granted(pool, grant, self.session, certificate)

    async def _write(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            if len(self._events) > PENDING_MAX:
                raise Failure(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"over {PENDING_MAX} events unread; resume the session and read faster",
                )
            while self._events:
                batch, self._events = self._events[:EVENTS_MAX], self._events[EVENTS_MAX:]
                response = seat_service_pb2.SessionResponse(events=map(self._event, batch))
                await self._context.write(response)
            if self._failure is not None:
                raise self._failure
            if self._finished:
                return

    async def _read(self) -> None:
        try:
            while True:
                request = await self._context.read()
                if request is grpc.aio.EOF:
                    return
                if isinstance(request, Failure):  # it could not be decoded
                    raise request
                if len(request.commands) > COMMANDS_MAX:
                    raise Malformed(
                        "commands", f"{len(request.commands)} at once; at most {COMMANDS_MAX}"
                    )
                for command in request.commands:
                    await self._apply(command)
        except _Closed:
            pass
        except Exception as error:
            self._failure = error
        finally:
            self._finished = True
            self._pending.set()

    async def _apply(self, command: seat_service_pb2.SessionCommand) -> None:
        kind = command.WhichOneof("command")
        if self._session is None:
            await self._begin(command, kind)
        elif kind == "acquire":
            await self._acquire(command.acquire)
        elif kind == "release":
            await self._release(command.release)
        elif kind == "renew":
            self._start_renewal(command.renew)
        elif kind == "close":
            self._detach()  # it asked for this: nothing is lost
            await self._core.sessions.close(self.session)
            events.session("session_closed", self.session, self.peer)
            self._session_lost("closed")
            raise _Closed
        else:
            raise Malformed("command", f"{kind or 'an unknown command'} cannot be sent here")

    async def _begin(self, command: seat_service_pb2.SessionCommand, kind: str | None) -> None:
        name = self._identity.name
        if kind == "open":
            holder = name or command.open.holder
            self._admit(holder, is_new=True)
            self.holder = holder
            self._session = await self._core.sessions.open(command.open, name)
            events.session("session_opened", self._session, self.peer)
        elif kind == "resume":
            session = await self._core.sessions.find(command.resume.credentials, name)
            await self._core.sessions.renew(session)
            self._admit(session.holder, is_new=False)
            self.holder = session.holder
            self._session = session
            events.session("session_resumed", session, self.peer)
        else:
            raise Malformed("command", "the first command must be `open` or `resume`")
        opened = self._core.opened(self.session)
        opened.ring.CopyFrom(self._ring)
        self._send(Event(opened=opened))
        if self._farewell is not None:
            self._send(self._farewell)

    async def _acquire(self, request: seat_pb2.Acquire) -> None:
        try:
            await self._core.seats.acquire(self.session, request, self)
        except Malformed as error:
            self._core.seats.count_malformed()
            self._send(Event(denied=_invalid(request.grant_id, error)))

    async def _release(self, request: seat_service_pb2.Release) -> None:
        try:
            await self._core.seats.release(self.session, request.grant, self)
        except Malformed as error:
            self._core.seats.count_malformed()
            self._send(Event(denied=_invalid(request.grant.grant_id, error)))

    def _start_renewal(self, request: seat_service_pb2.Renew) -> None:
        if len(self._renewals) < RENEWALS_MAX:
            task = asyncio.create_task(self._renew(request))
            self._renewals.add(task)
            task.add_done_callback(self._renewals.discard)

    async def _renew(self, request: seat_service_pb2.Renew) -> None:
        try:
            renewed = await self._core.renewed(
                self.session, request, self._identity.certificate_sha256
            )
        except SessionGone:
            events.session("session_lost", self.session, self.peer)
            self._session_lost("the session was not renewed in time, and has ended")
            self._finished = True
        except (StoreError, SessionError):
            return  # Not answered: the client sends another one.
        else:
            self._send(Event(renewed=renewed))

    def _session_lost(self, message: str) -> None:
        self._send(Event(session_lost=seat_service_pb2.SessionLost(message=message)))


class _Closed(Exception):
    """The client closed its session."""


def _invalid(grant_id: str, error: Malformed) -> seat_pb2.Denied:
    reason = seat_pb2.DENIAL_REASON_INVALID_ARGUMENT
    return seat_pb2.Denied(grant_id=grant_id, reason=reason, message=str(error))
