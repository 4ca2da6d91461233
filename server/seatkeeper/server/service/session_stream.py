"""One session stream: commands in, events out, both in batches.

Theory of operation
-------------------
The reader applies commands as they come. Whatever becomes of them is appended to one list of events;
the writer sends all that is pending in one message, and what arrives while it sends is the next
message. A message costs Python far more than an event in it, so a busy stream gets cheaper.

Every command is answered by an event, or ends the stream with a status:

- `renew`: one renewal of the lease is under way at a time, and answers all that came before it was
  sent. A store that is silent is asked again for a while; then the stream ends with ``UNAVAILABLE``.
- Where a client sends nothing any more (it has half-closed the stream), the stream ends when what it
  sent before is answered.
- A session that has ended ends the stream: ``look`` asks the store when the time is over, since it may
  have been renewed elsewhere; and at once when it was closed by another call, or something was lost.
- A stream on which nothing was sent, and one whose client does not read, end after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from seatkeeper.core.serving.call_origin import peer_of_call
from seatkeeper.core.serving.failure import Context, Failure, error_info, retry_info
from seatkeeper.core.validate import Malformed
from seatkeeper.server.domain import Denied, Grant, Refusal
from seatkeeper.server.events import log as events
from seatkeeper.server.identity.peer import Identity, identity_of
from seatkeeper.server.pool.router import DONE
from seatkeeper.server.pool.subscribers import (
    Position,
    SeatsCalledBack,
    SeatsGranted,
    SeatsLost,
    Update,
)
from seatkeeper.server.service.event_encoder import Event, EventEncoder, Unencoded
from seatkeeper.server.service.renewals import Renewals
from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.sessions.sessions import Session
from seatkeeper.server.store import StoreError
from seatkeeper.server.wire.denials import denial_info
from seatkeeper.server.wire.validate import (
    check_reclaimable,
    check_tokens_for,
    wrong_grant,
)
from seatkeeper.v1 import seat_pb2, seat_service_pb2

T = TypeVar("T")

COMMANDS_MAX = 1024
"""Most commands in one message."""
EVENTS_MAX = 512
"""Most events in one message."""
PENDING_MAX = 50_000
"""A client that leaves this many events unread is cut off; its session lives on."""
FIRST_COMMAND_SECONDS = 10.0
"""How long a stream may be without its first command."""
STUCK_SECONDS = 30.0
"""How long a client that was cut off may take to read what was on its way to it."""
LOOK_AFTER_SECONDS = 1.0
"""How long after the end of a lease, as this node knows it, the store is asked about it."""
WRONG_ID_MAX = 64
"""Most characters said again of an id that is none."""


class Admit(Protocol):
    """Counts a stream for its holder, or raises ``Failure`` when it is one too many."""

    def __call__(self, holder: str, *, is_new: bool) -> None:
        """Let one stream more in."""
        ...


class SessionStream:
    """Serves one stream. A ``Listener`` of every pool that its session uses."""

    def __init__(
        self,
        core: Core,
        context: Context,
        ring: seat_service_pb2.Ring,
        *,
        admit: Admit,
        begun: Callable[[SessionStream], None],
    ) -> None:
        """Serve one stream.

        ``admit`` is asked before its session is opened; ``begun`` is called at its first command.
        """
        self._core = core
        self._context = context
        self._ring = ring
        self._admit = admit
        self._begun = begun
        self._writer: asyncio.Task[None] | None = None
        self.holder = ""
        """The holder that this stream is counted for; empty: none yet."""
        self._identity: Identity = identity_of(context)
        self.peer = peer_of_call(context)
        """Where the client is, for logs."""
        self._session: Session | None = None
        certificate = self._identity.certificate_sha256
        self._encoder = EventEncoder(core, certificate)
        self._renewals = Renewals(core, certificate, self)
        self._events: list[Unencoded] = []
        self._pending = asyncio.Event()
        self._finished = False
        self._half_closed = False
        self._leaving = False
        self._farewell: Event | None = None
        """To be said as soon as the session is open."""
        self._failure: Exception | None = None
        self._open: set[tuple[str, str]] = set()
        self._unanswered: set[tuple[str, str]] = set()
        """What was asked for or given back on this stream and has not been answered at all."""
        self._reader: asyncio.Task[None] | None = None
        self._began_at = core.clock.monotonic()
        self._look_at = 0.0
        """When to ask the store whether the session lives yet."""
        self.is_begun = False
        """Whether a first command has come."""

    async def run(self) -> None:
        """Serve until either side ends the stream. Raises what ends it otherwise."""
        self._writer = asyncio.current_task()
        self._reader = asyncio.create_task(self._read())
        try:
            await self._write()
        finally:
            self._reader.cancel()
            renewing = self._renewals.stop()
            await asyncio.gather(self._reader, *renewing, return_exceptions=True)
            self._detach()

    def end(self, failure: Exception) -> None:
        """End the stream with a failure, after the events before it were sent."""
        if self._failure is None:
            self._failure = failure
            self._pending.set()

    def needs_a_look(self) -> bool:
        """Return whether it is time to ask whether the session lives; ends a stream without one."""
        now = self._core.clock.monotonic()
        if self._session is not None:
            return not self._finished and (now >= self._look_at or self._session.is_closed)
        if not self.is_begun and now >= self._began_at + FIRST_COMMAND_SECONDS:
            message = f"no `open` or `resume` within {FIRST_COMMAND_SECONDS:g} s; call again"
            info = error_info("FIRST_COMMAND_TIMEOUT")
            self.end(Failure(grpc.StatusCode.DEADLINE_EXCEEDED, message, info))
        return False

    async def look(self) -> None:
        """Ask the store whether the session lives; end the stream when it does not."""
        try:
            left = await self._core.sessions.remaining(self.session)
        except StoreError:
            self._look_after(0.0)
            return
        if left is None:
            self.lose_session()
        else:
            self._look_after(left.total_seconds())

    def _look_after(self, seconds: float) -> None:
        self._look_at = self._core.clock.monotonic() + seconds + LOOK_AFTER_SECONDS

    def go_away(self, message: str, within: timedelta) -> None:
        """Ask the client to resume elsewhere."""
        self._leaving = True
        event = Event(go_away=seat_service_pb2.GoAway(message=message))
        event.go_away.within.FromTimedelta(within)
        if self._session is None:
            self._farewell = event
        else:
            self._send(event)

    def notify_ring(self, ring: seat_service_pb2.Ring) -> None:
        """Send the ring to the client."""
        self._ring = ring
        if self._session is not None and not self._leaving and ring.nodes:
            self._send(Event(ring=ring))

    def receive(self, pool: str, update: Update) -> None:
        """Send the client the outcome of one of its requests."""
        grant_id = (
            update.grant.grant_id if isinstance(update, SeatsGranted) else update.grant_id
        )
        self._unanswered.discard((pool, grant_id))
        if isinstance(update, SeatsGranted | SeatsCalledBack | Position):
            self._open.add((pool, grant_id))
        else:
            self._open.discard((pool, grant_id))
            self._encoder.want_token((pool, grant_id), wanted=True)
        if _is_of_the_end(update):
            self._look_at = 0.0
        self._send((pool, update))

    def expect(self, pool: str, grant: Grant) -> None:
        """Sign a grant's token while the store commits the grant."""
        self._encoder.expect(self.session, pool, grant)

    def _detach(self) -> None:
        for pool, grant_id in self._open:
            self._core.seats.detach(pool, grant_id, self)

    @property
    def session(self) -> Session:
        """The session of this stream; there is one once the first command is applied."""
        assert self._session is not None
        return self._session

    def _send(self, event: Unencoded) -> None:
        if self._failure is not None or self._finished:
            return
        self._events.append(event)
        self._pending.set()
        if len(self._events) > PENDING_MAX:
            self._cut_off()

    def _cut_off(self) -> None:
        """Give up on a client that does not read: drop its pending events, and end the stream."""
        self._events.clear()
        self._detach()
        message = f"over {PENDING_MAX} events unread; resume the session and read faster"
        info = denial_info(Refusal.OVERLOADED)
        retry = retry_info(timedelta(seconds=1))
        self.end(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, message, info, retry))
        if self._reader is not None:
            self._reader.cancel()
        # The message on its way ends before the status can be sent: give it time, and no more.
        if self._writer is not None:
            asyncio.get_running_loop().call_later(STUCK_SECONDS, self._writer.cancel)

    async def _write(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            while self._events:
                batch, self._events = self._events[:EVENTS_MAX], self._events[EVENTS_MAX:]
                await self._context.write(self._encoder.encode(self._session, batch))
            if self._failure is not None:
                raise self._failure
            is_done = not self._unanswered and self._renewals.are_answered
            if self._finished or (self._half_closed and is_done):
                return

    async def _read(self) -> None:
        try:
            while True:
                request = await self._context.read()
                if request is grpc.aio.EOF:
                    self._half_closed = True
                    return
                if isinstance(request, Failure):  # it could not be decoded
                    raise request
                if len(request.commands) > COMMANDS_MAX:
                    raise Malformed(
                        "commands", f"{len(request.commands)} at once; at most {COMMANDS_MAX}"
                    )
                for command in request.commands:
                    await self._apply(command)
                await self._renewals.until_few_wait()
        except _Closed:
            self._finished = True
        except Exception as error:
            self.end(error)
        finally:
            self._pending.set()

    def _apply(self, command: seat_service_pb2.SessionCommand) -> Awaitable[None]:
        """Begin to apply a command; the next one may be applied when what is returned has ended."""
        kind = command.WhichOneof("command")
        if self._session is None:
            return self._begin(command, kind)
        if kind == "acquire":
            asked = command.acquire
            name = asked.pool, asked.grant_id
            self._encoder.want_token(name, wanted=not asked.without_token)
            return self._ask(name, self._core.seats.acquire, asked)
        if kind == "release":
            said = command.release
            name = said.grant.pool, said.grant.grant_id
            return self._ask(name, self._core.seats.release, said)
        if kind == "renew":
            self._renew(command.renew)
            return DONE
        if kind == "close":
            return self._close(self._session)
        if kind in {"open", "resume"}:
            raise Malformed("command", f"`{kind}` is for the first command of a stream alone")
        raise Malformed("command", "is none that this node knows; its version may be older")

    async def _begin(self, command: seat_service_pb2.SessionCommand, kind: str | None) -> None:
        name = self._identity.name
        self.is_begun = True
        self._begun(self)
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
        self._look_after(self.session.ttl.total_seconds())
        opened = self._core.opened(self.session)
        opened.ring.CopyFrom(self._ring)
        self._send(Event(opened=opened))
        if self._farewell is not None:
            self._send(self._farewell)

    def _ask(
        self,
        name: tuple[str, str],
        ask: Callable[[Session, T, SessionStream], Awaitable[None]],
        what: T,
    ) -> Awaitable[None]:
        """Ask a pool for something about the grant or ticket of that ``name``."""
        self._unanswered.add(name)
        try:
            return ask(self.session, what, self)
        except Malformed as error:
            self._unanswered.discard(name)
            self._encoder.want_token(name, wanted=True)
            denied, seats = _invalid(name[1], error), self._core.seats
            seats.refuse_malformed(self.session, denied.grant_id, str(error), self.peer)
            self._send(Event(denied=denied))
            return DONE

    async def _close(self, session: Session) -> None:
        self._detach()  # it asked for this: nothing is lost
        await self._core.sessions.close(session)
        events.session("session_closed", session, self.peer)
        self._send(_session_lost("closed"))
        raise _Closed

    def _renew(self, request: seat_service_pb2.Renew) -> None:
        try:
            check_tokens_for(request)
            check_reclaimable(request)
        except Malformed as error:
            # The session lives on all the same: what it is for is worth more than a token.
            self._send(Event(denied=_invalid(wrong_grant(request), error)))
            request = seat_service_pb2.Renew(sequence=request.sequence)
        self._renewals.add(self.session, request)

    # For renewals ---------------------------------------------------------------------------

    def on_renewed(self, ttl: timedelta) -> None:
        """Note that the lease has ``ttl`` left now."""
        self._look_after(ttl.total_seconds())

    def answer_renewal(self, answer: seat_service_pb2.Renewed) -> None:
        """Send the answer to a renewal."""
        self._send(Event(renewed=answer))

    def wake(self) -> None:
        """Look again whether the stream has anything left to do."""
        self._pending.set()

    def lose_session(self) -> None:
        """End the stream: its session has ended."""
        if not self._finished:  # found by a renewal or by a look, and by both at once
            events.session("session_lost", self.session, self.peer)
            self._send(_session_lost("the session was not renewed in time, and has ended"))
            self._finished = True


class _Closed(Exception):
    """The client closed its session."""


def _session_lost(message: str) -> Event:
    return Event(session_lost=seat_service_pb2.SessionLost(message=message))


def _is_of_the_end(update: Update) -> bool:
    """Return whether this says that the session has ended, as when another node closed it."""
    if isinstance(update, Denied):
        return update.reason is Refusal.SESSION_LOST
    return isinstance(update, SeatsLost) and not update.is_forced


def _invalid(grant_id: str, error: Malformed) -> seat_pb2.Denied:
    reason = seat_pb2.DENIAL_REASON_INVALID_ARGUMENT
    return seat_pb2.Denied(grant_id=grant_id[:WRONG_ID_MAX], reason=reason, message=str(error))
