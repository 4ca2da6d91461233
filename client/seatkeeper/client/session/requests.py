"""What the session driver remembers: requests on their way, seats held, seats being given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypedDict, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.reclaiming import CalledBack, Recall
from seatkeeper.client.transport.edge import sendable, sendable_number
from seatkeeper.client.transport.translate import as_duration
from seatkeeper.core.errors import InvalidArgument, SeatError
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

CLIENT_CLOSED = "the client was closed"
"""Why a grant is over that its own client has given back."""

_T = TypeVar("_T")
_log = logging.getLogger("seatkeeper.client")


@dataclass(frozen=True, slots=True)
class EstimateBasis:
    """What an estimated wait was made from."""

    holds: int
    """How many holds that ended lately were looked at."""
    hold_median: timedelta
    """The median of their lengths."""
    holders: int
    """Grants held now that were looked at."""
    holders_overdue: int
    """Those of them that have been held for longer than every hold looked at."""


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Where a request stands in the queue."""

    position: int
    """Place in the order of service; 1 is next."""
    estimate: timedelta | None
    """Estimated time until the grant; None when nothing is known."""
    basis: EstimateBasis | None = None
    """What the estimate was made from, or why there is none; None: the node does not say."""
    waits_for_work: bool = False
    """Whether it waits for another holder to do the same work, and not for a seat."""
    between: tuple[timedelta, timedelta] | None = None
    """Between which two times the grant is expected with odds of four in five; None: too little is
    known."""
    pool: str = ""
    """In whose queue."""


class Believed(Protocol):
    """What a grant lives and dies with."""

    def state(self, now: float) -> HoldingState:
        """Return how sure the holder may be at ``now``."""

    def until(self) -> float:
        """Return until when it may be counted on if it is not renewed, by the client's clock."""

    def ends_at(self) -> float:
        """Return from when another may have the seats, or a moment before."""

    def own_until(self) -> float:
        """Return until when this grant may be counted on, however long its session lives."""


class SaidTerms(TypedDict, total=False):
    """What a request may say of itself."""

    project: str
    priority: int
    labels: Mapping[str, str] | None
    cost_class: str


class HoldingTerms(SaidTerms, total=False):
    """The same, and what the caller wants of the grant."""

    token: bool
    work_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What seats are wanted, and what the request says of itself: one value, from caller to wire.

    Two requests that want the same may share seats, one after the other.
    """

    pool: str
    seats: int = 1
    project: str = ""
    """Empty: the session's."""
    priority: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    """In the order of keys."""
    token: bool = False
    """Whether the grant comes with a token, and each renewal with a new one."""
    work_key: str = ""
    """The work that the seats are for, done by one holder at a time; empty: no such."""
    cost_class: str = ""
    """The class of the pool's costs by which the seats are counted; empty: none is named."""
    gang: tuple[tuple[str, str, int], ...] = ()
    """The seats that are granted together with these, and these: pools, ids of requests, numbers."""
    alternatives: tuple[tuple[str, str, int, int], ...] = ()
    """The seats of which some are granted, and these: likewise, and after how many milliseconds."""
    again_id: str = ""
    """The grant that was lost with its session, and is wanted again; empty: any will do."""
    take_over: str = ""
    """The grant of another session whose seats are taken over, and what it asked for; empty: none."""

    @property
    def is_one_of_many(self) -> bool:
        """Whether seats like these may be of use to another request of this process."""
        return not (self.work_key or self.is_joint or self.again_id or self.take_over)

    @property
    def is_joint(self) -> bool:
        """Whether other requests are answered with it: of a gang, or of alternatives."""
        return bool(self.gang or self.alternatives)

    @property
    def own_id(self) -> str:
        """The id of this request, where it is said which; empty: any will do."""
        if self.again_id:
            return self.again_id
        ids = {pool: grant_id for pool, grant_id, _ in self.gang}
        ids |= {pool: grant_id for pool, grant_id, *_ in self.alternatives}
        return ids.get(self.pool, "")

    @classmethod
    def asked(cls, pool: str, seats: int, said: HoldingTerms) -> Wanted:
        """Check what can be checked here; the service checks the rest.

        Raises `InvalidArgument` for an empty pool, less than one seat, and what cannot be sent.
        """
        wanted = cls(
            pool=sendable("pool", pool),
            seats=sendable_number("seats", seats),
            project=sendable("project", said.get("project", "")),
            priority=sendable_number("priority", said.get("priority", 0)),
            labels=_labels(said.get("labels")),
            token=bool(said.get("token", False)),
            work_key=sendable("work_key", said.get("work_key", "")),
            cost_class=sendable("cost_class", said.get("cost_class", "")),
        )
        if not wanted.pool:
            raise InvalidArgument("pool must not be empty", field="pool")
        if wanted.seats < 1:
            raise InvalidArgument(f"seats must be at least 1, not {seats}", field="seats")
        return wanted

    def message(self, grant_id: str = "", wait: float | None = None) -> seat_pb2.Acquire:
        """Return the message that asks for it; ``wait`` in seconds, None: without limit."""
        acquire = seat_pb2.Acquire(
            pool=self.pool,
            grant_id=grant_id or self.again_id,
            seats=0 if self.is_joint or self.take_over else self.seats,
            project=self.project,
            priority=self.priority,
            without_token=not self.token,
            take_over=self.take_over,
        )
        if self.labels:
            acquire.attributes.labels.update(self.labels)
        if self.work_key:
            acquire.attributes.work_key = self.work_key
        for pool, member_id, seats in self.gang:
            acquire.attributes.gang.add(pool=pool, grant_id=member_id, seats=seats)
        for pool, member_id, seats, after in self.alternatives:
            acquire.attributes.alternatives.add(
                pool=pool, grant_id=member_id, seats=seats, after_millis=after
            )
        if self.cost_class:
            acquire.attributes.cost_class = self.cost_class
        if wait is not None:
            acquire.wait.CopyFrom(as_duration(wait))
        return acquire

    @classmethod
    def of(cls, acquire: seat_pb2.Acquire) -> Wanted:
        """Return what a message wants."""
        gang = tuple((each.pool, each.grant_id, each.seats) for each in acquire.attributes.gang)
        alternatives = tuple(
            (each.pool, each.grant_id, each.seats, each.after_millis)
            for each in acquire.attributes.alternatives
        )
        own = {pool: seats for pool, _, seats in gang}
        own |= {pool: seats for pool, _, seats, _ in alternatives}
        return cls(
            gang=gang,
            alternatives=alternatives,
            pool=acquire.pool,
            seats=own.get(acquire.pool, acquire.seats) or 1,
            project=acquire.project,
            priority=acquire.priority,
            labels=tuple(sorted(acquire.attributes.labels.items())),
            token=not acquire.without_token,
            work_key=acquire.attributes.work_key,
            cost_class=acquire.attributes.cost_class,
            again_id=acquire.grant_id,
            take_over=acquire.take_over,
        )

    def command(self, grant_id: str, wait: float | None) -> pb.SessionCommand:
        """Return the command that asks for it under an id."""
        return pb.SessionCommand(acquire=self.message(grant_id, wait))


