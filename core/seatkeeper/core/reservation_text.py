"""A pool's reservations for people who read or change its specification."""

from __future__ import annotations

from seatkeeper.core.amounts import span
from seatkeeper.core.recurrence import rule_text
from seatkeeper.core.reservations import Reservation, Schedule, times_text


def schedule_text(when: Schedule) -> str:
    """Return when windows are: ``weekdays 22:00-06:00 Europe/Berlin``."""
    since = f", from {when.first_day}" if when.first_day else ""
    return f"{rule_text(when.rule)} {times_text(when)} {when.zone}{since}"


def reservation_text(reservation: Reservation) -> str:
    """Return all of a reservation but its name: ``5 for project ci, weekdays 22:00-06:00 UTC``."""
    text = f"{reservation.seats} for {reservation.who}, {schedule_text(reservation.when)}"
    notice = span(reservation.notice / 1000)
    return f"{text}, called back with a notice of {notice}" if reservation.notice else text
