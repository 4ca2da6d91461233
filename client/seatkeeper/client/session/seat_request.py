"""A request for seats, as it travels from the caller to the wire: whole, in one value.

The keyword arguments of every method that takes a seat are named here, once: `WaitOptions` and
`SeatOptions`. One more of them is one more field there, and one more in `SeatTerms` if nodes get it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypedDict, Unpack

from seatkeeper.client.config.options import check_names
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.transport.edge import sendable, sendable_number
from seatkeeper.client.transport.translate import as_duration
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

WAIT_MAX = timedelta(days=7)
"""Longest wait that a request may ask for; without one it waits without limit."""


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


OnQueued = Callable[[QueuePosition], None]
OnState = Callable[[HoldingState], None]


class WaitOptions(TypedDict, total=False):
    """How a seat is asked for, whatever it is for."""

    project: str
    """Who is charged; empty: the client's project."""
    priority: int
    """From -1000 to 1000; higher is served earlier."""
    wait: float | timedelta | None
    """How long to queue, in seconds or as a timedelta: None waits without limit, 0 does not queue."""
    on_queued: OnQueued | None
    """Called with the place in the queue when it changes."""


class SeatOptions(WaitOptions, total=False):
    """How seats are asked for, and held."""

    seats: int
    """How many, at least 1."""
    on_state: OnState | None
    """Called when the seats are in doubt, safe again, or lost."""


DEFAULTS: Final[Mapping[str, object]] = {
    "project": "",
    "seats": 1,
    "priority": 0,
    "wait": None,
    "on_queued": None,
    "on_state": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatTerms:
    """What seats are good for: two requests with equal terms can share them."""

    pool: str
    seats: int
    project: str
    priority: int

    def acquire(self, grant_id: str, wait: float | None) -> pb.SessionCommand:
        """Return the command that asks for them; ``wait`` in seconds, None: without limit."""
        acquire = seat_pb2.Acquire(
            grant_id=grant_id,
            pool=self.pool,
            seats=self.seats,
            project=self.project,
            priority=self.priority,
        )
        if wait is not None:
            acquire.wait.CopyFrom(as_duration(wait))
        return pb.SessionCommand(acquire=acquire)

    def granted(self, seats: int) -> SeatTerms:
        """Return the terms of a grant of ``seats``."""
        return self if seats == self.seats else replace(self, seats=seats)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatRequest:
    """What to take, how long to wait for it, and whom to notify."""

    terms: SeatTerms
    wait_seconds: float | None = None
    """Longest time in the queue; None: no limit."""
    on_queued: OnQueued | None = None
    on_state: OnState | None = None
    check: bool = True
    """Whether leaving raises `SeatLost` when the seats were lost meanwhile."""

    @classmethod
    def of(
        cls, pool: str, *, check: bool = True, **options: Unpack[SeatOptions]
    ) -> SeatRequest:
        """Check what can be checked here; the service checks the rest.

        Raises `InvalidArgument` for an empty pool, less than one seat, a wait below zero or above
        `WAIT_MAX`, or a number that is none or does not fit the wire.
        """
        check_names(options, SeatOptions)
        given = checked_wait(options)
        pool, seats = sendable("pool", pool), options.get("seats", 1)
        if not pool:
            raise InvalidArgument("pool must not be empty", field="pool")
        if sendable_number("seats", seats) < 1:
            raise InvalidArgument(f"seats must be at least 1, not {seats}", field="seats")
        return cls(
            terms=SeatTerms(
                pool=pool, seats=seats, project=given["project"], priority=given["priority"]
            ),
            wait_seconds=wait_seconds(given["wait"]),
            on_queued=given["on_queued"],
            on_state=options.get("on_state"),
            check=check,
        )


def wait_seconds(wait: float | timedelta | None) -> float | None:
    """Return how long to wait for seats; None: without limit.

    Raises `InvalidArgument` for no such time.
    """
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if seconds is None:
        return None
    if isinstance(seconds, int | float) and 0 <= seconds <= WAIT_MAX.total_seconds():
        return seconds
    raise InvalidArgument(
        f"wait must be from 0 s to {WAIT_MAX.days} days, or None to wait for ever", field="wait"
    )


def checked_wait(options: WaitOptions) -> WaitOptions:
    """Return all of `WaitOptions`, as given or by default. Raises `InvalidArgument`."""
    wait = options.get("wait")
    wait_seconds(wait)
    return WaitOptions(
        project=sendable("project", options.get("project", "")),
        priority=sendable_number("priority", options.get("priority", 0)),
        wait=wait,
        on_queued=options.get("on_queued"),
    )