NO_SEATS_ASKED = "0 seats asked"
"""What nodes say that do not know where else a request says how many."""
OnQueued = Callable[[QueuePosition], None]
OnState = Callable[[HoldingState], None]


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request for seats that has not been answered for good."""

    grant_id: str
    wanted: Wanted
    wait: float | None
    """Seconds to wait in the queue; None: without limit."""
    asked_at: float
    future: asyncio.Future[Held]
    on_queued: OnQueued | None
    on_state: OnState | None
    expires_at: float
    """When the client gives up by itself, because no node answers."""
    sent: bool = field(init=False, default=False)
    """Whether any node may have received this id."""
    answered: bool = field(init=False, default=False)
    """Whether the node on this stream has said anything about it."""
    attempt: int = field(init=False, default=0)
    """Refusals so far that asked us to come again."""
    retry_at: float | None = field(init=False, default=None)
    """When to send it again."""
    retry_anew: bool = field(init=False, default=False)
    """Whether to do so under a new id."""
    retry_elsewhere: bool = field(init=False, default=False)
    """Whether to do so at another node, unless the stream is another one by then."""
    refusal: SeatError | None = field(init=False, default=None)
    """The last of those refusals."""
    first_sent_at: float | None = field(init=False, default=None)
    """When this id was first sent."""
    granted: seat_pb2.Granted | None = field(init=False, default=None)
    """Seats that were granted, may have been called back since, and are to be confirmed first."""

    @property
    def pool(self) -> str:
        """Name of the pool."""
        return self.wanted.pool

    @property
    def is_again(self) -> bool:
        """Whether it asks for a grant that was lost with its session."""
        return bool(self.wanted.again_id) and self.wanted.again_id == self.grant_id

    def wait_left(self, now: float) -> float | None:
        """Return how long it may still wait in the queue; None: without limit."""
        return None if self.wait is None else max(0.0, self.asked_at + self.wait - now)

    def command(self, now: float) -> pb.SessionCommand:
        """Return the command that asks for it."""
        return self.wanted.command(self.grant_id, self.wait_left(now))


@dataclass(slots=True, eq=False)
class Held:
    """Seats that are held."""

    grant_id: str
    wanted: Wanted
    """What was asked for."""
    fence: int
    token: str
    """Empty: none was asked for, or it has not come yet."""
    granted_at: Timestamp
    lease: Believed
    on_state: OnState | None
    holder: str = ""
    """Who holds, as the service has it; empty: an older node did not say."""
    project: str = ""
    """What is charged, likewise."""
    longest_hold: timedelta | None = None
    """After how long its pool calls it back; None: it does not, as far as is known."""
    notice: str = ""
    """What a node said of these seats, for people; empty: nothing."""
    granted_seats: int = 0
    """Seats of the pool; more than were asked for where one costs more. 0: as many."""
    lost: str = field(init=False, default="")
    """Why they are gone; empty while they are not."""
    work_end: seat_pb2.WorkEnd | None = field(init=False, default=None)
    """How its work ended, for those who wait to do the same; None: nothing is said."""
    on_token: Callable[[str], None] | None = field(init=False, default=None)
    """Called with every new token."""
    active_at: float | None = field(init=False, default=None)
    """When the program last reported that it does something with it; None: it reports nothing."""
    recall: Recall | None = field(init=False, default=None)
    """What is believed of seats that may be called back; None: these may not, or a helper knows."""
    called: CalledBack | None = field(init=False, default=None)
    """The seats are called back; None: not as far as is known."""
    on_recall: Callable[[Recall], None] | None = field(init=False, default=None)
    """Called whenever ``recall`` has changed."""

    @property
    def pool(self) -> str:
        """Name of the pool."""
        return self.wanted.pool

    @property
    def seats(self) -> int:
        """How many seats of the pool."""
        return self.granted_seats or self.wanted.seats

    def state(self, now: float) -> HoldingState:
        """Return how sure the holder may be at ``now``."""
        if self.lost or (self.recall is not None and now >= self.recall.until):
            return HoldingState.LOST
        state = self.lease.state(now)
        if self.called is not None and state is not HoldingState.LOST:
            return HoldingState.RECLAIMING
        return state

    def until(self) -> float:
        """Return when the holder stops believing unless the lease is renewed, by its clock."""
        until = self.lease.until()
        return until if self.recall is None else min(until, self.recall.until)

    def ends_at(self) -> float:
        """Return from when another may have the seats, or a moment before."""
        ends_at = self.lease.ends_at()
        return ends_at if self.recall is None else min(ends_at, self.recall.ends_at)

    def recall_until(self) -> float:
        """Return when the seats are lost because they are called back, by the client's clock."""
        return self.lease.own_until() if self.recall is None else self.recall.until

    def recalled(self) -> None:
        """Note that ``recall`` has changed."""
        if self.recall is not None:
            self.called = self.recall.called
            if self.on_recall is not None:
                self.on_recall(self.recall)

    def command(self) -> pb.SessionCommand:
        """Return the command that finds the grant again on another stream, and never waits."""
        return self.wanted.command(self.grant_id, 0.0)

    def renew_token(self, token: str) -> None:
        """Keep a new token."""
        self.token = token
        if self.on_token is not None:
            self.on_token(token)

    def notify(self, state: HoldingState) -> None:
        """Notify the holder. An error in the callback is logged and stops nothing."""
        if self.on_state is not None:
            call_back(self.on_state, state)


