"""Seats in the hands of an async program: the grant, and the ``async with`` that takes it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar, Unpack

from seatkeeper.client.config.options import refuse_others, spelled_out
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.requests import (
    CLIENT_CLOSED,
    Held,
    OnQueued,
    OnState,
    SaidTerms,
    Wanted,
)
from seatkeeper.core.clock import wall_time
from seatkeeper.core.errors import InvalidArgument, SeatError, SeatLost, UsageError
from seatkeeper.core.text import printable
from seatkeeper.core.tokens import unverified_claims
from seatkeeper.v1 import seat_pb2

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method = TypeVar("_Method", bound=Callable[..., Any])


NO_TOKEN = (
    "these seats were taken without a token: call fetch_token() when you need one, or take them with "
    "token=True to have one at hand all the time"
)
WORK_MESSAGE_MAX = 2_000
"""Most characters that a release says of the end of its work."""
WAIT_MAX = timedelta(days=7)
"""Longest wait that a request may ask for; without one it waits forever."""


def wait_seconds(wait: float | timedelta | None) -> float | None:
    """Return how long to wait for seats; None: without limit. Raises `InvalidArgument`."""
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if seconds is None:
        return None
    if isinstance(seconds, int | float) and 0 <= seconds <= WAIT_MAX.total_seconds():
        return seconds
    raise InvalidArgument(
        f"wait must be from 0 s to {WAIT_MAX.days} days, or None to wait forever", field="wait"
    )


class PlainTerms(SaidTerms, total=False):
    """What a request may say beside its pool: values alone, as options of a command."""

    wait: float | timedelta | None


class RequestTerms(PlainTerms, total=False):
    """The same, with its callbacks."""

    on_queued: OnQueued | None


class SeatTerms(RequestTerms, total=False):
    """The same, where the caller holds the seats."""

    seats: int
    on_state: OnState | None
    token: bool
    work_key: str


class HeldTerms(SeatTerms, total=False):
    """The same, where they are held for the length of a block."""

    check: bool


class GangTerms(PlainTerms, total=False):
    """What a request for seats of several pools may say beside these."""

    on_queued: OnQueued | None
    on_state: OnState | None
    token: bool
    check: bool


DEFAULTS: HeldTerms = {
    "project": "",
    "priority": 0,
    "seats": 1,
    "token": False,
    "work_key": "",
    "cost_class": "",
    "check": True,
}
"""What is meant where nothing is said; of others: None."""


def taking(terms: type) -> Callable[[_Method], _Method]:
    """Spell ``**terms`` of a method out in its signature, for `help` and for editors."""
    return spelled_out(terms, dict.fromkeys(terms.__annotations__) | dict(DEFAULTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatRequest:
    """What to take, how long to wait for it, and the callbacks."""

    wanted: Wanted
    wait_seconds: float | None = None
    """None: without limit."""
    on_queued: OnQueued | None = None
    on_state: OnState | None = None
    check: bool = True
    """Whether leaving raises `SeatLost` when the seats were lost meanwhile."""

    @property
    def pool(self) -> str:
        """Name of the pool."""
        return self.wanted.pool

    @classmethod
    def of(cls, pool: str, **terms: Unpack[HeldTerms]) -> SeatRequest:
        """Check what can be checked here; the service checks the rest.

        Raises `InvalidArgument` for an empty pool, less than one seat, a wait below zero or above
        `WAIT_MAX`, or a number that is none or does not fit the wire.
        """
        refuse_others(HeldTerms, terms)
        seconds = wait_seconds(terms.get("wait"))
        return cls(
            wanted=Wanted.asked(pool, terms.get("seats", 1), terms),
            wait_seconds=seconds,
            on_queued=terms.get("on_queued"),
            on_state=terms.get("on_state"),
            check=terms.get("check", True),
        )


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Seats that are called back."""

    until: datetime
    """When they are lost, in UTC, as the machine's date stands now."""
    message: str
    """For whom, for people."""


class Keeper(Protocol):
    """The party that acquires and releases the seats of grants."""

    def now(self) -> float:
        """Return the time by which grants are believed."""

    def is_here(self) -> bool:
        """Return whether this is the process that took the seats, and not one forked from it."""

    def freshen(self) -> None:
        """Apply what has arrived, such as new tokens."""

    async def take(self, request: SeatRequest) -> AsyncGrant:
        """Take seats."""

    async def fetch_token(self, held: Held, check: Callable[[], None]) -> str:
        """Have a node sign a token for what is held. Raises `ServiceUnavailable`."""

    def report_activity(self, held: Held) -> None:
        """Note that the program does something with what is held. Callable from any thread."""

    def give_back(self, held: Held) -> Awaitable[None] | None:
        """Give seats back; None when that was all."""


