"""How the command line reads and shows a pool's reservations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.lots import now_millis
from seatkeeper.cli.render import Json, iso, table
from seatkeeper.client.admin.reservations import ReservationChange, parse_reservation
from seatkeeper.core.amounts import span
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import instant_shown
from seatkeeper.core.reservation_messages import decode_reservation, decode_windows
from seatkeeper.core.reservation_text import schedule_text
from seatkeeper.core.reservations import Window, WindowState
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from rich.console import RenderableType

Reserve = typer.Option(
    "--reserve",
    metavar="KEY=VALUE,...",
    help="Seats that are kept for some in windows that come again: name=, seats=N, for=project:NAME "
    "(or holder:, group:; may be given again), when=daily (weekdays, weekends, MO,TU, or a rule of RFC "
    "5545, such as FREQ=MONTHLY;BYDAY=1MO), at=22:00-06:00, and as you like zone=Europe/Berlin "
    "(UTC), from=DAY, and notice=LENGTH to call back what others hold. May be repeated.",
)
WithoutReservation = typer.Option(
    "--without-reservation", metavar="NAME", help="A reservation to take out. May be repeated."
)


@dataclass(frozen=True)
class NewReservations:
    """The reservations of a pool that is made."""

    reserve: Annotated[list[str] | None, Reserve] = None

    @property
    def given(self) -> list[pb.Reservation]:
        """What is said of them. What cannot be read ends the command."""
        try:
            return [parse_reservation(text) for text in self.reserve or []]
        except InvalidArgument as error:
            fail(Exit.USAGE, str(error))


@dataclass(frozen=True)
class ChangedReservations(NewReservations):
    """What is to become of a pool's reservations."""

    without_reservation: Annotated[list[str] | None, WithoutReservation] = None

    @property
    def change(self) -> ReservationChange:
        """What is to become of them. What cannot be read ends the command."""
        return ReservationChange(self.given, self.without_reservation or [])


def reservations_json(pool: pb.Pool) -> Json:
    """Return what a pool says of its reservations for programs; nothing where it has none."""
    found = [_json(pool, each) for each in pool.spec.policy.reservations]
    return {"reservations": found} if found else {}


def _json(pool: pb.Pool, message: pb.Reservation) -> Json:
    reservation = decode_reservation(message)
    window = decode_windows(pool.spec.windows).by_name.get(message.name)
    written = {each.reservation: each for each in pool.spec.windows.windows}.get(message.name)
    now = {each.name: each for each in pool.reservations}.get(message.name)
    return {
        "name": reservation.name,
        "seats": reservation.seats,
        "for": {
            "projects": [*message.who.projects],
            "holders": [*message.who.holders],
            "groups": [*message.who.groups],
            "hosts": [*message.who.hosts],
        },
        "rule": reservation.when.rule,
        "when": schedule_text(reservation.when),
        "zone": reservation.when.zone,
        "notice_seconds": reservation.notice / 1000 or None,
        "state": window.state.value if window is not None else None,
        "begins": iso(written.begins_at) if written is not None else None,
        "ends": iso(written.ends_at) if written is not None else None,
        "held": now.held if now is not None else 0,
        "kept": now.kept if now is not None else 0,
    }


def reservations_table(pools: Sequence[pb.Pool], *, with_pools: bool = False) -> RenderableType:
    """Return the reservations of pools, with the window of each that is open, or comes next."""
    headings = ("reservation", ">seats", "for", "when", "window", ">held", ">kept")
    rows = []
    for pool in pools:
        windows = decode_windows(pool.spec.windows).by_name
        states = {each.name: each for each in pool.reservations}
        for message in pool.spec.policy.reservations:
            each, now = decode_reservation(message), states.get(message.name)
            rows.append(
                (
                    *([pool.spec.name] if with_pools else []),
                    *(each.name, str(each.seats), str(each.who), schedule_text(each.when)),
                    _window_text(windows.get(each.name)),
                    *(str(now.held if now else 0), str(now.kept if now else 0)),
                )
            )
    return table((*(["pool"] if with_pools else []), *headings), rows)


def _window_text(window: Window | None) -> str:
    if window is None:
        return "not planned yet"
    match window.state:
        case WindowState.OPEN:
            left = span(max(0, window.ends - now_millis()) / 1000)
            return f"open until {instant_shown(window.ends)}, {left} left"
        case WindowState.PLANNED:
            return f"{instant_shown(window.begins)} to {instant_shown(window.ends)}"
        case _:
            return f"closed since {instant_shown(window.ends)}, and no other comes"
