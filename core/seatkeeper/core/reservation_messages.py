"""Between a pool's reservations and windows and their messages, as ``lot_messages`` has it for lots."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from seatkeeper.core.pool_rules import Who
from seatkeeper.core.reservations import (
    NO_WINDOWS,
    PoolWindows,
    Reservation,
    Schedule,
    Window,
    WindowState,
)
from seatkeeper.v1 import pool_service_pb2 as pb

_STATES = {
    WindowState.PLANNED: pb.WINDOW_STATE_PLANNED,
    WindowState.OPEN: pb.WINDOW_STATE_OPEN,
    WindowState.CLOSED: pb.WINDOW_STATE_CLOSED,
}
_STATE_OF: dict[int, WindowState] = {number: state for state, number in _STATES.items()}


def encode_reservation(reservation: Reservation) -> pb.Reservation:
    """Return the message for a reservation."""
    who, when = reservation.who, reservation.when
    return pb.Reservation(
        name=reservation.name,
        seats=reservation.seats,
        who=pb.Who(
            projects=who.projects, holders=who.holders, groups=who.groups, hosts=who.hosts
        ),
        schedule=pb.WindowSchedule(
            rule=when.rule,
            zone=when.zone,
            opens_minute=when.opens,
            closes_minute=when.closes,
            first_day=when.first_day,
        ),
        notice=None if not reservation.notice else _duration(reservation.notice),
    )


def decode_reservations(messages: Iterable[pb.Reservation]) -> tuple[Reservation, ...]:
    """Return the reservations in messages."""
    return tuple(map(decode_reservation, messages))


def decode_reservation(message: pb.Reservation) -> Reservation:
    """Return the reservation in a message."""
    who, when = message.who, message.schedule
    return Reservation(
        message.name,
        message.seats,
        Who(*map(tuple, (who.projects, who.holders, who.groups, who.hosts))),
        Schedule(
            when.rule,
            when.opens_minute,
            when.closes_minute,
            when.zone or "UTC",
            when.first_day,
        ),
        message.notice.ToMilliseconds() if message.HasField("notice") else 0,
    )


def _duration(millis: int) -> Duration:
    found = Duration()
    found.FromMilliseconds(millis)
    return found


def encode_windows(windows: PoolWindows) -> pb.PoolWindows:
    """Return the message for the windows of a pool."""
    return pb.PoolWindows(
        windows=map(encode_window, windows.windows), edited_revision=windows.edited_revision
    )


def encode_window(window: Window) -> pb.ReservedWindow:
    """Return the message for a window."""
    message = pb.ReservedWindow(reservation=window.name, state=_STATES[window.state])
    message.begins_at.FromMilliseconds(window.begins)
    message.ends_at.FromMilliseconds(window.ends)
    if window.opened_at is not None:
        message.opened_at.FromMilliseconds(window.opened_at)
    if window.closed_at is not None:
        message.closed_at.FromMilliseconds(window.closed_at)
    return message


def decode_windows(message: pb.PoolWindows) -> PoolWindows:
    """Return the windows in a message."""
    if not message.windows:
        return NO_WINDOWS
    return PoolWindows(tuple(map(decode_window, message.windows)), message.edited_revision)


def decode_window(message: pb.ReservedWindow) -> Window:
    """Return the window in a message. One in a state of a later version keeps no seats."""
    return Window(
        name=message.reservation,
        begins=message.begins_at.ToMilliseconds(),
        ends=message.ends_at.ToMilliseconds(),
        state=_STATE_OF.get(message.state, WindowState.CLOSED),
        opened_at=message.opened_at.ToMilliseconds() if message.HasField("opened_at") else None,
        closed_at=message.closed_at.ToMilliseconds() if message.HasField("closed_at") else None,
    )
