"""Seats that a pool keeps for some in windows that come again and again. Pure.

A window is open when that is *written*, not when its time has come: ``advanced`` says what is to be
written now. Of each reservation one window is written at a time, with its instants, and moves one way
only: planned, open, closed; then the next one is planned. So what is kept at any revision of the store
follows from the keys at that revision, whatever a node knows of time zones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from seatkeeper.core.amounts import span
from seatkeeper.core.pool_rules import Who

RESERVATIONS_MAX = 16
"""Reservations of one pool."""
DAY_MINUTES = 24 * 60
LENGTH_DAYS_MAX = 31
SAME_DAY_MILLIS = 12 * 3_600_000
"""Windows of a schedule begin on different days, at one time of the wall clocks. So two beginnings are
further apart than this, and those that data of time zones disagree about are nearer."""
HEEDED_MILLIS = 60_000
"""A holder learns of a reclaim within its ttl; one whose ttl is longer may be late by the rest."""
WARNED_SECONDS = 3600
"""Who is granted seats so long before a window opens, and it is not for them, is warned."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When windows are: on which days, between which times of the wall clocks of a place.

    As it was given; what it comes to is in ``seatkeeper.core.recurrence``.
    """

    rule: str
    """The days on which windows open: a recurrence rule of RFC 5545."""
    opens: int
    """Minutes from the midnight with which such a day begins, by its wall clock."""
    closes: int
    """The same, counted on through the days that follow: 06:00 on the next day is 1,800."""
    zone: str = "UTC"
    """IANA's name of the time zone."""
    first_day: str = ""
    """Such as 2026-12-01: no window opens before, and intervals are counted from it; empty: none."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Seats that are kept for some while a window is open."""

    name: str
    seats: int
    who: Who
    when: Schedule
    notice: int = 0
    """Milliseconds that holders have whose seats a window lacks; 0: none is called back."""

    @property
    def early(self) -> int:
        """How long before it begins a window opens, so that what is called back is free by then."""
        return self.notice + HEEDED_MILLIS if self.notice else 0

    def __str__(self) -> str:
        """Return it for the log."""
        when = self.when
        days = f"{when.rule} from {when.first_day}" if when.first_day else when.rule
        return (
            f"reservation {self.name}: {self.seats} for {self.who}, {days} "
            f"{times_text(when)} {when.zone}"
            + (f", notice {span(self.notice / 1000)}" if self.notice else "")
        )


class WindowState(Enum):
    """What has been written of a window. Moves down this list only."""

    PLANNED = "planned"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Window:
    """One occurrence of a reservation. Instants are Unix milliseconds."""

    name: str
    """The reservation's."""
    begins: int
    ends: int
    """The first moment at which it is over."""
    state: WindowState = WindowState.PLANNED
    opened_at: int | None = None
    """When it was written to be open, by the writer's clock; None: it was not."""
    closed_at: int | None = None

    def left(self, now: int) -> str:
        """Return how long until it ends, for people."""
        return span(max(0, self.ends - now) / 1000)


@dataclass(frozen=True)
class PoolWindows:
    """The latest window of each reservation of a pool, as nodes have written it."""

    windows: tuple[Window, ...] = ()
    edited_revision: int = 0
    """The revision that an administrator wrote, where nodes alone have written since; 0: none has."""

    def __bool__(self) -> bool:
        """Return whether any window is written."""
        return bool(self.windows)

    @cached_property
    def by_name(self) -> Mapping[str, Window]:
        """The windows, by the names of their reservations."""
        return {window.name: window for window in self.windows}

    @cached_property
    def open(self) -> Mapping[str, Window]:
        """Those of them that are open."""
        return {
            name: window
            for name, window in self.by_name.items()
            if window.state is WindowState.OPEN
        }

    def lines(self) -> list[str]:
        """Return it for the log."""
        return [f"window of {each.name}: {each.state.value}" for each in self.windows]


NO_WINDOWS = PoolWindows()
Span = tuple[int, int]
"""When a window begins and ends."""
Following = Callable[[Schedule, int | None, int], Span | None]
"""Returns the first window that begins after an instant (None: any) and is not over at another one;
None: there is none, or it is not known here."""


