"""When a build starts, and whether it is in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from seatkeeper.artifacts.estimate import Estimate, Interval
from seatkeeper.client import DeadlineUnreachable, InvalidArgument
from seatkeeper.client.builds.schedule import (
    DELAY_MAX,
    check_deadline,
    expected_wait,
    latest_start,
    may_start,
    parse_deadline,
    parse_when,
)
from seatkeeper.client.transport.translate import as_duration
from seatkeeper.v1.pool_service_pb2 import Pool, PoolSpec, QueuedTicket

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BUILD = Interval(likely=600, low=500, high=1_200)
ESTIMATE = Estimate(
    seconds=BUILD,
    seat_seconds=BUILD,
    peak_memory_bytes=Interval(likely=1, low=1, high=1),
    builds=20,
    like=3,
)


def pool(free: int, queued: int = 0, *, seats: int = 4, wait: float | None = None) -> Pool:
    tickets = [] if wait is None else [QueuedTicket(estimate=as_duration(wait))]
    return Pool(spec=PoolSpec(seats=seats), free=free, queued=queued, tickets=tickets)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOON + 90 * MINUTE),
        ("1.5h", NOON + 90 * MINUTE),
        ("2d", NOON + timedelta(days=2)),
        ("18:30", NOON.replace(hour=18, minute=30)),
        ("6:05", NOON.replace(hour=6, minute=5) + timedelta(days=1)),
        ("12:00", NOON + timedelta(days=1)),
        ("2026-12-01T06:00", datetime(2026, 12, 1, 6, 0, tzinfo=UTC)),
    ],
)
def test_deadlines_are_lengths_times_and_dates(text: str, moment: datetime) -> None:
    assert parse_deadline(text, NOON) == moment


@pytest.mark.parametrize("text", ["", "soon", "25:00", "-5m", "5 weeks", "2026-13-01"])
def test_what_is_no_deadline_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="90m"):
        parse_deadline(text, NOON)


@pytest.mark.parametrize("text", ["", "later", "22:00", "22:00-22:00", "22-6", "24:00-06:00"])
def test_what_is_no_time_to_start_at_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="off-peak"):
        parse_when(text)


@pytest.mark.parametrize(
    ("hour", "starts"), [(22, True), (23, True), (0, True), (5, True), (6, False), (12, False)]
)
def test_hours_go_over_midnight(hour: int, starts: bool) -> None:
    now = NOON.replace(hour=hour)
    schedule = parse_when("22:00-06:00")
    assert may_start(schedule, pool(0, 9), now, now + DELAY_MAX) == starts


@pytest.mark.parametrize(
    ("seen", "starts"),
    [(pool(4), True), (pool(2), True), (pool(1), False), (pool(2, 1), False), (pool(0), False)],
)
def test_off_peak_is_when_half_of_the_seats_are_free_and_no_request_waits(
    seen: Pool, starts: bool
) -> None:
    assert may_start(parse_when("off-peak"), seen, NOON, NOON + DELAY_MAX) == starts
    assert may_start(parse_when("now"), seen, NOON, NOON + DELAY_MAX)
    assert may_start(parse_when("off-peak"), seen, NOON, NOON), "at the latest, in any case"


def test_the_latest_start_leaves_time_for_a_long_build() -> None:
    deadline = NOON + 60 * MINUTE
    assert latest_start(NOON, deadline, ESTIMATE) == NOON + 40 * MINUTE
    assert latest_start(NOON, deadline, None) == deadline
    assert latest_start(NOON, NOON + MINUTE, ESTIMATE) == NOON
    assert latest_start(NOON, None, ESTIMATE) == NOON + DELAY_MAX


def test_a_deadline_that_cannot_be_kept_is_refused_with_the_reason() -> None:
    check_deadline(NOON + 20 * MINUTE, NOON, 5 * MINUTE, ESTIMATE)
    with pytest.raises(DeadlineUnreachable, match="10 min 0 s and the wait for a seat 15 min"):
        check_deadline(NOON + 20 * MINUTE, NOON, 15 * MINUTE, ESTIMATE)
    with pytest.raises(DeadlineUnreachable, match="1 min 0 s ago"):
        check_deadline(NOON - MINUTE, NOON, None, None)


def test_what_is_unknown_refuses_nothing() -> None:
    check_deadline(NOON + MINUTE, NOON, None, None)


def test_the_wait_for_a_seat_is_that_of_the_last_in_the_queue() -> None:
    assert expected_wait(pool(1)) == timedelta(0)
    assert expected_wait(pool(0, 3, wait=90)) == timedelta(seconds=90)
    assert expected_wait(pool(0)) is None