@dataclass(slots=True, eq=False)
class Leaving:
    """A grant or ticket that is being given up."""

    grant_id: str
    pool: str
    asked_at: float
    future: asyncio.Future[None] | None
    """The caller that waits for the answer; None: no longer any."""
    work_end: seat_pb2.WorkEnd | None = None
    retry_at: float | None = field(init=False, default=None)
    """When to send it again, because a node put it off."""
    retry_elsewhere: bool = field(init=False, default=False)
    """Whether to do so at another node, unless the stream is another one by then."""
    attempt: int = field(init=False, default=0)
    """How often it was put off."""

    def command(self) -> pb.SessionCommand:
        """Return the command that gives it up."""
        ref = pb.GrantRef(pool=self.pool, grant_id=self.grant_id)
        release = pb.Release(grant=ref, work_end=self.work_end)
        return pb.SessionCommand(release=release)

    def done(self) -> None:
        """Notify the waiting caller."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


def _labels(labels: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    if not isinstance(labels, Mapping | None):
        raise InvalidArgument(f"labels must be a mapping, not {labels!r}", field="labels")
    pairs = [
        tuple(sendable("labels", text) for text in pair) for pair in (labels or {}).items()
    ]
    return tuple(sorted((key, value) for key, value in pairs))


def call_back(callback: Callable[[_T], None], value: _T) -> None:
    """Call the user's ``callback``; an error in it is logged and stops nothing."""
    try:
        callback(value)
    except Exception:
        _log.exception("a callback given to the client failed")
