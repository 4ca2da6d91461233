"""Who of this node's clients waits for what, and what they have been told.

A grant may be decided by any node, so nobody is told by the decision: after every change of the
view, each affected grant id is compared with what its client was told last. Then a grant that
another node made, a seat that was lost with its lease, and an own decision are one case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Protocol

from seatkeeper.server.decide import (
    RETRY_LATER,
    Acquire,
    Command,
    Denied,
    Grant,
    HoldStats,
    PoolState,
    Refusal,
    Released,
    estimate_wait,
)

POSITIONS_MAX = 20
"""Most positions told at once."""
NONE: Mapping[str, Denied] = {}


@dataclass(frozen=True, slots=True)
class Position:
    """A request waits."""

    grant_id: str
    position: int
    estimate: timedelta | None


@dataclass(frozen=True, slots=True)
class SeatsGranted:
    """A request was granted."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class SeatsLost:
    """A grant ended without its holder asking."""

    grant_id: str
    message: str


News = Position | SeatsGranted | Denied | Released | SeatsLost


class Listener(Protocol):
    """A client, as far as a pool is concerned. Called on the event loop; must not raise."""

    def hear(self, pool: str, news: News) -> None:
        """Take note of what became of one of the client's requests."""
        ...

    def expect(self, pool: str, grant: Grant) -> None:
        """Get ready for a grant that is being committed. It may come to nothing."""
        ...


def peer_of(listener: Listener | None) -> str:
    """Return the address of a listener's client, for logs; empty: not known here."""
    return str(getattr(listener, "peer", ""))


class _Told(Enum):
    NOTHING = auto()
    WAITS = auto()
    HOLDS = auto()


@dataclass(slots=True)
class _Seat:
    """One request of one client of this node."""

    listener: Listener
    session_id: str
    told: _Told = _Told.NOTHING
    position: int = 0
    gives_up: bool = False
    """It said how long it would wait, or whoever asked for the same before did."""


class Audience:
    """The clients of this node that have a ticket or a grant in one pool."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._seats: dict[str, _Seat] = {}
        self._waiting: dict[str, None] = {}
        """In the order in which they are told their positions."""

    def __len__(self) -> int:
        return len(self._seats)

    def attach(self, command: Command, listener: Listener) -> None:
        """Tell ``listener`` from now on what becomes of what ``command`` asks for; nobody else.

        Another one that was told before hears that it is told no more.
        """
        grant_id = command.grant_id
        earlier = self._seats.get(grant_id)
        if earlier is not None and earlier.listener is not listener:
            message = "the same request was sent again, and is answered there"
            earlier.listener.hear(self._pool, Denied(grant_id, Refusal.UNAVAILABLE, message))
        gives_up = isinstance(command, Acquire) and command.wait is not None
        self._seats[grant_id] = _Seat(listener, command.session_id, gives_up=gives_up)
        self._waiting.pop(grant_id, None)

    def detach(self, grant_id: str, listener: Listener) -> None:
        """Tell ``listener`` no more. Does nothing when another has taken its place."""
        seat = self._seats.get(grant_id)
        if seat is not None and seat.listener is listener:
            self._drop(grant_id)

    def listener(self, grant_id: str) -> Listener | None:
        """Return who is told of ``grant_id``, if anybody here is."""
        seat = self._seats.get(grant_id)
        return seat.listener if seat else None

    def waits_here(self, grant_id: str) -> bool:
        """Return whether a client of this node waits for ``grant_id``."""
        return grant_id in self._waiting

    def review(
        self, grant_ids: Iterable[str], state: PoolState, denied: Mapping[str, Denied] = NONE
    ) -> None:
        """Tell the clients concerned what has changed for them, but for positions.

        ``denied``: why tickets that are gone now were denied.
        """
        for grant_id in grant_ids:
            seat = self._seats.get(grant_id)
            if seat is None:
                continue
            if (grant := state.grants.get(grant_id)) is not None:
                if seat.told is not _Told.HOLDS:
                    seat.told = _Told.HOLDS
                    self._waiting.pop(grant_id, None)
                    seat.listener.hear(self._pool, SeatsGranted(grant))
            elif grant_id in state.tickets:
                if seat.told is _Told.NOTHING:
                    # Its position is told by the next ``review_positions``, or never if it is
                    # served before: who waits for a moment only need not be told that it waits.
                    seat.told = _Told.WAITS
                    seat.gives_up |= state.tickets[grant_id].wait is not None
                    self._waiting[grant_id] = None
            elif (denial := denied.get(grant_id)) is not None:
                self._drop(grant_id)
                seat.listener.hear(self._pool, denial)
            else:  # also when it was told nothing yet: the answer that it waits for is this one
                finished = state.finished.contains(seat.session_id, grant_id)
                self._tell_end(grant_id, seat, finished=finished)

    def review_positions(self, state: PoolState, holds: HoldStats) -> bool:
        """Tell those who wait here a position that has changed; return whether some were left out.

        At most ``POSITIONS_MAX`` are told at once, in turns, so that a long queue costs no more than a
        short one.
        """
        told = 0
        for grant_id in list(self._waiting):
            if told == POSITIONS_MAX:
                return True
            if self._tell_position(grant_id, self._seats[grant_id], state, holds):
                told += 1
                # To the end: it is somebody else's turn.
                self._waiting[grant_id] = self._waiting.pop(grant_id)
        return False

    def _tell_position(
        self, grant_id: str, seat: _Seat, state: PoolState, holds: HoldStats
    ) -> bool:
        ticket = state.tickets.get(grant_id)
        if ticket is None:
            return False
        position = state.position(ticket)
        if position != seat.position:
            seat.position = position
            capacity = state.spec.seats if state.spec else 0
            estimate = estimate_wait(position, capacity, holds)
            seat.listener.hear(self._pool, Position(grant_id, position, estimate))
            return True
        return False

    def _tell_end(self, grant_id: str, seat: _Seat, *, finished: bool) -> None:
        self._drop(grant_id)
        news: News
        if not finished:
            news = SeatsLost(grant_id, "the session has ended")
        elif seat.told is _Told.WAITS and seat.gives_up:
            message = "no seat became free in time"
            news = Denied(grant_id, Refusal.NO_SEAT_FREE, message, RETRY_LATER)
        else:
            news = Released(grant_id)
        seat.listener.hear(self._pool, news)

    def _drop(self, grant_id: str) -> None:
        del self._seats[grant_id]
        self._waiting.pop(grant_id, None)
