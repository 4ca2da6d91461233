"""What nodes write of a pool because a time has come, in virtual time: lots, windows, bursts. Pure.

Nothing here decides either: contracts, bursts and windows move by the functions that nodes call, and so
does the rule that starts a burst. Each is written in the moment in which it is due, as by a node whose
clock is right and that is never away; the owner of a pool looks at the waits for its rule once in each
slot of the rule's time, and so does this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from seatkeeper.core.lots import LotMove, LotStep, PoolLots, moved
from seatkeeper.core.lots import next_move as next_lot_move
from seatkeeper.core.reservations import Following, WindowState, advanced
from seatkeeper.core.reservations import next_move as next_window_move
from seatkeeper.core.rule_bursts import month_of, month_start, obstacle, started
from seatkeeper.server.domain import Instant, PoolSpec, PoolState
from seatkeeper.server.domain.rule_start import is_wanted, may_start
from seatkeeper.server.domain.wait_counts import counting_for

LOOK_MILLIS_MIN = 1_000
"""Nodes look at the clock for rules no more often."""
LOT_BEGAN, LOT_ENDED = "lot began", "lot ended"
WINDOW_OPENED, WINDOW_CLOSED = "window opened", "window closed"
VAIN_MAX = 1_000
"""Moments in a row in which the calendar alone has something, and none gets a seat by it: then
those who wait are taken to wait forever."""


@dataclass(frozen=True, slots=True)
class Written:
    """Something that was written of a lot or a window."""

    at: Instant
    kind: str
    name: str
    """The lot's, or the reservation's."""
    seats: int
    began_at: int | None = None
    """Since when the lot is, or was, in force, or the window open."""
    is_by_rule: bool = False
    """Whether a rule has started the burst."""


class Calendar:
    """What is due of one pool's lots, windows and rule."""

    def __init__(self, following: Following | None) -> None:
        """Write nothing yet. ``following``: how windows are found; None: none are."""
        self._following = following
        self._slot = -1
        """In which the waits were looked at last."""
        self.written: list[Written] = []

    def next_due(self, state: PoolState, now: Instant) -> Instant | None:
        """Return when there is next something to be written, or to be looked at; None: never."""
        spec = state.spec
        if spec is None:
            return None
        found = [next_lot_move(spec.lots)]
        if self._following is not None:
            found.append(next_window_move(spec.windows, spec.policy.reservations))
        found.append(self._next_look(spec, state, now))
        due = min((each for each in found if each is not None), default=None)
        return None if due is None else Instant(max(due, now))

    def write(self, state: PoolState, now: Instant) -> None:
        """Write what is due now."""
        spec = state.spec
        if spec is None:
            return
        if spec.lots:
            lots, moves = moved(spec.lots, now)
            spec = self._with_lots(spec, lots, moves, now) if moves else spec
        if spec.policy.reservations and self._following is not None:
            spec = self._with_windows(spec, self._following, now)
        if spec.lots.rule and self._is_looked_at(spec, now):
            since = [ticket.queued_at for ticket in state.tickets.values()]
            if may_start(spec, now) and is_wanted(spec, state.guard.waits, since, now):
                begun = started(spec.lots, now)
                assert begun is not None  # there is no obstacle
                spec = self._with_lots(spec, *begun, now)
        state.spec = spec

    def _with_lots(
        self, spec: PoolSpec, lots: PoolLots, moves: Iterable[LotMove], now: Instant
    ) -> PoolSpec:
        for move in moves:
            lot = move.lot
            if move.step is not LotStep.ENDS_SOON:
                kind = LOT_BEGAN if move.step is LotStep.BEGAN else LOT_ENDED
                about = (lot.seats, lot.began_at, lot.is_by_rule)
                self.written.append(Written(now, kind, lot.name, *about))
        return spec.with_lots(lots)

    def _with_windows(self, spec: PoolSpec, following: Following, now: Instant) -> PoolSpec:
        reservations = spec.policy.reservations
        windows, moves = advanced(reservations, spec.windows, now, following)
        for move in moves:
            window, seats = move.window, move.reservation.seats
            if window.state is WindowState.OPEN:
                self.written.append(Written(now, WINDOW_OPENED, window.name, seats, now))
            elif window.state is WindowState.CLOSED and window.opened_at is not None:
                about = (seats, window.opened_at)
                self.written.append(Written(now, WINDOW_CLOSED, window.name, *about))
        return replace(spec, windows=windows) if moves else spec

    def _is_looked_at(self, spec: PoolSpec, now: Instant) -> bool:
        """Return whether the waits are to be looked at now; true once in each slot."""
        slot = now // _interval(spec)
        is_new, self._slot = slot != self._slot, slot
        return is_new

    @staticmethod
    def _next_look(spec: PoolSpec, state: PoolState, now: Instant) -> int | None:
        """Return when waits may be long enough; None: not before something else happens."""
        rule = spec.lots.rule
        if not rule or spec.drain is not None:
            return None
        first = next(iter(state.tickets.values()), None)
        slot, counts = counting_for(rule)[0], state.guard.waits
        is_lately = counts.slot_millis == slot and any(
            long and number >= now // slot - 1 for number, (_, long) in counts.slots.items()
        )
        if first is None and not is_lately:
            return None
        if obstacle(spec.lots, now):
            return month_start(month_of(now) + 1)
        every = _interval(spec)
        if is_lately or first is None:
            return (now // every + 1) * every
        return max(now // every + 1, -(-(first.queued_at + rule.p95_wait) // every)) * every


def _interval(spec: PoolSpec) -> int:
    rule = spec.lots.rule
    assert rule is not None
    slot = counting_for(rule)[0]
    return slot * -(-LOOK_MILLIS_MIN // slot)