class AsyncGrant:
    """Seats that this program holds, until they are released or lost."""

    __slots__ = ("_held", "_keeper", "_released")

    def __init__(self, keeper: Keeper, held: Held) -> None:
        self._keeper = keeper
        self._held = held
        self._released = False

    def __repr__(self) -> str:
        # Never the token: reprs end up in logs.
        return (
            f"<{type(self).__name__} {self.grant_id} pool={self.pool} seats={self.seats} "
            f"fence={self.fence} {self.state.value}>"
        )

    @property
    def grant_id(self) -> str:
        """The grant's id: a UUIDv7."""
        return self._held.grant_id

    @property
    def pool(self) -> str:
        """Name of the pool."""
        return self._held.pool

    @property
    def seats(self) -> int:
        """How many seats."""
        return self._held.seats

    @property
    def fence(self) -> int:
        """Strictly increasing over the grants of a pool; a lower fence is stale."""
        return self._held.fence

    @property
    def granted_at(self) -> datetime:
        """When it was granted, by the clock of the node that decided it."""
        return self._held.granted_at.ToDatetime(UTC)

    @property
    def holder(self) -> str:
        """Who holds, as the service has it: under mutual TLS the name in the certificate."""
        return self._held.holder or str(self._claims().get("sub", ""))

    @property
    def project(self) -> str:
        """Who is charged, as the service has it."""
        return self._held.project or str(
            self._claims().get("project", self._held.wanted.project)
        )

    @property
    def notice(self) -> str:
        """What you should know of these seats, for people; empty: nothing.

        Such as that a window opens soon in which seats of the pool are kept for others.
        """
        return self._held.notice

    @property
    def expires_at(self) -> datetime:
        """Until when you may count on the seats if they are not renewed any more.

        In UTC. Every renewal moves it on, so read it when you need it. It is earlier than the lease's
        end by the client's ``safety_margin``. What decides is a clock that cannot be set, and that also
        counts while the machine is suspended; this is the date and time at which that clock will be
        there, as the machine's date stands now, and is off by as much as the date is. To see whether
        the seats are still yours, look at `state`, never at this. Raises `SeatLost` once they are not.
        """
        self.raise_if_lost()
        left = self._held.until() - self._keeper.now()
        return wall_time() + timedelta(seconds=max(0.0, left))

    @property
    def token(self) -> str:
        """Signed proof of the grant: a JWT, renewed as long as the grant is held.

        For seats that were taken with ``token=True``; for others `fetch_token` asks for one, and this
        raises `UsageError`. Read it when you need it rather than keeping it. Raises `SeatLost` once
        there is nothing to prove any more.
        """
        if not self._held.wanted.token:
            raise UsageError(NO_TOKEN)
        self._keeper.freshen()
        self.raise_if_lost()
        return self._held.token

    async def fetch_token(self) -> str:
        """Return signed proof of the grant as it is now: a JWT, good for the session's ttl at most.

        Seats that were taken with ``token=True`` have one at hand; for others a node signs it, from the
        grant's record. Raises `ServiceUnavailable` when no node does so within ``call_timeout``, and
        `SeatLost` once there is nothing to prove any more.
        """
        self.raise_if_lost()
        if self._held.wanted.token:
            return self.token
        try:
            return await self._keeper.fetch_token(self._held, self.raise_if_lost)
        except SeatError:
            self.raise_if_lost()  # then that is why
            raise

    @property
    def state(self) -> HoldingState:
        """How sure you may be of the seats right now, by the clock.

        LOST also after release, and in a process forked from the one that took them.
        """
        if self._released or not self._keeper.is_here():
            return HoldingState.LOST
        return self._held.state(self._keeper.now())

    @property
    def longest_hold(self) -> timedelta | None:
        """After how long the pool calls the seats back; None: it does not.

        As it was when they were granted: an administrator may extend that, or change it for the pool.
        """
        return self._held.longest_hold

    @property
    def reclaim(self) -> Reclaim | None:
        """Whether, and until when, the seats are called back; None: they are not.

        Also while ``state`` says `RECLAIMING`: finish, or save what was done, and release.
        """
        called = self._held.called
        if called is None or self.state is not HoldingState.RECLAIMING:
            return None
        left = max(0.0, self._held.recall_until() - self._keeper.now())
        return Reclaim(wall_time() + timedelta(seconds=left), called.message)

    def report_activity(self) -> None:
        """Say that the program does something with the seats. Cheap: call it as often as you like.

        From the first call on, a pool that calls idle seats back counts from the latest one. Seats of a
        program that never calls this are not called back for being idle. Where they are called back
        for that already, they are not any more, when the session is renewed next. Does nothing
        once the seats are lost.
        """
        if self.state is not HoldingState.LOST:
            self._keeper.report_activity(self._held)

    def _claims(self) -> Mapping[str, object]:
        """Return what the token says; nothing without one."""
        return unverified_claims(self._held.token) if self._held.token else {}

    def lease_times(self) -> tuple[float, float] | None:
        """Return until when the seats may be believed in, and when another may have them.

        For watchdogs, on the clock of the client: seconds since boot. None: they are lost.
        """
        times = self._held.until(), self._held.ends_at()
        return None if self.state is HoldingState.LOST else times

    def raise_if_lost(self) -> None:
        """Raise `SeatLost` unless the seats may be counted on right now.

        Cheap: call it between the steps of long work.
        """
        if self.state is HoldingState.LOST:
            raise SeatLost(f"{self.pool}: {self._why_lost()}", grant_id=self.grant_id)

    def _loss(self) -> SeatLost | None:
        """Return the error of seats that were lost while they were held; None: they were not.

        None as well once they were given back, and in a forked process, which never held them.
        """
        if self._released or self._held.lost == CLIENT_CLOSED or not self._keeper.is_here():
            return None
        if self.state is not HoldingState.LOST:
            return None
        return SeatLost(
            f"{self.pool}: {self._why_lost()}; what was done under this grant may have been done "
            "without a seat",
            grant_id=self.grant_id,
        )

    def _why_lost(self) -> str:
        if self._released:
            return "the grant was released"
        if not self._keeper.is_here():
            return "the grant belongs to the process that this one was forked from"
        return self._held.lost or "the lease ran out before a node answered"

    def end_work(self, *, failure: str = "", message: str = "") -> None:
        """Have the release say how the work of a request with a ``work_key`` has ended.

        Those who wait with the same key are then refused with `WorkEnded`. ``failure`` is the name of
        an error that would come again for them; empty: the work is done.
        """
        text = printable(" ".join(message.split()))[:WORK_MESSAGE_MAX]
        self._held.work_end = seat_pb2.WorkEnd(failure=failure, message=text)

    async def release(self) -> None:
        """Give the seats back now instead of when the lease runs out.

        Safe to call twice. If no node answers within ``call_timeout``, this returns all the same:
        the client goes on trying, and the seats are free when the lease ends at the latest.
        Cancelling does not stop the seats from being given back.
        """
        given = self.give_back()
        if given is not None:
            await given

    def give_back(self) -> Awaitable[None] | None:
        """Give the seats back, and return what to await for the answer; None: there is none."""
        if self._released:
            return None
        self._released = True
        return self._keeper.give_back(self._held)


