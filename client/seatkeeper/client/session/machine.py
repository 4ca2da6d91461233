"""What the service and the clock do to one session: the only place that changes what is remembered.

Theory of operation
-------------------
Four parts, each with one job. A `NodeLink` keeps a stream to some node. A `LeaseKeeper` knows the
session and what may be believed of it. `Tables` remember what must survive a stream. This machine hands
events and time to them, and their commands to the stream.

One timer (`_tick`) asks the keeper what the lease needs, and the tables whose time is up. No request
has a timer of its own. Whenever a stream opens, all that the tables hold is sent again, so no part
needs to know whether a command or an answer was lost on its way.

What is never true: an id in two tables; a command sent before the service opened the session on
that stream; a grant held under another lease than the present one; a user's callback that stops
the machine.

When the session is lost, grants become lost, and requests that wait are asked again under a
new session with new ids: their callers never notice, except by their place in the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import grpc
from grpc import aio

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.home import Home, Relocation
from seatkeeper.client.session.lease import NEVER, Account, Lease, LeaseKeeper
from seatkeeper.client.session.node_link import NodeLink
from seatkeeper.client.session.openings import Openings
from seatkeeper.client.session.requests import PendingRequest
from seatkeeper.client.session.tables import SWEEP_SECONDS, Tables
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.client.transport.translate import from_rpc, seconds
from seatkeeper.core.clock import Clock, Timer
from seatkeeper.core.errors import Overloaded, SeatError, ServiceUnavailable
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

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


class SessionMachine:
    """The parts of one session, and what passes between them. Belongs to one event loop."""

    def __init__(
        self,
        nodes: NodePicker,
        connect: Callable[[str], aio.Channel],
        config: ClientConfig,
        account: Account,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._clock = clock
        self.keeper = LeaseKeeper(self, config, account, clock)
        """The lease."""
        self.tables = Tables(self, config, random, self.keeper.renew_soon)
        """Requests, grants and releases."""
        self.link = NodeLink(self, nodes, connect, config, clock, random)
        """The stream."""
        self.openings = Openings(config.connect_timeout.total_seconds())
        """Callers that wait for the session to be opened."""
        home = Home(nodes, follow=config.follow_ring)
        self._relocation = Relocation(home, self.link, self._pools, clock, random)
        self.over = asyncio.Event()
        """Set when a session has ended."""
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._timer_at = NEVER
        self.is_closed = False
        """Whether the client has closed it: nothing is opened any more."""

    def ask(self, request: PendingRequest) -> None:
        """Enter a request."""
        self.tables.ask(request, request.asked_at)
        self._relocation.use(request.pool)

    def fail_all(self, error: SeatError) -> None:
        """End everything that waits with an error."""
        for ask in list(self.tables.asks.values()):
            self.tables.fail(ask, error, self._clock.now())
        self.openings.fail(error)

    async def stop(self) -> None:
        """Stop the timers and the stream."""
        if self._timer is not None:
            self._timer.cancel()
        self._relocation.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # For the tables ----------------------------------------------------------------------------

    def send(self, command: pb.SessionCommand) -> bool:
        """Send a command; return whether there was a stream to send it on."""
        stream = self.link.stream
        if stream is None:
            return False
        stream.send(command)
        self.keeper.sent()
        return True

    def current_lease(self) -> Lease | None:
        """Return the session; None: there is none."""
        return self.keeper.lease

    def attend(self) -> None:
        """See to it that somebody works on what was just asked, and that its time is watched."""
        if self._task is None:
            self._task = asyncio.create_task(self.link.run(), name="seatkeeper-session")
        soon = self._clock.now() + SWEEP_SECONDS
        if self._timer_at > soon:
            self._arm(soon)
        if self.keeper.lease is None:
            self.link.poke()

    def leave_undecided(self, *, is_repeated: bool) -> bool:
        """Go to another node, if one may decide what this one did not; return whether it is done."""
        return self.link.leave_undecided(is_repeated=is_repeated)

    def no_answer(self) -> SeatError:
        """Return the error of a request that no node answered."""
        trouble = self.link.trouble
        if isinstance(trouble, Overloaded):
            return Overloaded(f"no node let us in; {trouble}", retry_after=trouble.retry_after)
        return ServiceUnavailable(
            f"no node answered; {trouble}", retry_after=trouble.retry_after
        )

    # For the link ------------------------------------------------------------------------------

    def is_wanted(self) -> bool:
        """Return whether there is a session to keep, or a reason to open one."""
        asked = self.tables.asks or self.openings
        return not self.is_closed and (self.keeper.lease is not None or bool(asked))

    def hello(self) -> pb.SessionCommand:
        """Return `open` for a new session, `resume` for one that the service knows."""
        return self.keeper.hello()

    def seconds_left(self) -> float | None:
        """Return how long the lease may still be counted on; None: there is none to lose."""
        return self.keeper.seconds_left()

    def on_stream_end(self, error: aio.AioRpcError | None, *, was_open: bool) -> bool:
        """Learn that the stream ended; return whether the node is to blame."""
        self.keeper.on_disconnected()
        if error is None or was_open or self.keeper.lease is None:
            return error is not None
        is_known = self.keeper.opened is not None
        if is_known and error.code() in _SESSION_LOST:
            self.on_lease_over(f"the service no longer knows the session: {error.details()}")
            return False
        if not is_known and error.code() in _FATAL:
            self.keeper.end()
            self.fail_all(from_rpc(error))
            return False
        return True

    def on_outage(self) -> None:
        """Learn that every node was tried and none answered."""
        self.keeper.on_outage()
        self._tick()

    def on_events(self, events: Iterable[pb.SessionEvent]) -> None:
        """Take what the service says, in order."""
        now, tables = self.keeper.received(), self.tables
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
                case "reclaiming":
                    tables.recallable.on_reclaiming(event.reclaiming, now)
                case "session_lost":
                    self.on_lease_over(event.session_lost.message or "the session ended")
                case "ring":
                    self._relocation.learn(event.ring)
                case "go_away":
                    self.link.leave_for(seconds(event.go_away.within))
        if self.keeper.is_renewal_due:
            self._tick()

    # For the lease -----------------------------------------------------------------------------

    def send_renewal(self, lease: Lease, sequence: int) -> None:
        """Renew, and ask for new tokens of what is held with one."""
        held = [held for held in self.tables.held.values() if held.wanted.token]
        lease.renewing = frozenset(each.grant_id for each in held)
        refs = [pb.GrantRef(pool=each.pool, grant_id=each.grant_id) for each in held]
        recallable = self.tables.recallable.refs()
        lease.confirming = frozenset(each.grant_id for each in recallable)
        renew = pb.Renew(
            sequence=sequence,
            tokens_for=refs,
            reclaimable=recallable,
            activity=self.tables.holdings.activity(self._clock.now()),
        )
        self.send(pb.SessionCommand(renew=renew))

    def leave_node(self) -> None:
        """Go on with another node: this one does not answer."""
        self.link.move_on(blame="no answer to a renewal")

    def on_doubt(self) -> None:
        """Notify the holders that their seats are in jeopardy."""
        self.tables.holdings.notify(HoldingState.JEOPARDY)

    def on_lease_over(self, message: str) -> None:
        """End the session: the holders' seats are gone, requests begin anew."""
        if self.keeper.end() is None:
            return
        level = logging.DEBUG if self.is_closed else logging.WARNING
        _log.log(level, "session lost: %s", message)
        self.over.set()
        self.link.move_on()
        self.tables.lose_everything(message, self._clock.now())

    # Events and time ---------------------------------------------------------------------------

    def _on_opened(self, opened: pb.Opened, now: float) -> None:
        lease = self.keeper.on_opened(opened)
        if lease is None:
            return
        self.link.opened()
        # The renewal first: it is what everything else depends on.
        self._tick()
        self.tables.send_everything(now)
        self._relocation.learn(opened.ring)
        self.openings.succeed(lease.credentials)

    def _on_denied(self, denied: seat_pb2.Denied, now: float) -> None:
        if denied.reason == seat_pb2.DENIAL_REASON_SESSION_LOST:
            self.on_lease_over(denied.message or "the session ended")
        else:
            self.tables.on_denied(denied, now)

    def _on_renewed(self, renewed: pb.Renewed) -> None:
        lease = self.keeper.opened
        if lease is None or lease.view is None:
            return
        is_last = renewed.sequence == lease.view.sequence
        asked = lease.renewing if is_last else frozenset()
        sent_at = lease.view.sent_at
        safe_again = self.keeper.on_renewed(renewed)
        self.tables.holdings.keep_tokens(renewed.tokens)
        # What got no token may have ended while we were between two streams.
        self.tables.look_for(asked.difference(r.grant.grant_id for r in renewed.tokens))
        if is_last and sent_at is not None and lease.confirming:
            now = self._clock.now()
            self.tables.recallable.on_confirmed(renewed.held, lease.confirming, sent_at, now)
        if safe_again:
            self.tables.holdings.notify(HoldingState.SAFE)
        self._relocation.consider()
        self._tick()

    def _tick(self) -> None:
        now = self._clock.now()
        self._timer_at = NEVER
        until = self.tables.sweep(now, ever_connected=self.keeper.ever_opened)
        if self.openings.sweep(now, self.no_answer):
            until = min(until, now + SWEEP_SECONDS)
        owes = self.link.stream is not None and self.tables.node_owes()
        until = min(until, self.keeper.look(node_owes=owes))
        if not self.is_closed and until < NEVER:
            self._arm(until)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._clock.call_at(at, self._tick)

    def _pools(self) -> Iterable[str]:
        """Return the pools that are used, each as often as it is."""
        yield from (ask.pool for ask in self.tables.asks.values())
        yield from (held.pool for held in self.tables.held.values())
