"""The driver of one client's session: the only place that changes what the client remembers.

Theory of operation
-------------------
Four parts, each with one job. A `Link` keeps a stream to some node. A `LeaseKeeper` knows the session
and what may be believed of it. `Tables` remember what must survive a stream. This driver hands events
and time to them, and their commands to the stream.

One timer (`_tick`) asks the keeper what the lease needs, and the tables whose time is up. No request
has a timer of its own. Whenever a stream opens, all that the tables hold is sent again, so nobody
needs to know whether a command or an answer was lost on its way.

What is never true: an id in two tables; a command sent before the service opened the session on
that stream; a grant held under another lease than the present one; a user's callback that stops
the driver.

When the session is lost, grants become lost, and requests that wait are asked again under a
new session with new ids: their callers never notice, except by their place in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Callable, Iterable

import grpc
from grpc import aio

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.home import Home
from seatkeeper.client.session.lease import NEVER, Lease, LeaseKeeper
from seatkeeper.client.session.link import Link
from seatkeeper.client.session.requests import (
    CLIENT_CLOSED,
    Held,
    OnQueued,
    OnState,
    PendingRequest,
)
from seatkeeper.client.session.tables import SWEEP_SECONDS, Tables
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.client.transport.translate import from_rpc, seconds
from seatkeeper.core.clock import Clock, Timer
from seatkeeper.core.errors import ClientClosed, Overloaded, SeatError, ServiceUnavailable
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc

MOVE_SECONDS = (2.0, 12.0)
"""When a client that learns of a better node goes there. Not at once: moving costs more than passing a
few requests on. And not all at the same moment."""
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
_SESSION_LOST = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED})
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
        on_view: Callable[[Lease], None] | None = None,
    ) -> None:
        self._nodes = nodes
        self._connect = connect
        self._clock = clock
        self._call_seconds = config.call_timeout.total_seconds()
        self._connect_seconds = config.connect_timeout.total_seconds()
        self._tables = Tables(self, config, random)
        self._keeper = LeaseKeeper(self, config, clock, holder, project, on_view)
        self._link = Link(self, nodes, connect, config, clock, random)
        self._home = Home(nodes, follow=config.follow_ring)
        self._random = random
        self._going_home: Timer | None = None
        self._openings: list[tuple[float, asyncio.Future[pb.SessionCredentials]]] = []
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._timer_at = NEVER
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
        ask = PendingRequest(
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
            expires_at=NEVER if wait is None else now + wait + self._call_seconds,
        )
        self._tables.ask(ask, now)
        if self._home.is_news(pool):
            self._go_home()
        try:
            return await ask.future
        except BaseException:
            # Also when it was granted in the same moment in which the caller was cancelled.
            self._tables.abandon(ask, self._clock.now())
            raise

    def release(self, held: Held) -> asyncio.Future[None] | None:
        """Give seats back; the future ends when the service has confirmed it, or does not answer.

        Returns None when there is nothing to give: released before, or lost.
        """
        if held.grant_id not in self._tables.held:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tables.leave(held.grant_id, held.pool, self._clock.now(), future)
        return future

    async def opened(self) -> pb.SessionCredentials:
        """Return what proves that the session is ours, opening one when there is none."""
        if self._closed:
            raise ClientClosed
        if self._keeper.opened is not None:
            return self._keeper.opened.credentials
        future: asyncio.Future[pb.SessionCredentials]
        future = asyncio.get_running_loop().create_future()
        self._openings.append((self._clock.now(), future))
        self.attend()
        return await future

    def is_waiting(self, pool: str) -> bool:
        """Tell whether a request of this client waits for seats of the pool."""
        return any(ask.pool == pool for ask in self._tables.asks.values())

    def state(self) -> HoldingState:
        """Return how sure the holder may be of the session; LOST while there is none."""
        lease = self._keeper.lease
        return HoldingState.LOST if lease is None else lease.state(self._clock.now())

    def renews_at(self) -> float:
        """Return when the session is renewed next, in the past while it is being renewed.

        Infinity: not at all, because there is no session or no stream. Callable from any thread.
        """
        lease = self._keeper.opened
        view = None if lease is None else lease.view
        if view is None or not view.connected:
            return NEVER
        return view.renew_at if view.sent_at is None else -NEVER

    async def close(self) -> None:
        """End the session: everything held is free at once, or at the latest after its ttl."""
        if self._closed:
            return
        self._closed = True
        self._fail_all(ClientClosed())
        # Before the service is told: from then on somebody else may have the seats.
        self._tables.lose_held(CLIENT_CLOSED)
        try:
            if self._keeper.opened is not None:
                await self._say_goodbye(self._keeper.opened)
        finally:
            self._lose_session(CLIENT_CLOSED)
            for timer in (self._timer, self._going_home):
                if timer is not None:
                    timer.cancel()
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)

    async def close_elsewhere(self) -> None:
        """End the session from another event loop, because its own is gone or does not run."""
        if self._closed:
            return
        self._closed = True
        lease = self._keeper.opened
        self._tables.lose_held(CLIENT_CLOSED)
        self._keeper.end()
        if lease is not None:
            await self._close_through_any(lease)

    def bind(self, on_state: OnState | None) -> OnState | None:
        """Return ``on_state``, which is called in this session's only event loop."""
        return on_state

    def freshen(self) -> None:
        """Do nothing: what has arrived is known."""

    async def _say_goodbye(self, lease: Lease) -> None:
        if self.send(pb.SessionCommand(close=pb.Close())):
            timer = self._clock.call_at(
                self._clock.now() + CLOSE_SECONDS_MAX, self._session_over.set
            )
            await self._session_over.wait()
            timer.cancel()
            if self._keeper.lease is None:
                return
        # Between two streams, or the node is silent: any other will do.
        await self._close_through_any(lease)

    async def _close_through_any(self, lease: Lease) -> None:
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

    # For the tables ----------------------------------------------------------------------------

    def send(self, command: pb.SessionCommand) -> bool:
        """Send a command; return whether there was a stream to send it on."""
        stream = self._link.stream
        if stream is None:
            return False
        stream.send(command)
        self._keeper.sent()
        return True

    def current_lease(self) -> Lease | None:
        """Return the session; None: there is none."""
        return self._keeper.lease

    def attend(self) -> None:
        """See to it that somebody works on what was just asked, and that its time is watched."""
        if self._task is None:
            self._task = asyncio.create_task(self._link.run(), name="seatkeeper-session")
        soon = self._clock.now() + SWEEP_SECONDS
        if self._timer_at > soon:
            self._arm(soon)
        if self._keeper.lease is None:
            self._link.poke()

    def no_answer(self) -> SeatError:
        """Return the error of a request that no node answered."""
        trouble = self._link.trouble
        if isinstance(trouble, Overloaded):
            return Overloaded(f"no node let us in; {trouble}", retry_after=trouble.retry_after)
        return ServiceUnavailable(
            f"no node answered; {trouble}", retry_after=trouble.retry_after
        )

    # For the link ------------------------------------------------------------------------------

    def is_wanted(self) -> bool:
        """Tell whether there is a session to keep, or a reason to open one."""
        asked = self._tables.asks or self._openings
        return not self._closed and (self._keeper.lease is not None or bool(asked))

    def hello(self) -> pb.SessionCommand:
        """Return `open` for a new session, `resume` for one that the service knows."""
        return self._keeper.hello()

    def seconds_left(self) -> float | None:
        """Return how long the lease may still be counted on; None: there is none to lose."""
        return self._keeper.seconds_left()

    def on_stream_end(self, error: aio.AioRpcError | None, *, was_open: bool) -> bool:
        """Learn that the stream ended; return whether the node is to blame."""
        self._keeper.on_disconnected()
        if error is None or was_open or self._keeper.lease is None:
            return error is not None
        is_known = self._keeper.opened is not None
        if is_known and error.code() in _SESSION_LOST:
            self._lose_session(f"the service no longer knows the session: {error.details()}")
            return False
        if not is_known and error.code() in _FATAL:
            self._keeper.end()
            self._fail_all(from_rpc(error))
            return False
        return True

    def on_outage(self) -> None:
        """Learn that every node was tried and none answered."""
        self._keeper.on_outage()
        self._tick()

    def on_events(self, events: Iterable[pb.SessionEvent]) -> None:
        """Take what the service says, in order."""
        now, tables = self._keeper.heard(), self._tables
        for event in events:
            match event.WhichOneof("event"):
                case "granted":
                    tables.on_granted(event.granted, now)
                case "released":
                    tables.on_released(event.released.grant_id, now)
                case "queued":
                    tables.on_queued(event.queued, now)
                case "denied":
                    self._on_denied(event.denied, now)
                case "renewed":
                    self._on_renewed(event.renewed)
                case "lost":
                    tables.on_lost(event.lost, now)
                case "opened":
                    self._on_opened(event.opened, now)
                case "session_lost":
                    self._lose_session(event.session_lost.message or "the session ended")
                case "ring":
                    self._home.learn(event.ring, self._link.address)
                    self._go_home()
                case "go_away":
                    self._link.leave_for(seconds(event.go_away.within))

    # For the lease -----------------------------------------------------------------------------

    def send_renewal(self, lease: Lease, sequence: int) -> None:
        """Renew, and ask for new tokens of everything held."""
        held = self._tables.held
        lease.renewing = frozenset(held)
        refs = [pb.GrantRef(pool=h.pool, grant_id=h.grant_id) for h in held.values()]
        self.send(pb.SessionCommand(renew=pb.Renew(sequence=sequence, tokens_for=refs)))

    def leave_node(self) -> None:
        """Go on with another node: this one does not answer."""
        self._link.move_on(blame="no answer to a renewal")

    def on_doubt(self) -> None:
        """Tell the holders that their seats are in doubt."""
        self._tables.tell(HoldingState.JEOPARDY)

    def on_lease_over(self, message: str) -> None:
        """Tell the holders that their seats are gone."""
        self._lose_session(message)

    # Events, time, ends ------------------------------------------------------------------------

    def _on_opened(self, opened: pb.Opened, now: float) -> None:
        lease = self._keeper.on_opened(opened)
        if lease is None:
            return
        self._link.opened()
        # The renewal first: it is what everything else depends on.
        self._tick()
        self._tables.send_everything(now)
        self._home.learn(opened.ring, self._link.address)
        self._go_home()
        openings, self._openings = self._openings, []
        for _, future in openings:
            if not future.done():
                future.set_result(lease.credentials)

    def _home_address(self) -> str | None:
        """Return where the pools that are used are decided, if that is elsewhere."""
        if self._link.stream is None:
            return None
        pools = [ask.pool for ask in self._tables.asks.values()]
        pools += [held.pool for held in self._tables.held.values()]
        return self._home.address(pools, self._link.address, self._clock.now())

    def _go_home(self) -> None:
        """Go there, in a while, if that is still right then."""
        if self._going_home is not None or self._home_address() is None:
            return
        earliest, latest = MOVE_SECONDS
        pause = earliest + self._random() * (latest - earliest)
        self._going_home = self._clock.call_at(self._clock.now() + pause, self._arrive_home)

    def _arrive_home(self) -> None:
        self._going_home = None
        if not self._closed and (address := self._home_address()) is not None:
            self._link.go_to(address)

    def _on_denied(self, denied: seat_pb2.Denied, now: float) -> None:
        if denied.reason == seat_pb2.DENIAL_REASON_SESSION_LOST:
            self._lose_session(denied.message or "the session ended")
        else:
            self._tables.on_denied(denied, now)

    def _on_renewed(self, renewed: pb.Renewed) -> None:
        lease = self._keeper.opened
        if lease is None or lease.view is None:
            return
        asked = lease.renewing if renewed.sequence == lease.view.sequence else frozenset()
        safe_again = self._keeper.on_renewed(renewed)
        self._tables.on_tokens(renewed.tokens)
        # What got no token may have ended while we were between two streams.
        self._tables.look_for(asked.difference(r.grant.grant_id for r in renewed.tokens))
        if safe_again:
            self._tables.tell(HoldingState.SAFE)
        self._go_home()
        self._tick()

    def _tick(self) -> None:
        now = self._clock.now()
        self._timer_at = NEVER
        until = self._tables.sweep(now, ever_connected=self._keeper.ever_opened)
        for asked_at, future in self._openings:
            until = min(until, now + SWEEP_SECONDS)
            if now >= asked_at + self._connect_seconds and not future.done():
                future.set_exception(self.no_answer())
        self._openings = [entry for entry in self._openings if not entry[1].done()]
        owes = self._link.stream is not None and self._tables.node_owes()
        until = min(until, self._keeper.look(node_owes=owes))
        if not self._closed and until < NEVER:
            self._arm(until)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._clock.call_at(at, self._tick)

    def _fail_all(self, error: SeatError) -> None:
        for ask in list(self._tables.asks.values()):
            self._tables.fail(ask, error, self._clock.now())
        openings, self._openings = self._openings, []
        for _, future in openings:
            if not future.done():
                future.set_exception(error)

    def _lose_session(self, message: str) -> None:
        if self._keeper.end() is None:
            return
        level = logging.DEBUG if self._closed else logging.WARNING
        _log.log(level, "session lost: %s", message)
        self._session_over.set()
        self._link.move_on()
        self._tables.lose_everything(message)
