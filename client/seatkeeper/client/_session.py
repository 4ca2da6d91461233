"""The driver of one client's session: the only writer of everything the client remembers.

Theory of operation
-------------------
A `Link` keeps a stream to some node. What must survive a stream lives in three tables, by grant id:
`_asks` (requests not answered for good), `_held` (grants) and `_leaving` (being given up). A command
is sent when it enters its table, if there is a stream; and every table is sent again whenever
a stream opens. The service answers a repeated id with what the first one made, so sending again
is always safe, and nobody needs to know whether a command was lost on its way.

One timer (`_tick`) asks `holding.next_step` what to do about the lease, and looks for requests whose
time is up. No request has a timer of its own.

What is never true: an id in two tables; a command sent before the service opened the session on
that stream; a grant in `_held` whose lease is not `_lease`; a user's callback that stops the driver.

When the session is lost, grants become lost, and requests that wait are asked again under a
new session with new ids: their callers never notice, except by their place in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import secrets
from collections.abc import Callable, Iterable
from datetime import timedelta

import grpc
from grpc import aio

from seatkeeper.client import holding
from seatkeeper.client._asks import (
    Ask,
    Held,
    Lease,
    Leaving,
    OnQueued,
    OnState,
    QueuePosition,
    call_back,
)
from seatkeeper.client._link import Link
from seatkeeper.client._translate import as_duration, from_denied, from_rpc, seconds
from seatkeeper.client.backoff import delay_seconds
from seatkeeper.client.clock import Clock, Timer
from seatkeeper.client.config import ClientConfig
from seatkeeper.client.errors import (
    ClientClosed,
    Overloaded,
    SeatError,
    SeatLost,
    ServiceUnavailable,
)
from seatkeeper.client.holding import HoldingState
from seatkeeper.client.ids import new_id
from seatkeeper.client.nodes import NodePicker
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc

SWEEP_SECONDS = 0.25
"""How often requests are looked at while there are any."""
REASKS_MAX = 8
"""How often one request gets a new id because its old one was finished with."""
STEPS_MAX = 8
"""Steps that one look at the lease may take before it must wait."""
CLOSE_SECONDS_MAX = 2.0
"""How long closing waits for the service. Without an answer, the lease runs out by itself."""

_FATAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_SESSION_GONE = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED})
_Reason = seat_pb2.DenialReason
_UNDECIDED = (_Reason.DENIAL_REASON_UNAVAILABLE, _Reason.DENIAL_REASON_OVERLOADED)
"""Answers that leave a grant that we looked for standing."""
_NEVER = float("inf")
_log = logging.getLogger("seatkeeper.client")


class SessionDriver:
    """Runs one session: takes seats, gives them back, keeps them alive, survives the nodes.

    Belongs to one event loop. Connects when something is first asked of it.
    """

    def __init__(
        self,
        nodes: NodePicker,
        connect: Callable[[str], aio.Channel],
        config: ClientConfig,
        *,
        holder: str,
        project: str,
        clock: Clock,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._nodes = nodes
        self._connect = connect
        self._config = config
        self._holder = holder
        self._project = project
        self._clock = clock
        self._random = random
        self._link = Link(self, nodes, connect, config, clock, random)
        self._call_seconds = config.call_timeout.total_seconds()
        self._asks: dict[str, Ask] = {}
        self._held: dict[str, Held] = {}
        self._leaving: dict[str, Leaving] = {}
        self._openings: list[tuple[float, asyncio.Future[pb.SessionCredentials]]] = []
        self._lease: Lease | None = None
        self._ever_opened = False
        self._heard_at = 0.0
        self._silent_since: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._timer_at = _NEVER
        self._closed = False
        self._session_over = asyncio.Event()

    # What the client asks for ------------------------------------------------------------------

    async def acquire(
        self,
        pool: str,
        *,
        seats: int,
        project: str,
        priority: int,
        wait: float | None,
        on_queued: OnQueued | None = None,
        on_state: OnState | None = None,
    ) -> Held:
        """Take seats. Cancelling leaves the queue, or gives back what was just granted."""
        if self._closed:
            raise ClientClosed
        now = self._clock.now()
        ask = Ask(
            grant_id=new_id(),
            pool=pool,
            seats=seats,
            project=project,
            priority=priority,
            wait=wait,
            asked_at=now,
            future=asyncio.get_running_loop().create_future(),
            on_queued=on_queued,
            on_state=on_state,
            expires_at=_NEVER if wait is None else now + wait + self._call_seconds,
        )
        self._asks[ask.grant_id] = ask
        self._send_ask(ask, now)
        self._attend(now)
        try:
            return await ask.future
        except BaseException:
            # Also when it was granted in the same moment in which the caller was cancelled.
            self._abandon(ask)
            raise

    def release(self, held: Held) -> asyncio.Future[None] | None:
        """Give seats back; the future ends when the service has confirmed it, or does not answer.

        Returns None when there is nothing to give: released before, or lost.
        """
        if self._held.pop(held.grant_id, None) is None:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leave(held.grant_id, held.pool, future)
        return future

    async def opened(self) -> pb.SessionCredentials:
        """Return what proves that the session is ours, opening one when there is none."""
        if self._closed:
            raise ClientClosed
        if self._lease is not None and self._lease.view is not None:
            return self._lease.credentials
        future: asyncio.Future[pb.SessionCredentials]
        future = asyncio.get_running_loop().create_future()
        now = self._clock.now()
        self._openings.append((now, future))
        self._attend(now)
        return await future

    def is_waiting(self, pool: str) -> bool:
        """Tell whether a request of this client waits for seats of the pool."""
        return any(ask.pool == pool for ask in self._asks.values())

    def state(self) -> HoldingState:
        """Return how sure the holder may be of the session; LOST while there is none."""
        lease = self._lease
        return HoldingState.LOST if lease is None else lease.state(self._clock.now())

    async def close(self) -> None:
        """End the session: everything held is free at once, or at the latest after its ttl."""
        if self._closed:
            return
        self._closed = True
        self._fail_all(ClientClosed())
        lease = self._lease
        try:
            if lease is not None and lease.view is not None:
                await self._say_goodbye(lease)
        finally:
            self._lose_session("the client was closed")
            if self._timer is not None:
                self._timer.cancel()
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)

    async def _say_goodbye(self, lease: Lease) -> None:
        if self._send(pb.SessionCommand(close=pb.Close())):
            timer = self._clock.call_at(
                self._clock.now() + CLOSE_SECONDS_MAX, self._session_over.set
            )
            await self._session_over.wait()
            timer.cancel()
            if self._lease is None:
                return
        # Between two streams, or the node is silent: any other will do.
        for address in self._nodes.addresses:
            channel = self._connect(address)
            try:
                await pb_grpc.SeatServiceStub(channel).CloseSession(
                    pb.CloseSessionRequest(credentials=lease.credentials),
                    timeout=CLOSE_SECONDS_MAX / len(self._nodes.addresses),
                )
            except aio.AioRpcError as error:
                _log.info("closing through %s: %s", address, error.details())
            else:
                return
            finally:
                await channel.close()

    # Sending -----------------------------------------------------------------------------------

    def _send(self, command: pb.SessionCommand) -> bool:
        stream = self._link.stream
        if stream is None:
            return False
        stream.send(command)
        if self._silent_since is None:
            self._silent_since = self._clock.now()
        return True

    def _send_ask(self, ask: Ask, now: float) -> None:
        ask.retry_at, ask.answered = None, False
        if self._link.stream is not None:
            ask.sent = self._send(ask.command(now))

    def _send_everything(self, now: float) -> None:
        # Releases first: what they free may be what the requests want.
        for leaving in self._leaving.values():
            self._send(leaving.command())
        for held in self._held.values():
            self._send(held.command())
        for ask in self._asks.values():
            self._send_ask(ask, now)

    def _leave(self, grant_id: str, pool: str, future: asyncio.Future[None] | None) -> None:
        now = self._clock.now()
        leaving = Leaving(grant_id, pool, now, future)
        if self._lease is None:
            # The session is gone, and with it whatever this was.
            leaving.done()
            return
        self._leaving[grant_id] = leaving
        self._send(leaving.command())
        self._attend(now)

    def _abandon(self, ask: Ask) -> None:
        """Let go of what a request that failed or was cancelled may have left behind."""
        self._asks.pop(ask.grant_id, None)
        held = self._held.pop(ask.grant_id, None)
        if held is not None or (ask.sent and ask.future.cancelled()):
            self._leave(ask.grant_id, ask.pool, None)

    def _attend(self, now: float) -> None:
        """See to it that somebody works on what was just asked, and that its time is watched."""
        if self._task is None:
            self._task = asyncio.create_task(self._link.run(), name="seatkeeper-session")
        if self._timer_at > now + SWEEP_SECONDS:
            self._arm(now + SWEEP_SECONDS)
        if self._lease is None:
            self._link.poke()

    # For the link ------------------------------------------------------------------------------

    def is_wanted(self) -> bool:
        """Tell whether there is a session to keep, or a reason to open one."""
        return not self._closed and bool(self._lease or self._asks or self._openings)

    def hello(self) -> pb.SessionCommand:
        """Return `open` for a new session, `resume` for one that the service knows."""
        if self._lease is not None and self._lease.view is not None:
            return pb.SessionCommand(resume=pb.Resume(credentials=self._lease.credentials))
        # A new session at every attempt: one whose answer was lost holds nothing, because nothing
        # is sent before that answer; and its lease may have begun long ago.
        secret = secrets.token_bytes(32)
        self._lease = Lease(
            pb.SessionCredentials(session_id=new_id(), secret=secret), self._clock.now()
        )
        ttl = self._config.ttl
        return pb.SessionCommand(
            open=pb.Open(
                credentials=self._lease.credentials,
                holder=self._holder,
                project=self._project,
                ttl=None if ttl is None else as_duration(ttl.total_seconds()),
            )
        )

    def seconds_left(self) -> float | None:
        """Return how long the lease may still be counted on; None: there is none to lose."""
        view = None if self._lease is None else self._lease.view
        return None if view is None else max(0.0, view.until - self._clock.now())

    def on_stream_end(self, error: aio.AioRpcError | None, *, was_open: bool) -> bool:
        """Learn that the stream ended; return whether the node is to blame."""
        lease, self._silent_since = self._lease, None
        if lease is None:
            return False
        if lease.view is not None:
            lease.view = holding.disconnected(lease.view)
        if error is None or was_open:
            return error is not None
        if lease.view is not None and error.code() in _SESSION_GONE:
            self._lose_session(f"the service no longer knows the session: {error.details()}")
            return False
        if lease.view is None and error.code() in _FATAL:
            self._lease = None
            self._fail_all(from_rpc(error))
            return False
        return True

    def on_outage(self) -> None:
        """Learn that every node was tried and none answered."""
        if self._lease is not None and self._lease.view is not None:
            self._lease.view = holding.unreachable(self._lease.view)
            self._tick()

    def on_events(self, events: Iterable[pb.SessionEvent]) -> None:
        """Take what the service says, in order."""
        self._heard_at = self._clock.now()
        self._silent_since = None
        for event in events:
            match event.WhichOneof("event"):
                case "granted":
                    self._on_granted(event.granted)
                case "released":
                    self._on_released(event.released.grant_id)
                case "queued":
                    self._on_queued(event.queued)
                case "denied":
                    self._on_denied(event.denied)
                case "renewed":
                    self._on_renewed(event.renewed)
                case "lost":
                    self._on_lost(event.lost)
                case "opened":
                    self._on_opened(event.opened)
                case "session_lost":
                    self._lose_session(event.session_lost.message or "the session ended")
                case "go_away":
                    self._link.leave_for(seconds(event.go_away.within))

    # Events ------------------------------------------------------------------------------------

    def _on_opened(self, opened: pb.Opened) -> None:
        lease, now = self._lease, self._heard_at
        if lease is None or self._link.stream is not None:
            return
        if lease.view is not None:
            lease.view = holding.resumed(lease.view, now)
        else:
            lease.view = holding.opened(
                sent_at=lease.asked_at,
                now=now,
                ttl=seconds(opened.ttl),
                renew_in=seconds(opened.renew_in),
                margin=self._config.safety_margin.total_seconds(),
                answer_timeout=self._config.renewal.answer_timeout.total_seconds(),
                probe_after=self._config.renewal.probe_after.total_seconds(),
            )
        self._link.opened()
        self._ever_opened = True
        # The renewal first: it is what everything else depends on.
        self._tick()
        self._send_everything(now)
        openings, self._openings = self._openings, []
        for _, future in openings:
            if not future.done():
                future.set_result(lease.credentials)

    def _on_granted(self, granted: seat_pb2.Granted) -> None:
        grant_id, lease = granted.grant_id, self._lease
        ask = self._asks.pop(grant_id, None)
        if ask is not None and lease is not None:
            if ask.future.done():
                # Cancelled a moment ago; its caller is about to give the seats back.
                return
            self._held[grant_id] = held = Held(
                grant_id=grant_id,
                pool=ask.pool,
                seats=granted.seats,
                project=ask.project,
                priority=ask.priority,
                fence=granted.fence,
                token=granted.token,
                granted_at=granted.granted_at,
                lease=lease,
                on_state=ask.on_state,
            )
            ask.future.set_result(held)
            return
        known = self._held.get(grant_id)
        if known is not None and known.fence == granted.fence:
            known.token = granted.token
        elif known is not None:
            # The grant was gone, and finding it again has taken seats anew.
            self._lose(known, "the grant had ended")
            self._leave(grant_id, known.pool, None)
        elif grant_id not in self._leaving:
            # Nobody here wants it; our own renewals would keep it alive for ever.
            self._leave(grant_id, granted.pool, None)

    def _on_released(self, grant_id: str) -> None:
        leaving = self._leaving.pop(grant_id, None)
        if leaving is not None:
            leaving.done()

    def _on_queued(self, queued: seat_pb2.Queued) -> None:
        ask = self._asks.get(queued.grant_id)
        if ask is None:
            held = self._held.get(queued.grant_id)
            if held is not None:
                self._lose(held, "the grant had ended")
                self._leave(held.grant_id, held.pool, None)
            return
        ask.answered, ask.attempt, ask.refusal = True, 0, None
        if ask.on_queued is not None:
            estimate = None
            if queued.HasField("estimate"):
                estimate = timedelta(seconds=seconds(queued.estimate))
            call_back(ask.on_queued, QueuePosition(queued.position, estimate))

    def _on_denied(self, denied: seat_pb2.Denied) -> None:
        if denied.reason == _Reason.DENIAL_REASON_SESSION_LOST:
            self._lose_session(denied.message or "the session ended")
        elif (ask := self._asks.get(denied.grant_id)) is not None:
            self._on_ask_denied(ask, denied)
        elif (leaving := self._leaving.get(denied.grant_id)) is not None:
            if denied.reason == _Reason.DENIAL_REASON_UNAVAILABLE:
                leaving.retry_at = self._heard_at + self._retry_seconds(1, denied)
            else:
                self._on_released(denied.grant_id)
        elif (
            held := self._held.get(denied.grant_id)
        ) is not None and denied.reason not in _UNDECIDED:
            self._lose(held, denied.message or "the grant had ended")

    def _on_ask_denied(self, ask: Ask, denied: seat_pb2.Denied) -> None:
        now, error = self._heard_at, from_denied(denied)
        ask.answered = True
        ask.attempt += 1
        match denied.reason:
            case _Reason.DENIAL_REASON_FINISHED if ask.attempt <= REASKS_MAX:
                self._ask_anew(ask)
                self._send_ask(ask, now)
                return
            case _Reason.DENIAL_REASON_UNAVAILABLE:
                # The outcome is unknown: the same id again, or two grants might be made.
                give_up_at = ask.expires_at
            case _Reason.DENIAL_REASON_OVERLOADED:
                give_up_at = _NEVER if ask.wait is None else ask.asked_at + ask.wait
            case _:
                give_up_at = now
        ask.refusal = error
        ask.retry_at = now + self._retry_seconds(ask.attempt, denied)
        if ask.retry_at >= give_up_at:
            self._fail(ask, error)

    def _on_renewed(self, renewed: pb.Renewed) -> None:
        lease, now = self._lease, self._heard_at
        if lease is None or lease.view is None:
            return
        before = lease.view
        lease.view = holding.renewal_answered(
            before,
            sequence=renewed.sequence,
            now=now,
            ttl=seconds(renewed.ttl),
            renew_in=seconds(renewed.renew_in),
        )
        missing = lease.renewing if lease.view is not before else frozenset()
        for refresh in renewed.tokens:
            held = self._held.get(refresh.grant.grant_id)
            if held is not None:
                held.token = refresh.token
        for grant_id in missing.difference(r.grant.grant_id for r in renewed.tokens):
            # It may have ended while we were between streams: look for it.
            if (held := self._held.get(grant_id)) is not None:
                self._send(held.command())
        if before.state is not lease.view.state:
            self._tell(lease.view.state)
        self._tick()

    def _on_lost(self, lost: seat_pb2.Lost) -> None:
        held, ask = self._held.get(lost.grant_id), self._asks.get(lost.grant_id)
        message = lost.message or "the seats were taken back"
        if held is not None:
            self._lose(held, message)
        elif ask is not None:
            self._fail(ask, SeatLost(message, grant_id=lost.grant_id))
        self._on_released(lost.grant_id)

    # Time --------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._clock.now()
        self._timer_at = _NEVER
        until = self._sweep(now)
        if self._lease is not None and self._lease.view is not None:
            until = min(until, self._look_after(self._lease, now))
        if not self._closed and until < _NEVER:
            self._arm(until)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._clock.call_at(at, self._tick)

    def _look_after(self, lease: Lease, now: float) -> float:
        """Do what the lease needs now; return when to look again."""
        for _ in range(STEPS_MAX):
            assert lease.view is not None
            lease.view = holding.owing(lease.view, self._owed_since())
            match holding.next_step(lease.view, now):
                case holding.Wait(until):
                    return until
                case holding.Renew():
                    lease.view = holding.renewal_sent(lease.view, now)
                    self._send_renewal(lease, lease.view.sequence)
                case holding.MoveOn():
                    lease.view = holding.disconnected(lease.view)
                    self._silent_since = None
                    self._link.move_on(blame="no answer to a renewal")
                case holding.EnterJeopardy():
                    lease.view = holding.in_jeopardy(lease.view)
                    self._tell(HoldingState.JEOPARDY)
                case holding.Lost():
                    self._lose_session("no node answered before the lease ran out")
                    return _NEVER
        return now + SWEEP_SECONDS

    def _send_renewal(self, lease: Lease, sequence: int) -> None:
        lease.renewing = frozenset(self._held)
        refs = [pb.GrantRef(pool=h.pool, grant_id=h.grant_id) for h in self._held.values()]
        self._send(pb.SessionCommand(renew=pb.Renew(sequence=sequence, tokens_for=refs)))

    def _owed_since(self) -> float | None:
        if self._link.stream is None:
            return None
        if self._leaving or any(not ask.answered for ask in self._asks.values()):
            return self._heard_at if self._silent_since is None else self._silent_since
        return None

    def _sweep(self, now: float) -> float:
        """Fail what has run out of time, send again what is due; return when to look again."""
        watched = False
        for ask in list(self._asks.values()):
            if ask.future.done():
                continue
            watched = True
            patience = self._config.connect_timeout.total_seconds()
            if now >= ask.expires_at or (
                not self._ever_opened and now >= ask.asked_at + patience
            ):
                self._fail(ask, ask.refusal or self._no_answer())
            elif ask.retry_at is not None and now >= ask.retry_at:
                if ask.refusal is not None and isinstance(ask.refusal, Overloaded):
                    # Refused for good: nothing is known under the old id.
                    self._ask_anew(ask)
                self._send_ask(ask, now)
        for leaving in self._leaving.values():
            if leaving.future is not None and now >= leaving.asked_at + self._call_seconds:
                leaving.done()
                leaving.future = None
            if leaving.retry_at is not None and now >= leaving.retry_at:
                leaving.retry_at = None
                self._send(leaving.command())
            watched = True
        for asked_at, future in self._openings:
            watched = True
            if now >= asked_at + self._call_seconds and not future.done():
                future.set_exception(self._no_answer())
        self._openings = [entry for entry in self._openings if not entry[1].done()]
        return now + SWEEP_SECONDS if watched else _NEVER

    def _retry_seconds(self, attempt: int, denied: seat_pb2.Denied) -> float:
        given = seconds(denied.retry_after) if denied.HasField("retry_after") else None
        return delay_seconds(
            attempt, self._config.backoff, random=self._random(), retry_after=given
        )

    # Ends --------------------------------------------------------------------------------------

    def _no_answer(self) -> SeatError:
        trouble = self._link.trouble
        return ServiceUnavailable(
            f"no node answered; {trouble}", retry_after=trouble.retry_after
        )

    def _ask_anew(self, ask: Ask) -> None:
        self._asks.pop(ask.grant_id, None)
        ask.grant_id, ask.sent, ask.refusal = new_id(), False, None
        self._asks[ask.grant_id] = ask

    def _fail(self, ask: Ask, error: SeatError) -> None:
        self._asks.pop(ask.grant_id, None)
        unknown = isinstance(error, ServiceUnavailable) and not isinstance(error, Overloaded)
        if ask.sent and unknown:
            # It may have been accepted all the same.
            self._leave(ask.grant_id, ask.pool, None)
        if not ask.future.done():
            ask.future.set_exception(error)

    def _fail_all(self, error: SeatError) -> None:
        for ask in list(self._asks.values()):
            self._fail(ask, error)
        openings, self._openings = self._openings, []
        for _, future in openings:
            if not future.done():
                future.set_exception(error)

    def _lose(self, held: Held, message: str) -> None:
        self._held.pop(held.grant_id, None)
        held.lost = message
        held.tell(HoldingState.LOST)

    def _lose_session(self, message: str) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        _log.log(
            logging.DEBUG if self._closed else logging.WARNING, "session lost: %s", message
        )
        if lease.view is not None:
            lease.view = holding.lost(lease.view)
        self._session_over.set()
        self._silent_since = None
        self._link.move_on()
        leaving, self._leaving = self._leaving, {}
        for entry in leaving.values():
            entry.done()
        for held in list(self._held.values()):
            self._lose(held, message)
        for ask in list(self._asks.values()):
            ask.retry_at = None
            self._ask_anew(ask)

    def _tell(self, state: HoldingState) -> None:
        for held in list(self._held.values()):
            held.tell(state)