def notify_loss(loss: SeatLost | None, error: BaseException | None, *, check: bool) -> None:
    """Raise what the end of the work under a seat must not hide, as a commit would.

    ``error`` is what ended the work; it goes on, with the loss noted.
    """
    if loss is None or not check:
        return
    if error is None:
        raise loss
    if not isinstance(error, SeatLost):
        error.add_note(f"seat lost meanwhile: {loss}")


class AsyncSeat:
    """Takes seats when entered and gives them back when left, however it is left.

    Also a decorator for ``async def`` functions: each call takes seats of its own.
    """

    def __init__(self, keeper: Keeper, request: SeatRequest) -> None:
        self._keeper = keeper
        self._request = request
        self._grant: AsyncGrant | None = None

    async def __aenter__(self) -> AsyncGrant:
        """Take the seats, waiting for them as long as was asked for."""
        if self._grant is not None:
            raise UsageError("this seat is entered already; ask the client for another")
        self._grant = await self._keeper.take(self._request)
        return self._grant

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the seats back.

        Raises `SeatLost` when they were lost before, unless the body raised something itself or
        ``check`` is False.
        """
        grant, self._grant = self._grant, None
        if grant is not None:
            loss = grant._loss()
            await grant.release()
            notify_loss(loss, error, check=self._request.check)

    def __call__(self, function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
        """Make ``function`` run while holding the seats."""
        if not inspect.iscoroutinefunction(function):
            raise UsageError(
                "AsyncSeatClient.seat decorates async functions; use SeatClient for plain ones"
            )

        @functools.wraps(function)
        async def seated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            async with self.another():
                return await function(*args, **kwargs)

        return seated

    def another(self) -> Self:
        """Return the same request, not entered."""
        return type(self)(self._keeper, self._request)
