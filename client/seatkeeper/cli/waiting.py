"""Prints the place of a request in the queue on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from seatkeeper.cli.render import Json, about, between
from seatkeeper.core.amounts import count, span
from seatkeeper.core.text import printable

if TYPE_CHECKING:
    from seatkeeper.client.session.requests import QueuePosition


def queued_event(place: QueuePosition) -> Json:
    """Return the event of a place in the queue, for programs."""
    estimate = None if place.estimate is None else place.estimate.total_seconds()
    basis = place.basis and {
        "holds": place.basis.holds,
        "hold_median_seconds": place.basis.hold_median.total_seconds(),
        "holders": place.basis.holders,
        "holders_overdue": place.basis.holders_overdue,
    }
    return {
        "event": "queued",
        "pool": place.pool,
        "position": place.position,
        "estimate_seconds": estimate,
        "estimate_between_seconds": place.between
        and [t.total_seconds() for t in place.between],
        "estimate_basis": basis,
        "waits_for_work": place.waits_for_work,
    }


def outlook(place: QueuePosition) -> str:
    """Return the estimate of how long it may take, and its basis; empty: nothing is known."""
    if place.waits_for_work:
        return ", while another holder builds the same"
    basis = place.basis
    if place.estimate is None:
        if basis is None or not basis.holders_overdue:
            return ""
        usual = span(basis.hold_median)
        return f", no estimate: the seats have been held for longer than the usual {usual}"
    by = "" if basis is None else f" (by the last {count(basis.holds, 'hold')}, median "
    by += "" if basis is None else f"{span(basis.hold_median)})"
    odds = ""
    if place.between is not None:
        odds = f", {between(*place.between)} in 4 of 5"
    return f", {about(place.estimate)}{odds}{by}"


class Waiting:
    """One line that is rewritten on a terminal; a line for each change elsewhere."""

    def __init__(self, pool: str, *, notify: Callable[[Json], None] | None = None) -> None:
        """``pool``: where a place does not say; ``notify``: report to a program instead, as JSON."""
        self._pool = pool
        self._places: dict[str, str] = {}
        """By pool, what was said last."""
        self._notify = notify
        self._rewrites = sys.stderr.isatty()
        self._width = 0

    def queued(self, place: QueuePosition) -> None:
        """Say where the request stands now."""
        if self._notify is not None:
            self._notify(queued_event(place))
            return
        pool = printable(place.pool or self._pool)
        self._places[pool] = said = f"{pool}: place {place.position}{outlook(place)}"
        line = "seatkeeper: waiting for a seat of "
        if self._rewrites:
            line += "; of ".join(self._places.values())
            print(f"\r{line:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(line)
        else:
            print(line + said, file=sys.stderr, flush=True)

    def done(self) -> None:
        """Leave a clean line for the next writer."""
        if self._width:
            print(f"\r{'':<{self._width}}\r", end="", file=sys.stderr, flush=True)
            self._width = 0
