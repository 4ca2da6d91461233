"""What must survive a stream: three tables by grant id, and what the service's answers do to them.

``asks`` are requests not answered for good, ``held`` are grants, ``leaving`` is being given up. No id
is in two of them. A command is sent when it enters its table, if there is a stream, and all of them
are sent again on the next one: the service answers a repeated id with what the first one made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Protocol

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.holdings import Holdings
from seatkeeper.client.session.lease import NEVER, Lease
from seatkeeper.client.session.recallable import Recallable
from seatkeeper.client.session.reclaiming import is_fresh
from seatkeeper.client.session.refusals import (
    AskAnew,
    AskLater,
    GiveUp,
    is_released,
    is_undecided,
    next_step,
)
from seatkeeper.client.session.requests import (
    EstimateBasis,
    Held,
    Leaving,
    PendingRequest,
    QueuePosition,
    call_back,
)
from seatkeeper.client.transport.backoff import delay_seconds
from seatkeeper.client.transport.translate import seconds
from seatkeeper.core.errors import (
    Overloaded,
    SeatError,
    SeatLost,
    ServiceUnavailable,
    SessionLost,
)
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

SWEEP_SECONDS = 0.25
"""How often requests are looked at while there are any."""

_Reason = seat_pb2.DenialReason
GANG_BROKEN = (
    "the session, or the id of a request, ended while several waited together: ask for all anew"
)
_UNDECIDED = (_Reason.DENIAL_REASON_UNAVAILABLE, _Reason.DENIAL_REASON_OVERLOADED)
"""Answers that leave a grant that we looked for standing."""


class TablesOwner(Protocol):
    """The sender of what the tables want sent."""

    def send(self, command: pb.SessionCommand) -> bool:
        """Send a command; return whether there was a stream to send it on."""

    def current_lease(self) -> Lease | None:
        """Return the session; None: there is none."""

    def attend(self) -> None:
        """See to it that somebody works on what was just entered, and watches its time."""

    def leave_undecided(self, *, is_repeated: bool) -> bool:
        """Go to another node, if one may decide what this one did not; return whether it is done.

        Then everything is sent again there. ``is_repeated``: it was not decided for the second time.
        """

    def no_answer(self) -> SeatError:
        """Return the error of a request that no node answered."""


class Tables:
    """Requests, grants and releases of one client. Times are passed in, the owner sends."""

    def __init__(
        self,
        owner: TablesOwner,
        config: ClientConfig,
        random: Callable[[], float],
        renew_soon: Callable[[], None],
    ) -> None:
        """``renew_soon`` has a renewal sent that confirms what may be called back."""
        self._owner = owner
        self._backoff = config.backoff
        self._random = random
        self._call_seconds = config.call_timeout.total_seconds()
        self._connect_seconds = config.connect_timeout.total_seconds()
        self.asks: dict[str, PendingRequest] = {}
        self.holdings = Holdings(kills=config.on_loss == "kill")
        self.held = self.holdings.held
        self.recallable = Recallable(self, self.holdings, renew_soon)
        """Those of them whose seats may be called back."""
        self.leaving: dict[str, Leaving] = {}

    # What the client wants ---------------------------------------------------------------------

    def ask(self, ask: PendingRequest, now: float) -> None:
        """Enter a request."""
        self.asks[ask.grant_id] = ask
        self.send_ask(ask, now)
        self._owner.attend()

    def leave(
        self, grant_id: str, pool: str, now: float, future: asyncio.Future[None] | None = None
    ) -> None:
        """Give up whatever is or may come under this id; ``future`` is resolved when that is done."""
        held = self.holdings.forget(grant_id)
        leaving = Leaving(grant_id, pool, now, future, held.work_end if held else None)
        if self._owner.current_lease() is None:
            # The session is gone, and with it whatever this was.
            leaving.done()
            return
        self.leaving[grant_id] = leaving
        self._owner.send(leaving.command())
        self._owner.attend()

    def abandon(self, ask: PendingRequest, now: float) -> None:
        """Let go of what a request that failed or was cancelled may have left behind."""
        self.asks.pop(ask.grant_id, None)
        if ask.grant_id in self.held or (ask.sent and ask.future.cancelled()):
            self.leave(ask.grant_id, ask.pool, now)

    def fail(self, ask: PendingRequest, error: SeatError, now: float) -> None:
        """End a request with an error. It holds nothing and waits for nothing any more."""
        self.asks.pop(ask.grant_id, None)
        unknown = isinstance(error, ServiceUnavailable) and not isinstance(error, Overloaded)
        if (ask.sent and unknown) or ask.granted is not None:
            # It may have been accepted all the same.
            self.leave(ask.grant_id, ask.pool, now)
        if not ask.future.done():
            ask.future.set_exception(error)

    def send_everything(self, now: float) -> None:
        """Send all of it, on a stream that has just opened, but not sooner than it was asked to."""
        # Releases first: what they free may be what the requests want.
        for leaving in self.leaving.values():
            leaving.retry_elsewhere = False
            if leaving.retry_at is None:
                self._owner.send(leaving.command())
        self.look_for(self.held)
        for ask in self.asks.values():
            ask.retry_elsewhere = False
            if ask.retry_at is None:
                self.send_ask(ask, now)

    def look_for(self, grant_ids: Iterable[str]) -> None:
        """Ask whether grants still exist, by asking for them again."""
        for grant_id in grant_ids:
            held = self.held.get(grant_id)
            if held is not None:
                self._owner.send(held.command())

    def node_owes(self) -> bool:
        """Return whether a node that has everything has yet to answer some of it."""
        owes_release = any(leaving.retry_at is None for leaving in self.leaving.values())
        return owes_release or any(not ask.answered for ask in self.asks.values())

    def lose_everything(self, message: str, now: float) -> None:
        """End with the session: grants are lost, releases are done, requests begin anew."""
        leaving, self.leaving = self.leaving, {}
        for entry in leaving.values():
            entry.done()
        self.holdings.lose_all(message)
        for ask in list(self.asks.values()):
            ask.retry_at = None
            if ask.is_again:  # of the next session, this is another request
                ask.sent, ask.first_sent_at, ask.granted = False, None, None
            else:
                self._rename(ask, now)

    # What the service says ---------------------------------------------------------------------

    def on_granted(self, granted: seat_pb2.Granted, now: float) -> None:
        """Note that seats were granted, or found again."""
        grant_id, lease = granted.grant_id, self._owner.current_lease()
        ask = self.asks.pop(grant_id, None)
        if ask is not None and lease is not None:
            if ask.future.done():
                # Cancelled a moment ago; its caller is about to give the seats back.
                return
            sent_at = now if ask.first_sent_at is None else ask.first_sent_at
            if granted.reclaimable and lease.view and not is_fresh(lease.view, sent_at, now):
                ask.answered, ask.granted = True, granted
                self.asks[grant_id] = ask
                self.recallable.renew_soon()
            else:
                self.holdings.hold(ask, granted, lease, sent_at)
            return
        known = self.held.get(grant_id)
        if known is not None and known.fence == granted.fence:
            if granted.token:
                known.renew_token(granted.token)
        elif known is not None:
            # The grant was gone, and finding it again has taken seats anew.
            self.holdings.lose(known, "the grant had ended")
            self.leave(grant_id, known.pool, now)
        elif grant_id not in self.leaving:
            # It is unwanted here; our own renewals would keep it alive forever.
            self.leave(grant_id, granted.pool, now)

    def on_released(self, grant_id: str, now: float) -> None:
        """Note that a grant or ticket was given up."""
        leaving = self.leaving.pop(grant_id, None)
        if leaving is not None:
            leaving.done()
        elif (ask := self.asks.get(grant_id)) is not None and not ask.future.done():
            # Not by us: the node does not know why its place is gone. Asking anew shows it.
            finished = seat_pb2.Denied(
                grant_id=grant_id,
                reason=_Reason.DENIAL_REASON_FINISHED,
                message="the place in the queue was given up",
            )
            self._on_ask_denied(ask, finished, now)
        elif (held := self.held.get(grant_id)) is not None:
            # Not by us: by another program that has the session's secret, or by an administrator.
            self.holdings.lose(held, "the seats were given back by another")

    def on_queued(self, queued: seat_pb2.Queued, now: float) -> None:
        """Note that a request waits, and where."""
        ask = self.asks.get(queued.grant_id)
        if ask is None:
            held = self.held.get(queued.grant_id)
            if held is not None:
                self.holdings.lose(held, "the grant had ended")
                self.leave(held.grant_id, held.pool, now)
            return
        ask.answered, ask.attempt, ask.refusal = True, 0, None
        if ask.on_queued is not None:
            estimate, between = None, None
            if queued.HasField("estimate"):
                estimate = timedelta(seconds=seconds(queued.estimate))
            if queued.HasField("estimate_high"):
                low, high = seconds(queued.estimate_low), seconds(queued.estimate_high)
                between = timedelta(seconds=low), timedelta(seconds=high)
            place = QueuePosition(
                queued.position,
                estimate,
                _basis(queued),
                queued.waits_for_work,
                between,
                ask.wanted.pool,
            )
            call_back(ask.on_queued, place)

    def on_denied(self, denied: seat_pb2.Denied, now: float) -> None:
        """Deal with a refusal, for any reason but the end of the session."""
        grant_id = denied.grant_id
        if (ask := self.asks.get(grant_id)) is not None:
            self._on_ask_denied(ask, denied, now)
        elif (leaving := self.leaving.get(grant_id)) is not None:
            if is_released(denied):
                self.on_released(grant_id, now)
            else:
                leaving.attempt += 1
                leaving.retry_at = now + self._retry_seconds(leaving.attempt, denied)
                leaving.retry_elsewhere = is_undecided(denied)
        elif (held := self.held.get(grant_id)) is not None:  # noqa: SIM102 # reads in order
            if denied.reason not in _UNDECIDED:
                self.holdings.lose(held, denied.message or "the grant had ended")

    def on_lost(self, lost: seat_pb2.Lost, now: float) -> None:
        """Note that a grant or ticket ended without our asking."""
        message = lost.message or "the seats were taken back"
        if (held := self.held.get(lost.grant_id)) is not None:
            self.holdings.lose(held, message)
        elif (ask := self.asks.get(lost.grant_id)) is not None:
            if lost.reason == seat_pb2.LOST_REASON_SESSION_EXPIRED:
                # Its place went with the session: it is asked for in the next one.
                ask.answered, ask.retry_anew = True, True
                ask.attempt += 1
                ask.retry_at = now + delay_seconds(
                    ask.attempt, self._backoff, random=self._random()
                )
            else:
                self.fail(ask, SeatLost(message, grant_id=lost.grant_id), now)
        self.on_released(lost.grant_id, now)

    # Time --------------------------------------------------------------------------------------

    def sweep(self, now: float, *, ever_connected: bool) -> float:
        """Fail what has run out of time, send again what is due; return when to look again."""
        due: list[PendingRequest | Leaving] = []
        for ask in list(self.asks.values()):
            if ask.future.done():
                continue
            over_at = ask.expires_at
            if not ever_connected:
                over_at = min(over_at, ask.asked_at + self._connect_seconds)
            if now >= over_at:
                self.fail(ask, ask.refusal or self._owner.no_answer(), now)
            elif ask.retry_at is None or now < ask.retry_at:
                continue
            elif not ask.retry_anew or self._rename(ask, now):
                due.append(ask)
        for leaving in self.leaving.values():
            if leaving.future is not None and now >= leaving.asked_at + self._call_seconds:
                # The caller has waited long enough; the release itself stays.
                leaving.done()
                leaving.future = None
            if leaving.retry_at is not None and now >= leaving.retry_at:
                due.append(leaving)
        self._repeat(due, now)
        return min(
            self.recallable.sweep(now),
            now + SWEEP_SECONDS if self.asks or self.leaving else NEVER,
        )

    def _repeat(self, due: list[PendingRequest | Leaving], now: float) -> None:
        """Send again what was put off until now: here, or all of it at the next node."""
        for entry in due:
            entry.retry_at = None
        undecided = [entry.attempt for entry in due if entry.retry_elsewhere]
        if undecided and self._owner.leave_undecided(is_repeated=max(undecided) > 1):
            return  # what is not put off is sent when the next stream opens
        for entry in due:
            entry.retry_elsewhere = False
            if isinstance(entry, Leaving):
                self._owner.send(entry.command())
            else:
                self.send_ask(entry, now)

    def send_ask(self, ask: PendingRequest, now: float) -> None:
        """Send a request, or send it again."""
        ask.retry_at, ask.answered = None, False
        if self._owner.send(ask.command(now)):
            ask.sent = True
            if ask.first_sent_at is None:
                ask.first_sent_at = now

    def _on_ask_denied(self, ask: PendingRequest, denied: seat_pb2.Denied, now: float) -> None:
        ask.answered = True
        delay = self._retry_seconds(ask.attempt + 1, denied)
        match next_step(ask, denied, now, delay):
            case AskAnew():
                if self._rename(ask, now):
                    self.send_ask(ask, now)
            case AskLater(at, refusal, anew):
                ask.retry_at, ask.refusal, ask.retry_anew = at, refusal, anew
                ask.retry_elsewhere = is_undecided(denied)
            case GiveUp(error):
                self.fail(ask, error, now)
        ask.attempt += 1

    def _retry_seconds(self, attempt: int, denied: seat_pb2.Denied) -> float:
        given = seconds(denied.retry_after) if denied.HasField("retry_after") else None
        return delay_seconds(attempt, self._backoff, random=self._random(), retry_after=given)

    def _rename(self, ask: PendingRequest, now: float) -> bool:
        """Give a request another id; False: it has failed, as others that go with it know this one."""
        if ask.wanted.is_joint:
            self.fail(ask, ask.refusal or SessionLost(GANG_BROKEN), now)
            return False
        self.asks.pop(ask.grant_id, None)
        ask.grant_id, ask.sent = new_id(), False
        ask.first_sent_at = ask.granted = None
        ask.retry_anew = ask.retry_elsewhere = False
        self.asks[ask.grant_id] = ask
        return True

    def granted_lease(self, ask: PendingRequest) -> Lease | None:
        """Take a request out that was granted; return the session. None: it is over, or unwanted."""
        del self.asks[ask.grant_id]
        return None if ask.future.done() else self._owner.current_lease()

    def give_up(self, held: Held, why: str, now: float) -> None:
        """End a grant that cannot be counted on any more, and give its seats back."""
        self.holdings.lose(held, why)
        self.leave(held.grant_id, held.pool, now)


def _basis(queued: seat_pb2.Queued) -> EstimateBasis | None:
    if not queued.HasField("basis"):
        return None
    basis = queued.basis
    return EstimateBasis(
        basis.holds,
        timedelta(seconds=seconds(basis.hold_median)),
        basis.holders,
        basis.holders_overdue,
    )
