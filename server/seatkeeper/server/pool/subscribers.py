"""Which of this node's clients wait for what, and the last event that each received.

A grant may be decided by any node, so clients are not notified by the decision: after every change
of the view, each affected grant id is compared with the last event of its client. Then a grant that
another node made, a seat that was lost with its lease, and an own decision are one case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto
from typing import Protocol

from seatkeeper.server.decide import Forecast
from seatkeeper.server.domain import (
    Basis,
    Command,
    Denied,
    EstimatedWait,
    Forced,
    Grant,
    PoolState,
    Reclaim,
    Refusal,
    Released,
)
from seatkeeper.server.domain.holds import unanswered
from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.wire.denials import spread

ESTIMATE_GROWTH = timedelta(seconds=1), 1.5
"""An estimate is sent again when it is longer by so much than the last one, and by this factor."""
POSITIONS_MAX = 20
"""Most positions sent at once."""
COPIES_MAX = 8
"""Most connections that are notified of one request."""
UNANSWERED = -1
NONE: Mapping[str, Denied | Released | Forced] = {}


@immutable
class Position:
    """A request waits."""

    grant_id: str
    position: int
    estimate: EstimatedWait | None
    basis: Basis | None = None
    """What the estimate was made from, or why there is none."""
    waits_for_work: bool = False
    """Whether it waits for another to do the work that both name, and not for a seat."""


@immutable
class SeatsGranted:
    """A request was granted."""

    grant: Grant


@immutable
class SeatsLost:
    """A grant ended without its holder asking."""

    grant_id: str
    message: str
    is_forced: bool = False
    """Whether an administrator ended it, or it was called back; its session lives on."""
    is_reclaimed: bool = False
    """Whether it was called back."""


@immutable
class SeatsCalledBack:
    """A grant is called back, or is not any more."""

    grant_id: str
    reclaim: Reclaim | None
    """None: it is not any more."""


Update = Position | SeatsGranted | SeatsCalledBack | Denied | Released | SeatsLost


class Listener(Protocol):
    """A client, as far as a pool is concerned. Called on the event loop; must not raise."""

    def receive(self, pool: str, update: Update) -> None:
        """Take note of what became of one of the client's requests."""
        ...

    def expect(self, pool: str, grant: Grant) -> None:
        """Get ready for a grant that is being committed. It may come to nothing."""
        ...


def peer_of(listener: Listener | None) -> str:
    """Return the address of a listener's client, for logs; empty: not known here."""
    return str(getattr(listener, "peer", ""))


def deliver(listener: Listener, pool: str, update: Update) -> None:
    """Notify a client. Where it is to come again, the time is drawn: see ``spread``."""
    if isinstance(update, Denied) and update.retry_after is not None:
        update = replace(update, retry_after=spread(update.retry_after))
    listener.receive(pool, update)


class _Notified(Enum):
    NOTHING = auto()
    WAITS = auto()
    HOLDS = auto()


@dataclass(slots=True)
class _Seat:
    """One request of one client of this node."""

    listener: Listener
    session_id: str
    reported: _Notified = _Notified.NOTHING
    position: int = 0
    estimate: EstimatedWait | None = None
    waits_for_work: bool = False
    """The last event that it received."""
    reclaim: int = 0
    """The number of the reclaim that it knows of; 0: of none; `UNANSWERED`: of one that begins when it
    says so."""


