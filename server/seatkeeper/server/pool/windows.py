"""What is written of the windows of a pool's reservations: by the node that decides for it.

As with lots (``pool.lots``, which calls this module where it looks at those): one transaction, which
compares the specification by its revision and moves each window one way only. The next window of a
reservation is written with its instants when the one before is closed. So opening and closing need no
time zones, and where the data of two nodes differ, what the first of them has written holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from seatkeeper.core import recurrence
from seatkeeper.core.amounts import count, span
from seatkeeper.core.instants import instant_shown
from seatkeeper.core.pool_rules import finder
from seatkeeper.core.reservations import (
    NO_WINDOWS,
    WARNED_SECONDS,
    Following,
    PoolWindows,
    Reservation,
    Schedule,
    Span,
    WindowMove,
    WindowState,
    advanced,
    next_move,
    succeeding,
    unplanned,
    upcoming,
)
from seatkeeper.server.domain import Grant, Instant, PoolSpec, PoolState
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.domain.counted_once import SeatSum
from seatkeeper.server.events import log as events
from seatkeeper.server.store import (
    OutcomeUnknown,
    Put,
    Store,
    StoreUnavailable,
    Unchanged,
    records,
)
from seatkeeper.server.store.keys import Keys

ATTEMPTS_MAX = 10
"""A write that loses its race against other changes of the specification is tried this often."""


def are_due(spec: PoolSpec, now: Instant) -> bool:
    """Return whether a window is to be opened or closed. One that is to be planned is not urgent."""
    at = next_move(spec.windows, spec.policy.reservations)
    return at is not None and at <= now


def next_due(spec: PoolSpec, now: Instant) -> int | None:
    """Return when there is next something to be written by this node; ``now``: at once; None: never.

    A window that this node cannot plan, as it does not know the time zone, is left to others.
    """
    if not spec.policy.reservations:
        return None
    for reservation, before in unplanned(spec.policy.reservations, spec.windows):
        if upcoming(reservation, before, now, _finder(spec.name)) is not None:
            return now
    return next_move(spec.windows, spec.policy.reservations)


def applied(
    spec: PoolSpec, before: PoolSpec | None, now: Instant | None
) -> tuple[PoolSpec, tuple[WindowMove, ...]]:
    """Return a specification as an administrator's change stores it, and what is written of windows.

    Those of reservations whose times are as they were go on as they were written.
    """
    wanted = spec.policy.reservations
    if not wanted:
        return replace(spec, windows=NO_WINDOWS), ()
    windows = NO_WINDOWS
    if before is not None:
        windows = succeeding(wanted, before.policy.reservations, before.windows)
    moves: tuple[WindowMove, ...] = ()
    if now is not None:
        windows, moves = _advanced(replace(spec, windows=windows), now)
    return replace(spec, windows=windows), moves


async def write_due(store: Store, keys: Keys, clock: Clock, pool: str) -> None:
    """Write what is due of a pool's windows by this node's clock. Raises ``StoreError``.

    Each window that moves is an event of the log, of the node that wrote it alone, also where the
    answer to its write was lost.
    """
    key = keys.pool(pool)
    sent: dict[bytes, tuple[WindowMove, ...]] = {}
    for _ in range(ATTEMPTS_MAX):
        found = await store.get(key)
        if found is None:
            return
        if found.value in sent:
            report(pool, sent[found.value])
            return
        before = records.decode_spec(found.value, key)
        windows, moves = _advanced(before, clock.now())
        if not moves:
            return
        edited = windows.edited_revision or found.mod_revision
        after = replace(before, windows=replace(windows, edited_revision=edited))
        value = records.encode_spec(after)
        try:
            committed = await store.commit(
                [Put(key, value)], only_if=[Unchanged(key, found.mod_revision)]
            )
        except OutcomeUnknown:
            sent[value] = moves  # the next look shows whether it took effect
            continue
        if committed.succeeded:
            report(pool, moves)
            return
    raise StoreUnavailable(f"pool {pool} changes faster than its windows can be written")


def report(pool: str, moves: Sequence[WindowMove]) -> None:
    """Log what was written of windows: that they were opened, and closed."""
    for move in moves:
        window, reservation = move.window, move.reservation
        facts: dict[str, object] = {"pool": pool, "reservation": window.name}
        facts |= {"seats": reservation.seats, "kept_for": str(reservation.who)}
        facts |= {"begins_at_millis": window.begins, "ends_at_millis": window.ends}
        if window.state is WindowState.OPEN:
            events.happened("reservation_opened", **facts)
        elif window.state is WindowState.CLOSED:
            facts |= {"was_open": window.opened_at is not None}
            events.happened("reservation_closed", **facts)


def notice_of(spec: PoolSpec, state: PoolState | None, grant: Grant) -> str:
    """Return the warning for a holder whose seats a window will want; empty: there is none.

    That is where a window is open, or opens within ``WARNED_SECONDS``, that is not for the holder,
    and too few other seats are free. By this node's view, or without one by the times alone.
    """
    if spec.policy.counting.is_advisory:  # which keeps nothing back
        return ""
    windows = spec.windows.by_name
    for reservation in spec.policy.reservations:
        window = windows.get(reservation.name)
        if window is None or window.state is WindowState.CLOSED:
            continue
        if not window.begins - WARNED_SECONDS * 1000 <= grant.granted_at < window.ends:
            continue
        finds = finder(reservation.who, spec.policy.rules.groups)
        if finds(grant.holder, grant.project, grant.host) is not None:
            continue
        if state is not None and _is_enough(reservation, state, grant, finds):
            continue
        begins, ends = instant_shown(window.begins), instant_shown(window.ends)
        return (
            f"from {begins} to {ends}, {count(reservation.seats, 'seat')} of pool {spec.name} "
            f"{'is' if reservation.seats == 1 else 'are'} kept for {reservation.who} (reservation "
            f"{reservation.name}): give yours back by then if you can; {_taken(reservation)}, but "
            "asking for more may take long"
        )
    return ""


def _taken(reservation: Reservation) -> str:
    """Return what becomes of seats that a window lacks."""
    if not reservation.notice:
        return "they are not taken"
    return f"they may be called back with a notice of {span(reservation.notice / 1000)}"


def _is_enough(
    reservation: Reservation,
    state: PoolState,
    grant: Grant,
    finds: Callable[[str, str, str], str | None],
) -> bool:
    """Return whether what is to be kept is free, or held by those whom it is for, beside a grant."""
    takes = 0
    if grant.grant_id not in state.grants:
        takes = state.sum.takes(grant.seats, grant.group)
    held = SeatSum()
    for each in state.grants.values():
        if finds(each.holder, each.project, each.host) is not None:
            held.add(each.seats, each.group)
    return state.free - takes + held.of() >= reservation.seats


def _advanced(spec: PoolSpec, now: Instant) -> tuple[PoolWindows, tuple[WindowMove, ...]]:
    return advanced(spec.policy.reservations, spec.windows, now, _finder(spec.name))


def _finder(pool: str) -> Following:
    def following(when: Schedule, after: int | None, now: int) -> Span | None:
        try:
            return recurrence.following(when, after, now)
        except recurrence.ScheduleFault as error:
            # Stored by a node that reads it: a newer one, or one with newer data of time zones.
            about = {"pool": pool, "zone": when.zone, "rule": when.rule, "error": str(error)}
            events.happened("reservation_not_planned", logging.WARNING, **about)
            return None

    return following
