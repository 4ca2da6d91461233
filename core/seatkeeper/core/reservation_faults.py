"""What may be said of a pool's reservations. Pure; who writes a specification checks it as nodes do."""

from __future__ import annotations

from collections.abc import Iterator

from seatkeeper.core.instants import instant_shown
from seatkeeper.core.pool_rule_faults import rule_faults
from seatkeeper.core.pool_rules import ANY, HolderGroup, PoolRules
from seatkeeper.core.projects import PoolPolicy
from seatkeeper.core.recurrence import ScheduleFault, check_schedule
from seatkeeper.core.reservations import RESERVATIONS_MAX, Reservation, Span
from seatkeeper.core.validate import is_name

NOTICE_MIN_MILLIS, NOTICE_MAX_MILLIS = 1_000, 86_400_000

ReservationFault = tuple[int, tuple[str | int, ...], str]
"""What is wrong with reservations: the place of the one, the way to it, such as ``for``, ``projects``,
0; and the reason."""


def reservation_faults(policy: PoolPolicy, seats: int, now: int) -> Iterator[ReservationFault]:
    """Yield all that is wrong with the reservations of a pool of so many seats.

    Windows are compared for about a year from ``now`` on. What follows from another fault is left out.
    A pool of 0 seats is closed for a while, and keeps reservations that it cannot keep now.
    """
    if len(policy.reservations) > RESERVATIONS_MAX:
        count = len(policy.reservations)
        yield RESERVATIONS_MAX, (), f"{count} reservations are over {RESERVATIONS_MAX}"
        return
    windows: dict[int, list[Span]] = {}
    seen: set[str] = set()
    found = False
    for place, reservation in enumerate(policy.reservations):
        faults = list(_faults_of(policy, reservation, seats, seen))
        seen.add(reservation.name)
        try:
            windows[place] = check_schedule(reservation.when, now)
        except ScheduleFault as error:
            faults.append(((error.field,), str(error)))
        found = found or bool(faults)
        for way, reason in faults:
            yield place, way, reason
    if not found and seats:
        yield from _together(policy, windows, seats)


def _faults_of(
    policy: PoolPolicy, reservation: Reservation, seats: int, seen: set[str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if not is_name(reservation.name):
        yield ("name",), f"{reservation.name[:64]!r} is not a name"
    elif reservation.name in seen:
        yield ("name",), f"{reservation.name} is listed twice"
    if reservation.seats < 1:
        yield ("seats",), f"{reservation.seats} is not from 1 on"
    elif seats and reservation.seats > seats:
        yield ("seats",), f"{reservation.seats} is more than the pool has seats: {seats}"
    if reservation.notice and not NOTICE_MIN_MILLIS <= reservation.notice <= NOTICE_MAX_MILLIS:
        yield ("notice",), f"{reservation.notice / 1000:g} s is not from 1 s to 1 day"
    if reservation.who.is_empty:
        yield ("for",), "say for whom: projects, holders, groups or hosts"
    groups = tuple(HolderGroup(each.name, each.holders) for each in policy.rules.groups)
    for way, reason in rule_faults(PoolRules(groups, include=reservation.who)):
        if way[0] == "include":
            yield ("for", *way[1:]), reason
    if not policy.projects:
        return
    for at, project in enumerate(reservation.who.projects):
        if ANY not in project and project not in policy.shares:
            yield ("for", "projects", at), f"no project {project[:64]} is listed"


def _together(
    policy: PoolPolicy, windows: dict[int, list[Span]], seats: int
) -> Iterator[ReservationFault]:
    """Yield what is too much at once: of what is kept, and of that and what is guaranteed to others."""
    if sum(each.seats for each in policy.reservations) > seats:
        yield from _overlaps(policy.reservations, windows, seats)
    top = sum(policy.guaranteed[name] for name in policy.parts.get("", ()))
    for place, reservation in enumerate(policy.reservations):
        own = sum(policy.guaranteed.get(name, 0) for name in set(reservation.who.projects))
        others = max(0, top - own)
        if others + reservation.seats > seats:
            yield (
                *(place, ("seats",)),
                f"{reservation.seats}, and the {others} that are guaranteed to others, are more "
                f"than the pool has seats: {seats}",
            )


def _overlaps(
    reservations: tuple[Reservation, ...], windows: dict[int, list[Span]], seats: int
) -> Iterator[ReservationFault]:
    """Yield the first moment at which windows keep more seats than there are."""
    changes = [(begins, 1, place) for place, spans in windows.items() for begins, _ in spans]
    changes += [(ends, 0, place) for place, spans in windows.items() for _, ends in spans]
    kept: set[int] = set()
    for instant, opens, place in sorted(changes):  # of the same moment, ends come first
        if not opens:
            kept.discard(place)
            continue
        kept.add(place)
        total = sum(reservations[each].seats for each in kept)
        if total > seats:
            others = ", ".join(reservations[each].name for each in sorted(kept - {place}))
            yield (
                *(place, ("seats",)),
                f"its window of {instant_shown(instant)} overlaps those of {others}: {total} seats "
                f"are kept then, more than the pool has: {seats}",
            )
            return
