"""Who of this node's clients waits for what, and what they have been told.

A grant may be decided by any node, so nobody is told by the decision: after every change of the
view, each affected grant id is compared with what its client was told last. Then a grant that
another node made, a seat that was lost with its lease, and an own decision are one case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Protocol

from seatkeeper.server.decide import Forecast
from seatkeeper.server.domain import Basis, Command, Denied, Grant, PoolState, Refusal, Released

ESTIMATE_GROWTH = timedelta(seconds=1), 1.5
"""An estimate is told again when it is longer by so much than the last one, and by this factor."""
POSITIONS_MAX = 20
"""Most positions told at once."""
COPIES_MAX = 8
"""Most connections that are told of one request."""
NONE: Mapping[str, Denied] = {}


@dataclass(frozen=True, slots=True)
class Position:
    """A request waits."""

    grant_id: str
    position: int
    estimate: timedelta | None
    basis: Basis | None = None
    """What the estimate was made from, or why there is none."""


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
    estimate: timedelta | None = None
    """What it was told last."""


class Subscribers:
    """The clients of this node that have a ticket or a grant in one pool.

    A request may be sent twice, over two connections, before it is answered: both are told what becomes
    of it.
    """

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._seats: dict[str, list[_Seat]] = {}
        self._waiting: dict[str, None] = {}
        """In the order in which they are told their positions."""

    def __len__(self) -> int:
        return len(self._seats)

    def attach(self, command: Command, listener: Listener) -> None:
        """Tell ``listener`` from now on what becomes of what ``command`` asks for.

        Those that were told before are told as well, the latest ``COPIES_MAX`` of them. One more hears
        that it is told no more.
        """
        grant_id = command.grant_id
        seats = [s for s in self._seats.get(grant_id, ()) if s.listener is not listener]
        seats.append(_Seat(listener, command.session_id))
        for seat in seats[:-COPIES_MAX]:
            message = "the same request was sent again, and is answered there"
            seat.listener.hear(self._pool, Denied(grant_id, Refusal.UNAVAILABLE, message))
        self._seats[grant_id] = seats[-COPIES_MAX:]
        self._waiting.pop(grant_id, None)

    def detach(self, grant_id: str, listener: Listener) -> None:
        """Tell ``listener`` no more."""
        seats = self._seats.get(grant_id, ())
        left = [seat for seat in seats if seat.listener is not listener]
        if left:
            self._seats[grant_id] = left
        elif seats:
            self._drop(grant_id)

    def turn_away(self, denied: Callable[[str], Denied]) -> None:
        """Deny every request that has not been granted, by what ``denied`` returns for its id."""
        for grant_id, seats in list(self._seats.items()):
            waiting = [seat for seat in seats if seat.told is not _Told.HOLDS]
            if not waiting:
                continue
            self._seats[grant_id] = [seat for seat in seats if seat.told is _Told.HOLDS]
            if not self._seats[grant_id]:
                self._drop(grant_id)
            for seat in waiting:
                seat.listener.hear(self._pool, denied(grant_id))

    def listener(self, grant_id: str) -> Listener | None:
        """Return who was last to ask for ``grant_id``, if anybody here has."""
        seats = self._seats.get(grant_id)
        return seats[-1].listener if seats else None

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
            seats = self._seats.get(grant_id)
            if seats is None:
                continue
            if (grant := state.grants.get(grant_id)) is not None:
                self._waiting.pop(grant_id, None)
                for seat in seats:
                    if seat.told is not _Told.HOLDS:
                        seat.told = _Told.HOLDS
                        seat.listener.hear(self._pool, SeatsGranted(grant))
            elif grant_id in state.tickets:
                for seat in seats:
                    if seat.told is _Told.NOTHING:
                        # Its position is told by the next ``review_positions``, or never if it is
                        # served before: who waits for a moment only need not be told that it waits.
                        seat.told = _Told.WAITS
                        self._waiting[grant_id] = None
            else:  # also when it was told nothing yet: the answer that it waits for is this one
                self._drop(grant_id)
                for seat in seats:
                    news = denied.get(grant_id) or self._end_of(grant_id, seat, state)
                    seat.listener.hear(self._pool, news)

    def review_positions(self, state: PoolState, forecast: Forecast) -> bool:
        """Tell those who wait here what has changed of it; return whether some were left out.

        That is their position, or an estimate that has turned out to be too short or begins to exist.

        At most ``POSITIONS_MAX`` are told at once, in turns, so that a long queue costs no more than a
        short one.
        """
        told = 0
        for grant_id in list(self._waiting):
            if told == POSITIONS_MAX:
                return True
            if self._notify_position(grant_id, state, forecast):
                told += 1
                # To the end: it is somebody else's turn.
                self._waiting[grant_id] = self._waiting.pop(grant_id)
        return False

    def _notify_position(self, grant_id: str, state: PoolState, forecast: Forecast) -> bool:
        ticket = state.tickets.get(grant_id)
        place = forecast.place(ticket) if ticket is not None else None
        if place is None:
            return False
        position, estimate = place.position, place.wait
        behind = [
            seat
            for seat in self._seats[grant_id]
            if seat.position != position or _is_news(seat.estimate, estimate)
        ]
        for seat in behind:
            seat.position, seat.estimate = position, estimate
            news = Position(grant_id, position, estimate, forecast.outlook.basis)
            seat.listener.hear(self._pool, news)
        return bool(behind)

    def _end_of(self, grant_id: str, seat: _Seat, state: PoolState) -> News:
        if not state.finished.contains(seat.session_id, grant_id):
            return SeatsLost(grant_id, "the session has ended")
        return Released(grant_id)

    def _drop(self, grant_id: str) -> None:
        del self._seats[grant_id]
        self._waiting.pop(grant_id, None)


def _is_news(told: timedelta | None, estimate: timedelta | None) -> bool:
    """Return whether an estimate is worth telling although the position is the same.

    That it gets shorter as time passes is expected.
    """
    if told is None or estimate is None:
        return told is not estimate
    more, factor = ESTIMATE_GROWTH
    return estimate > told + more and estimate > told * factor
