"""A demand on a pool: who came when, for how many seats, and how long they were held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.core.lot_use import LotMarks
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.counted_once import NO_GROUP, Group
from seatkeeper.server.domain.state import NO_USAGE, Usage

ARRIVALS_MAX = 200_000
"""Most arrivals of one replay: a minute or two of work, and some 200 MB."""
PROJECTS_MAX = 500
"""Most projects of one replay: each is held against each other."""
SEATS_MAX = 100_000
"""Most seats of a pool, and so of an arrival."""
MILLIS_MAX = 366 * 24 * 3_600_000
"""Longest hold, and longest wait."""
PRIORITY_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request for seats, and how long its seats are used once they are granted."""

    at: Instant
    project: str
    hold_millis: int
    seats: int = 1
    wait_millis: int | None = None
    """How long it waits at most; 0: not at all; None: without limit."""
    priority: int = 0
    holder: str = ""
    """Empty: the project's name."""
    work_key: str = ""
    """The work that it is for, as in a request. Its hold does the work, for all that wait for it."""
    host: str = ""
    """The host that it comes from; empty: it is not known."""
    cost_class: str = ""
    """The class of the pool's costs that its seats are counted by; empty: it names none."""
    marks: LotMarks | None = None
    """Of a holder at the beginning: the lots that its seats came from; None: from none."""
    labels: tuple[tuple[str, str], ...] = ()
    """Pairs that it chose, in the order of keys."""
    group: Group = NO_GROUP
    """Of a holder at the beginning: what it has in common with those with which it counts once."""
    extended: timedelta | None = None
    """Likewise: how much longer than the pool's longest hold it may hold; None: no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A pool as it stands when a replay begins: who holds its seats, and who waits."""

    at: Instant
    holders: Sequence[Arrival] = ()
    """``at`` is when each was granted, and ``hold_millis`` is counted from there. One whose hold would
    be over gives its seats back when the replay begins."""
    queue: Sequence[Arrival] = ()
    """In the order of acceptance; ``at`` is when each came. Its wait is counted from the beginning."""
    usage: Usage = NO_USAGE
    """What projects have used before."""


def fault_of(arrival: Arrival) -> tuple[str, str] | None:
    """Return which field of an arrival is out of bounds, and why; None: none is."""
    if not 1 <= arrival.seats <= SEATS_MAX:
        return "seats", f"{arrival.seats} is not from 1 to {SEATS_MAX}"
    if not 0 <= arrival.hold_millis <= MILLIS_MAX:
        return "hold", f"{arrival.hold_millis / 1000:g} s is not from 0 to 366 days"
    if arrival.wait_millis is not None and not 0 <= arrival.wait_millis <= MILLIS_MAX:
        return "wait", f"{arrival.wait_millis / 1000:g} s is not from 0 to 366 days"
    if abs(arrival.priority) > PRIORITY_MAX:
        return "priority", f"{arrival.priority} is not from -{PRIORITY_MAX} to {PRIORITY_MAX}"
    if arrival.at < 0:
        return "arrival", "it is before 1970"
    return None
