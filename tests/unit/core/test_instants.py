"""Dates, lengths and prices as administrators write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.core.instants import (
    instant_shown,
    instant_text,
    parse_instant,
    parse_length,
    parse_price,
)
from seatkeeper.core.lots import INSTANT_MAX, Price, PriceUnit


def millis(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]  # its parts, in order


def test_a_day_is_the_whole_of_it_in_utc() -> None:
    assert parse_instant("2026-01-01") == millis(2026, 1, 1)
    assert parse_instant("2026-12-31", is_end=True) == millis(2027, 1, 1)
    assert instant_text(millis(2027, 1, 1), is_end=True) == "2026-12-31"
    assert instant_text(millis(2027, 1, 1)) == "2027-01-01"
    assert instant_shown(millis(2027, 1, 1)) == "2027-01-01 00:00 UTC"


@pytest.mark.parametrize(
    "text", ["9999-12-31", "2200-01-01", "1969-12-30", "0001-01-01T00:00:00+14:00"]
)
def test_what_no_lot_may_say_is_refused_also_where_the_calendar_ends(text: str) -> None:
    """The last day of it is often written for "never"."""
    with pytest.raises(ValueError, match="not between the years 1970 and 2200; leave it out"):
        parse_instant(text, is_end=True)
    assert parse_instant("2199-12-31", is_end=True) == INSTANT_MAX


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-12-31T18:00Z", (2026, 12, 31, 18)),
        ("2026-12-31 18:00:30Z", (2026, 12, 31, 18, 0, 30)),
        ("2026-12-31T18:00:00+01:00", (2026, 12, 31, 17)),
        ("2026-12-31T18:00:00-05:30", (2026, 12, 31, 23, 30)),
    ],
)
def test_a_time_has_its_offset(text: str, utc: tuple[int, ...]) -> None:
    assert parse_instant(text) == parse_instant(text, is_end=True) == millis(*utc)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-12-31T18:00:00", "has no offset"),
        ("2026-12-31T18:00:00 Europe/Berlin", "no offset from UTC"),
        ("2026-12-31T18:00:00 CET", "no offset from UTC"),
        ("2026-12-31T18:00:00+15:00", "no offset from UTC"),
        ("2026-12-31T18:00:00+01:07", "no offset from UTC"),
        ("2026-12-31T18:00:00+0100", "no offset from UTC"),
        ("2026-02-30", "not in the calendar"),
        ("2026-12-31T24:00:00Z", "not in the calendar"),
        ("31.12.2026", "is no date"),
        ("12/31/2026", "is no date"),
        ("31-dec-2026", "is no date"),
        ("2026-1-1", "is no date"),
        ("tomorrow", "is no date"),
        ("", "is no date"),
        ("\u0662026-01-01", "is no date"),
    ],
)
def test_what_could_be_another_moment_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_instant(text)


@given(st.integers(0, INSTANT_MAX), st.booleans())
def test_what_is_written_reads_as_it_was(at: int, is_end: bool) -> None:
    assert parse_instant(instant_text(at, is_end=is_end), is_end=is_end) == at


def test_lengths() -> None:
    assert parse_length("2h") == timedelta(hours=2)
    assert parse_length("1d12h30m5s") == timedelta(days=1, hours=12, minutes=30, seconds=5)
    for text in ("", "2", "h", "-2h", "2h1d", "1.5h"):
        with pytest.raises(ValueError, match="no length of time"):
            parse_length(text)


def test_prices() -> None:
    price = parse_price("1250.50 EUR/seat-year")
    assert price == Price("1250.50", "EUR", PriceUnit.SEAT_YEAR)
    assert str(price) == "1250.50 EUR/seat-year"
    for text in ("", "12", "12 EUR", "12 EUR/year", "12  EUR/seat-hour", "12,5 EUR/seat"):
        with pytest.raises(ValueError, match="no price"):
            parse_price(text)
