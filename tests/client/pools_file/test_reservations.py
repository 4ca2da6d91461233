"""Reservations in ``pools.yaml``: what is read, refused with its place, written back, and planned."""

from __future__ import annotations

import pytest

from seatkeeper.client.pools_file import Kind, plan, read_pools, write_pools
from seatkeeper.v1 import pool_service_pb2 as pb

NOW = 1_700_000_000_000
CI = 'ci: {seats: 2, for: {projects: [ci]}, when: weekdays, at: "22:00-06:00", zone: Europe/Berlin}'


def file_of(*reservations: str, more: str = "") -> bytes:
    lines = ["version: 1", "pools:", "  p:", "    seats: 4", "    reservations:"]
    lines += [f"      {each}" for each in reservations]
    return "\n".join([*lines, *([more] if more else [])]).encode()


def faults(*reservations: str, more: str = "") -> list[str]:
    return [
        str(each)
        for each in read_pools(file_of(*reservations, more=more), now_millis=NOW).faults
    ]


def test_what_is_read_is_written_back() -> None:
    other = (
        'end: {seats: 1, for: {holders: ["*@books"], groups: [g]}, at: "18:00-06:00+3", '
        'when: "FREQ=MONTHLY;BYMONTHDAY=-1", from: 2026-11-01}'
    )
    groups = "    groups: {g: {holders: [a]}}"
    found = read_pools(file_of(CI, other, more=groups), now_millis=NOW)
    assert found.faults == ()
    first, second = found.pools["p"].policy.reservations
    assert first.schedule == pb.WindowSchedule(
        rule="FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR",
        zone="Europe/Berlin",
        opens_minute=1320,
        closes_minute=1800,
    )
    assert (first.seats, [*first.who.projects]) == (2, ["ci"])
    assert (second.schedule.zone, second.schedule.closes_minute) == ("UTC", 6 * 60 + 3 * 1440)
    assert (second.schedule.first_day, [*second.who.groups]) == ("2026-11-01", ["g"])
    text = write_pools(found.pools.values())
    again = read_pools(text.encode(), now_millis=NOW)
    assert again.pools == found.pools, text
    assert 'when: "weekdays", at: "22:00-06:00", zone: "Europe/Berlin"' in text


@pytest.mark.parametrize(
    ("reservation", "expected"),
    [
        ("a: {}", "6:10: pools.p.reservations.a: a reservation needs `seats`"),
        (
            CI.replace("Berlin", "Atlantis"),
            "6:86: pools.p.reservations.ci.zone: there is no time zone Europe/Atlantis in the data of "
            "this machine: names are as UTC or Europe/Berlin",
        ),
        (
            CI.replace("weekdays", "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30"),
            "6:51: pools.p.reservations.ci.when: no month of BYMONTH has so many days: at most 29",
        ),
        (
            CI.replace("06:00", "24:00+1"),
            "6:65: pools.p.reservations.ci.at: a window is longer than it takes until the next one "
            "opens, such as on 2023-11-14",
        ),
        (
            CI.replace("22:00-", "22-"),
            "6:65: pools.p.reservations.ci.at: '22-06:00' are no times, as 22:00-06:00, or "
            "18:00-06:00+3 for three days later",
        ),
        (
            CI.replace("seats: 2", "seats: 5"),
            "6:19: pools.p.reservations.ci.seats: 5 is more than the pool has seats: 4",
        ),
        (
            CI.replace("projects: [ci]", "groups: [nothing]"),
            "6:37: pools.p.reservations.ci.for.groups[0]: there is no group nothing",
        ),
        (
            CI.replace("{projects: [ci]}", "{}"),
            "6:27: pools.p.reservations.ci.for: say for whom: projects, holders, groups or hosts",
        ),
    ],
)
def test_what_is_refused_with_its_place(reservation: str, expected: str) -> None:
    found = faults(reservation)
    assert expected in found, found


def test_a_project_that_is_not_listed_and_windows_that_overlap() -> None:
    (fault,) = faults(CI, more="    projects: {cv: {}}")
    assert fault.endswith("reservations.ci.for.projects[0]: no project ci is listed")
    late = CI.replace("ci: {seats: 2", "late: {seats: 3").replace("22:00-06:00", "05:00-08:00")
    (fault,) = faults(CI, late)
    assert fault.startswith(
        "7:21: pools.p.reservations.late.seats: its window of 2023-11-15 04:00 UTC"
    )
    assert "overlaps those of ci: 5 seats are kept then, more than the pool has: 4" in fault
    assert faults(CI, late.replace("05:00-", "06:00-")) == []
    (fault,) = faults(CI, more="    projects: {ci: {}, cv: {guaranteed: 3}}")
    assert "2, and the 3 that are guaranteed to others" in fault


def test_a_plan_shows_what_changes_and_what_nodes_have_written_is_no_change() -> None:
    (before,) = read_pools(file_of(CI), now_millis=NOW).pools.values()
    live = pb.Pool(spec=before, revision=7)
    live.spec.windows.windows.add(reservation="ci", state=pb.WINDOW_STATE_OPEN)
    same = read_pools(file_of(CI), now_millis=NOW).pools
    assert [each.kind for each in plan(same, [live]).changes] == [Kind.UNCHANGED]
    earlier = read_pools(file_of(CI.replace("22:00", "21:00")), now_millis=NOW).pools
    (change,) = plan(earlier, [live]).changes
    assert [str(value) for value in change.values] == [
        "~ reservations.ci: 2 for project ci, weekdays 22:00-06:00 Europe/Berlin -> 2 for project ci, "
        "weekdays 21:00-06:00 Europe/Berlin"
    ]