@dataclass(frozen=True, slots=True)
class WindowMove:
    """Something that is to be written of a window."""

    window: Window
    """As it is to be."""
    reservation: Reservation


def advanced(
    reservations: Iterable[Reservation], windows: PoolWindows, now: int, following: Following
) -> tuple[PoolWindows, tuple[WindowMove, ...]]:
    """Return the windows as they are to be written at ``now``, and what moves; nothing: all is written.

    A window moves one way only, and the next one begins later, whatever ``now`` is: a slower clock
    undoes nothing. One whose whole time went by unseen closes without having been open.
    """
    moves: list[WindowMove] = []
    after: list[Window] = []
    for reservation in reservations:
        window = windows.by_name.get(reservation.name)
        for _ in WindowState:  # closed, the next one planned, and open at once
            step = _step(reservation, window, now, following)
            if step is None:
                break
            moves.append(WindowMove(step, reservation))
            window = step
        if window is not None:
            after.append(window)
    return (replace(windows, windows=tuple(after)) if moves else windows), tuple(moves)


def _step(
    reservation: Reservation, window: Window | None, now: int, following: Following
) -> Window | None:
    if window is None or window.state is WindowState.CLOSED:
        return upcoming(reservation, window, now, following)
    if window.ends <= now:
        return replace(window, state=WindowState.CLOSED, closed_at=now)
    if window.state is WindowState.PLANNED and window.begins - reservation.early <= now:
        return replace(window, state=WindowState.OPEN, opened_at=now)
    return None


def upcoming(
    reservation: Reservation, before: Window | None, now: int, following: Following
) -> Window | None:
    """Return the window that is to be planned after ``before``, which is closed; None: there is none.

    The data of time zones may have changed since ``before`` was written, or be others on another node.
    So what begins soon after it began is the window of the same day, which is not opened a second time;
    and one that by now would have begun before that one ended, begins with its end.
    """
    if before is None:
        span = following(reservation.when, None, now)
        return None if span is None else Window(reservation.name, *span)
    after = before.begins + SAME_DAY_MILLIS
    span = following(reservation.when, after, max(now, before.ends))
    if span is None:
        return None
    return Window(reservation.name, max(span[0], before.ends), span[1])


def next_move(windows: PoolWindows, reservations: Iterable[Reservation] = ()) -> int | None:
    """Return when a window is next to be opened or closed, which may be over already; None: never."""
    early = {each.name: each.early for each in reservations}
    found = [
        window.begins - early.get(window.name, 0)
        if window.state is WindowState.PLANNED
        else window.ends
        for window in windows.windows
        if window.state is not WindowState.CLOSED
    ]
    return min(found, default=None)


def unplanned(
    reservations: Iterable[Reservation], windows: PoolWindows
) -> list[tuple[Reservation, Window | None]]:
    """Return the reservations whose next window is to be written, each with the one before."""
    there = windows.by_name
    return [
        (each, window)
        for each in reservations
        if (window := there.get(each.name)) is None or window.state is WindowState.CLOSED
    ]


def succeeding(
    wanted: Iterable[Reservation], before: Iterable[Reservation], windows: PoolWindows
) -> PoolWindows:
    """Return what is stored when an administrator's reservations take the place of those before.

    The windows of one with the same name and times go on as they were written, also for another number
    of seats, and for others; of any other one, nothing is written yet.
    """
    times = {each.name: each.when for each in before}
    stay = {each.name for each in wanted if times.get(each.name) == each.when}
    found = tuple(window for window in windows.windows if window.name in stay)
    return PoolWindows(found) if found else NO_WINDOWS


def clock_text(minutes: int) -> str:
    """Return a time of the day as wall clocks show it: ``06:00``."""
    hours, rest = divmod(minutes % DAY_MINUTES, 60)
    return f"{hours:02}:{rest:02}"


def times_text(when: Schedule) -> str:
    """Return from when to when: ``22:00-06:00``; ``+2`` behind it: on the second day after."""
    days = when.closes // DAY_MINUTES
    is_next = when.closes % DAY_MINUTES <= when.opens
    later = "" if days == (1 if is_next else 0) else f"+{days}"
    return f"{clock_text(when.opens)}-{clock_text(when.closes)}{later}"
