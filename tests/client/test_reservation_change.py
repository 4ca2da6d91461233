"""A pool's reservations as text, and what becomes of them."""

from __future__ import annotations

import pytest

from seatkeeper.client.admin.reservations import (
    ReservationChange,
    change_reservations,
    parse_reservation,
)
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb

CI = "name=ci,seats=5,for=project:ci,when=MO,TU,at=22:00-06:00,zone=Europe/Berlin"


def test_a_reservation_is_read() -> None:
    found = parse_reservation(CI)
    assert (found.name, found.seats, [*found.who.projects]) == ("ci", 5, ["ci"])
    assert found.schedule.rule == "FREQ=WEEKLY;BYDAY=MO,TU"
    assert (found.schedule.zone, found.schedule.first_day) == ("Europe/Berlin", "")
    rule = "when=FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TU, for=group:g, for=holder:a, from=2026-11-02"
    found = parse_reservation(f"name=x, seats=1, at=08:00-09:00, {rule}")
    assert found.schedule.rule == "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TU"
    assert ([*found.who.groups], [*found.who.holders]) == (["g"], ["a"])
    assert (found.schedule.zone, found.schedule.first_day) == ("UTC", "2026-11-02")
    assert [
        *parse_reservation(CI.replace("for=project:ci", "for=project:a,project:b")).who.projects
    ] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is none of name="),
        ("name=ci", "does not say seats="),
        (CI.replace("seats=5", "seats=five"), "seats=five is no number"),
        (CI.replace("22:00-06:00", "night"), "'night' are no times"),
        (CI.replace("project:ci", "ci"), "'ci' is none of project:NAME"),
        (CI.replace("at=", "art="), "'art=22:00-06:00' is none of name="),
        (CI + ",zone=UTC", "zone is given twice"),
        (CI + ",weekdays", "'weekdays' is none of"),
    ],
)
def test_what_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        parse_reservation(text)


def test_the_rest_stays() -> None:
    spec = pb.PoolSpec(name="p")
    one, two = parse_reservation(CI), parse_reservation(CI.replace("name=ci", "name=cd"))
    change_reservations(spec, ReservationChange([one, two]))
    more = parse_reservation(CI.replace("seats=5", "seats=6"))
    change_reservations(spec, ReservationChange([more]))
    assert [(each.name, each.seats) for each in spec.policy.reservations] == [
        ("ci", 6),
        ("cd", 5),
    ]
    change_reservations(spec, ReservationChange(without=["ci"]))
    assert [each.name for each in spec.policy.reservations] == ["cd"]
    with pytest.raises(InvalidArgument, match="has no reservation ci"):
        change_reservations(spec, ReservationChange(without=["ci"]))
    assert not ReservationChange()