class Subscribers:
    """The clients of this node that have a ticket or a grant in one pool.

    A request may be sent twice, over two connections, before it is answered: both are notified of
    what becomes of it.
    """

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._seats: dict[str, list[_Seat]] = {}
        self._waiting: dict[str, None] = {}
        """In the order in which they receive their positions."""

    def __len__(self) -> int:
        return len(self._seats)

    def attach(self, command: Command, listener: Listener) -> None:
        """Notify ``listener`` from now on of what becomes of ``command``.

        Earlier listeners are notified as well, the latest ``COPIES_MAX`` of them. One more is notified
        that it receives no more events.
        """
        grant_id = command.grant_id
        seats = [s for s in self._seats.get(grant_id, ()) if s.listener is not listener]
        seats.append(_Seat(listener, command.session_id))
        for seat in seats[:-COPIES_MAX]:
            message = "the same request was sent again, and is answered there"
            denied = Denied(grant_id, Refusal.UNAVAILABLE, message)
            deliver(seat.listener, self._pool, denied)
        self._seats[grant_id] = seats[-COPIES_MAX:]
        self._waiting.pop(grant_id, None)

    def detach(self, grant_id: str, listener: Listener) -> None:
        """Stop notifying ``listener``."""
        seats = self._seats.get(grant_id, ())
        left = [seat for seat in seats if seat.listener is not listener]
        if left:
            self._seats[grant_id] = left
        elif seats:
            self._drop(grant_id)

    def turn_away(self, denied: Callable[[str], Denied]) -> None:
        """Deny every request that has not been granted, by what ``denied`` returns for its id."""
        for grant_id, seats in list(self._seats.items()):
            waiting = [seat for seat in seats if seat.reported is not _Notified.HOLDS]
            if not waiting:
                continue
            self._seats[grant_id] = [seat for seat in seats if seat.reported is _Notified.HOLDS]
            if not self._seats[grant_id]:
                self._drop(grant_id)
            for seat in waiting:
                deliver(seat.listener, self._pool, denied(grant_id))

    def listener(self, grant_id: str) -> Listener | None:
        """Return who was last to ask for ``grant_id``, if anybody here has."""
        seats = self._seats.get(grant_id)
        return seats[-1].listener if seats else None

    @property
    def any_waits(self) -> bool:
        """Whether any client of this node waits."""
        return bool(self._waiting)

    def waits_here(self, grant_id: str) -> bool:
        """Return whether a client of this node waits for ``grant_id``."""
        return grant_id in self._waiting

    def review(
        self,
        grant_ids: Iterable[str],
        state: PoolState,
        ends: Mapping[str, Denied | Released | Forced] = NONE,
    ) -> None:
        """Notify the clients concerned of what has changed for them, except for positions.

        ``ends``: how those that are gone now ended, where the view alone does not show it.
        """
        for grant_id in grant_ids:
            seats = self._seats.get(grant_id)
            if seats is None:
                continue
            if (grant := state.grants.get(grant_id)) is not None:
                self._waiting.pop(grant_id, None)
                for seat in seats:
                    if seat.reported is not _Notified.HOLDS:
                        seat.reported = _Notified.HOLDS
                        deliver(seat.listener, self._pool, SeatsGranted(grant))
                self._notify_reclaim(grant_id, seats, state)
            elif grant_id in state.tickets:
                for seat in seats:
                    if seat.reported is _Notified.NOTHING:
                        # Its position is sent by the next ``review_positions``, or never if it is
                        # served before: a request that waits for a moment only needs no event.
                        seat.reported = _Notified.WAITS
                        self._waiting[grant_id] = None
            else:  # also before any event: this is the answer that it waits for
                self._drop(grant_id)
                for seat in seats:
                    update = _said(ends.get(grant_id)) or self._end_of(grant_id, seat, state)
                    deliver(seat.listener, self._pool, update)

    def _notify_reclaim(self, grant_id: str, seats: Iterable[_Seat], state: PoolState) -> None:
        guard = state.guard
        running = guard.reclaims.running
        reclaim = running.get(grant_id) or unanswered(guard.holds, grant_id, running)
        number = 0 if reclaim is None else reclaim.number or UNANSWERED
        for seat in seats:
            if seat.reclaim != number:
                seat.reclaim = number
                deliver(seat.listener, self._pool, SeatsCalledBack(grant_id, reclaim))

    def review_positions(self, state: PoolState, forecast: Forecast) -> bool:
        """Notify waiting requests of changed positions; return whether some were left out.

        That is their position, or an estimate that has turned out to be too short or begins to exist.

        At most ``POSITIONS_MAX`` are notified at once, in turns, so that a long queue costs no more
        than a short one.
        """
        reported = 0
        for grant_id in list(self._waiting):
            if reported == POSITIONS_MAX:
                return True
            if self._notify_position(grant_id, state, forecast):
                reported += 1
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
            if (seat.position, seat.waits_for_work) != (position, place.waits_for_work)
            or _differs(seat.estimate, estimate)
        ]
        basis = forecast.outlook.basis
        for seat in behind:
            seat.position, seat.estimate = position, estimate
            seat.waits_for_work = place.waits_for_work
            update = Position(grant_id, position, estimate, basis, place.waits_for_work)
            deliver(seat.listener, self._pool, update)
        return bool(behind)

    def _end_of(self, grant_id: str, seat: _Seat, state: PoolState) -> Update:
        if not state.completed.contains(seat.session_id, grant_id):
            return SeatsLost(grant_id, "the session has ended")
        return Released(grant_id)

    def _drop(self, grant_id: str) -> None:
        del self._seats[grant_id]
        self._waiting.pop(grant_id, None)


def _said(end: Denied | Released | Forced | None) -> Denied | Released | SeatsLost | None:
    """Return what a client receives of an end."""
    if isinstance(end, Forced):
        return SeatsLost(
            end.grant_id, end.message, is_forced=True, is_reclaimed=end.is_reclaimed
        )
    return end


def _differs(reported: EstimatedWait | None, estimate: EstimatedWait | None) -> bool:
    """Return whether an estimate is worth sending although the position is the same.

    That it gets shorter as time passes is expected.
    """
    if reported is None or estimate is None:
        return reported is not estimate
    more, factor = ESTIMATE_GROWTH
    before, now = reported.likely, estimate.likely
    return now > before + more and now > before * factor
