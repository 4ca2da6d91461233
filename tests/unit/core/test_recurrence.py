"""From days and wall clocks to instants: tables of rules and of changes of the clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatkeeper.core.recurrence import (
    ScheduleFault,
    ZoneUnknown,
    check_schedule,
    days_of,
    following,
    instant,
    read_rule,
    read_times,
    rule_text,
    spans,
    zone_of,
)
from seatkeeper.core.reservations import Schedule, times_text

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
NIGHTS = Schedule("FREQ=DAILY", opens=22 * 60, closes=30 * 60, zone=BERLIN)
HOUR = 3_600_000


def millis(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def shown(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M}"


@pytest.mark.parametrize(
    ("zone", "wall", "expected"),
    [
        # 22:00 is 22:00 on each side of a change.
        (BERLIN, "2026-03-28T22:00", "2026-03-28T21:00"),
        (BERLIN, "2026-03-29T22:00", "2026-03-29T20:00"),
        (BERLIN, "2026-10-24T22:00", "2026-10-24T20:00"),
        (BERLIN, "2026-10-25T22:00", "2026-10-25T21:00"),
        (NEW_YORK, "2026-03-07T22:00", "2026-03-08T03:00"),
        (NEW_YORK, "2026-03-08T22:00", "2026-03-09T02:00"),
        # Never shown: the moment in which clocks are put forward.
        (BERLIN, "2026-03-29T01:59", "2026-03-29T00:59"),
        (BERLIN, "2026-03-29T02:00", "2026-03-29T01:00"),
        (BERLIN, "2026-03-29T02:30", "2026-03-29T01:00"),
        (BERLIN, "2026-03-29T02:59", "2026-03-29T01:00"),
        (BERLIN, "2026-03-29T03:00", "2026-03-29T01:00"),
        (BERLIN, "2026-03-29T03:01", "2026-03-29T01:01"),
        # Shown twice: the first time.
        (BERLIN, "2026-10-25T02:00", "2026-10-25T00:00"),
        (BERLIN, "2026-10-25T02:59", "2026-10-25T00:59"),
        (BERLIN, "2026-10-25T03:00", "2026-10-25T02:00"),
        # Half an hour; at midnight; and a whole day that an island left out.
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30"),
        ("Australia/Lord_Howe", "2026-10-04T02:30", "2026-10-03T15:30"),
        ("America/Santiago", "2026-09-06T00:30", "2026-09-06T04:00"),
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00"),
        ("Asia/Kolkata", "2026-07-01T09:00", "2026-07-01T03:30"),
        ("UTC", "2026-03-29T02:30", "2026-03-29T02:30"),
    ],
)
def test_when_wall_clocks_show_a_time(zone: str, wall: str, expected: str) -> None:
    at = datetime.fromisoformat(wall)
    found = instant(at.date(), at.hour * 60 + at.minute, ZoneInfo(zone))
    assert shown(found) == expected
    # The same, counted on from a day before.
    day = at.date() - timedelta(days=1)
    assert instant(day, 24 * 60 + at.hour * 60 + at.minute, ZoneInfo(zone)) == found


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [BERLIN, NEW_YORK, "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"]
    ),
    st.dates(date(2000, 1, 1), date(2100, 12, 31)),
    st.integers(0, 3000),
    st.integers(0, 3000),
)
def test_a_later_time_is_no_earlier_instant(zone: str, day: date, one: int, other: int) -> None:
    """So windows that touch go on touching, and none ends before it begins."""
    place = ZoneInfo(zone)
    first, last = (instant(day, each, place) for each in sorted((one, other)))
    assert first <= last
    midnight = datetime(day.year, day.month, day.day)
    wall = datetime.fromtimestamp(first / 1000, place).replace(tzinfo=None)
    wanted = midnight + timedelta(minutes=min(one, other))
    assert wall >= wanted, "a clock is put forward, or shows that time"
    before = datetime.fromtimestamp(first / 1000 - 1, place).replace(tzinfo=None)
    assert before < wanted


def test_a_night_is_an_hour_shorter_and_longer_at_a_change_of_clocks() -> None:
    lengths = {
        shown(begins)[:10]: (ends - begins) / HOUR
        for begins, ends in islice(spans(NIGHTS, millis("2026-01-01T00:00")), 365)
    }
    assert len(lengths) == 365
    others = {day: length for day, length in lengths.items() if length != 8}
    assert others == {"2026-03-28": 7, "2026-10-24": 9}


def test_windows_in_what_clocks_leave_out_are_left_out_and_those_around_are_not() -> None:
    gap = Schedule("FREQ=DAILY", opens=2 * 60 + 15, closes=2 * 60 + 45, zone=BERLIN)
    found = [shown(begins) for begins, _ in islice(spans(gap, millis("2026-03-28T00:00")), 2)]
    assert found == ["2026-03-28T01:15", "2026-03-30T00:15"]
    half = Schedule("FREQ=DAILY", opens=2 * 60 + 30, closes=3 * 60 + 15, zone=BERLIN)
    (begins, ends), *_ = spans(half, millis("2026-03-29T00:00"))
    assert (shown(begins), ends - begins) == ("2026-03-29T01:00", HOUR // 4)


def test_a_window_of_the_whole_day_leaves_no_gap_at_any_change() -> None:
    always = Schedule("FREQ=DAILY", opens=0, closes=24 * 60, zone="America/Santiago")
    found = list(islice(spans(always, millis("2026-01-01T12:00")), 370))
    assert len(check_schedule(always, millis("2026-01-01T12:00"))) > 365
    assert all(one[1] == other[0] for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("rule", "first", "expected"),
    [
        ("FREQ=DAILY", "", ["2026-11-04", "2026-11-05", "2026-11-06"]),
        ("FREQ=DAILY;BYMONTH=12", "", ["2026-12-01", "2026-12-02", "2026-12-03"]),
        ("FREQ=DAILY;INTERVAL=3", "2026-11-01", ["2026-11-04", "2026-11-07", "2026-11-10"]),
        ("FREQ=DAILY;INTERVAL=3", "2020-11-01", ["2026-11-06", "2026-11-09", "2026-11-12"]),
        ("FREQ=DAILY", "2027-01-31", ["2027-01-31", "2027-02-01", "2027-02-02"]),
        ("FREQ=WEEKLY;BYDAY=MO,FR", "", ["2026-11-06", "2026-11-09", "2026-11-13"]),
        (
            *("FREQ=WEEKLY;INTERVAL=2;BYDAY=WE", "2026-11-01"),
            ["2026-11-11", "2026-11-25", "2026-12-09"],
        ),
        (
            *("FREQ=WEEKLY;INTERVAL=2;BYDAY=WE", "2016-11-06"),
            ["2026-11-04", "2026-11-18", "2026-12-02"],
        ),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", "", ["2026-11-30", "2026-12-31", "2027-01-31"]),
        ("FREQ=MONTHLY;BYMONTHDAY=31", "", ["2026-12-31", "2027-01-31", "2027-03-31"]),
        ("FREQ=MONTHLY;BYDAY=1MO", "", ["2026-12-07", "2027-01-04", "2027-02-01"]),
        ("FREQ=MONTHLY;BYDAY=-1FR", "", ["2026-11-27", "2026-12-25", "2027-01-29"]),
        (
            *("FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=29", ""),
            ["2028-02-29", "2032-02-29", "2036-02-29"],
        ),
        ("FREQ=DAILY;UNTIL=20261105", "", ["2026-11-04", "2026-11-05"]),
    ],
)
def test_the_days_of_rules(rule: str, first: str, expected: list[str]) -> None:
    when = Schedule(rule, opens=60, closes=120, first_day=first)
    found = [
        shown(begins)[:10] for begins, _ in islice(spans(when, millis("2026-11-04T00:30")), 3)
    ]
    assert found == expected


def test_what_follows_begins_later_and_is_not_over() -> None:
    now = millis("2026-11-04T23:00")  # within the night from the 4th
    begins, ends = following(NIGHTS, None, now) or (0, 0)
    assert (shown(begins), shown(ends)) == ("2026-11-04T21:00", "2026-11-05T05:00")
    after = following(NIGHTS, begins, now) or (0, 0)
    assert shown(after[0]) == "2026-11-05T21:00"
    assert following(NIGHTS, begins, millis("2026-10-01T00:00")) == after, "a slower clock"
    over = Schedule("FREQ=DAILY;UNTIL=20261104", opens=60, closes=120)
    assert following(over, None, millis("2026-11-05T00:00")) is None


@pytest.mark.parametrize(
    ("rule", "first", "field", "said"),
    [
        ("FREQ=HOURLY", "", "when", "none of DAILY"),
        ("BYDAY=MO", "", "when", "none of DAILY"),
        ("FREQ=DAILY;COUNT=3", "", "when", "is none of FREQ="),
        ("FREQ=DAILY;FREQ=DAILY", "", "when", "twice"),
        ("FREQ=DAILY;INTERVAL=0", "2026-01-01", "when", "INTERVAL=0"),
        ("FREQ=DAILY;INTERVAL=2", "", "when", "give `from`"),
        ("FREQ=DAILY;INTERVAL=7;BYDAY=MO", "2026-11-03", "when", "does not go with"),
        ("FREQ=WEEKLY", "", "when", "needs BYDAY"),
        ("FREQ=WEEKLY;BYDAY=1MO", "", "when", "of FREQ=MONTHLY"),
        ("FREQ=WEEKLY;BYDAY=XX", "", "when", "BYDAY=XX is no day"),
        ("FREQ=DAILY;BYMONTH=13", "", "when", "BYMONTH=13"),
        ("FREQ=MONTHLY", "", "when", "needs one of"),
        ("FREQ=MONTHLY;BYDAY=1MO;BYMONTHDAY=1", "", "when", "needs one of"),
        ("FREQ=MONTHLY;BYMONTHDAY=31;BYMONTH=2,4", "", "when", "at most 30"),
        ("FREQ=MONTHLY;BYMONTHDAY=-30;BYMONTH=2", "", "when", "at most 29"),
        ("FREQ=MONTHLY;INTERVAL=2;BYDAY=1MO", "2026-01-01", "when", "does not go with MONTHLY"),
        ("FREQ=DAILY;UNTIL=2026113", "", "when", "is no day"),
        ("FREQ=DAILY;UNTIL=20261101", "2026-12-01", "when", "is before the first day"),
        ("FREQ=DAILY", "2026-02-30", "from", "is no day"),
        ("FREQ=DAILY", "9999-12-31", "from", "is no day between"),
        ("X" * 300, "", "when", "characters"),
    ],
)
def test_rules_that_are_refused(rule: str, first: str, field: str, said: str) -> None:
    with pytest.raises(ScheduleFault, match=said) as failure:
        days_of(rule, first)
    assert failure.value.field == field


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"rule": "FREQ=DAILY;UNTIL=20200101"}, "when", "no day that is still to come"),
        ({"closes": 46 * 60 + 1}, "at", "longer than it takes until the next one opens"),
        ({"closes": 22 * 60}, "at", "closes after it opens"),
        ({"closes": 40 * 24 * 60}, "at", "at most 31 days"),
        ({"opens": 24 * 60, "closes": 25 * 60}, "at", "not within the day"),
        ({"zone": "Europe/Atlantis"}, "zone", "there is no time zone Europe/Atlantis"),
        ({"zone": "../etc/passwd"}, "zone", "is no name of a time zone"),
        ({"zone": "Europe"}, "zone", "there is no time zone Europe"),
        ({"zone": ""}, "zone", "is no name"),
    ],
)
def test_schedules_that_are_refused(change: dict[str, object], field: str, said: str) -> None:
    fields = {"rule": "FREQ=DAILY", "opens": 22 * 60, "closes": 30 * 60, "zone": BERLIN}
    with pytest.raises(ScheduleFault, match=said) as failure:
        check_schedule(Schedule(**(fields | change)), millis("2026-01-01T00:00"))  # type: ignore[arg-type]  # of any field
    assert failure.value.field == field


def test_an_unknown_zone_is_distinguished_from_what_is_none() -> None:
    with pytest.raises(ZoneUnknown):
        zone_of("Mars/Olympus_Mons")
    with pytest.raises(ScheduleFault) as failure:
        zone_of("/etc/localtime")
    assert not isinstance(failure.value, ZoneUnknown)


@pytest.mark.parametrize(
    ("text", "expected", "written"),
    [
        ("22:00-06:00", (1320, 1800), "22:00-06:00"),
        ("09:00-17:30", (540, 1050), "09:00-17:30"),
        ("00:00-24:00", (0, 1440), "00:00-00:00"),
        ("22:00-24:00", (1320, 1440), "22:00-00:00"),
        ("18:00-06:00+3", (1080, 4680), "18:00-06:00+3"),
        ("08:00-20:00+1", (480, 2640), "08:00-20:00+1"),
        ("22:00-06:00+1", (1320, 1800), "22:00-06:00"),
    ],
)
def test_times(text: str, expected: tuple[int, int], written: str) -> None:
    assert read_times(text) == expected
    again = times_text(Schedule("FREQ=DAILY", *expected))
    assert (again, read_times(again)) == (written, expected)


@pytest.mark.parametrize(
    "text", ["", "22-06", "24:00-06:00", "22:60-06:00", "10:00-24:30", "1:00-2:00"]
)
def test_times_that_are_refused(text: str) -> None:
    with pytest.raises(ScheduleFault):
        read_times(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("daily", "FREQ=DAILY"),
        ("Weekdays", "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR"),
        ("weekends", "FREQ=WEEKLY;BYDAY=SA,SU"),
        ("mo, tu", "FREQ=WEEKLY;BYDAY=MO,TU"),
        ("RRULE:FREQ=MONTHLY;BYDAY=1MO", "FREQ=MONTHLY;BYDAY=1MO"),
    ],
)
def test_words_for_rules(text: str, rule: str) -> None:
    assert read_rule(text) == rule
    assert read_rule(rule_text(rule)) == rule
