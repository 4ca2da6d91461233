"""Instants and prices as administrators write them: days in UTC, times with their offset. Pure.

A day alone means the whole of it, in UTC: a lot *from* a day begins at its first moment, and one
*until* a day ends with it. That is how contracts are worded, and how licence files are read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from seatkeeper.core.lots import DAY_MILLIS, INSTANT_MAX, INSTANT_MIN, Price, PriceUnit

DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,3}))?)?(.*)", re.ASCII
)
_OFFSET = re.compile(r"([+-])(\d\d):(00|15|30|45)", re.ASCII)
_OFFSET_HOURS_MAX = 14
_FORMS = "write a day, as 2026-12-31, or a time with its offset, as 2026-12-31T18:00:00Z"
_LENGTH = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", re.ASCII)
_PRICE = re.compile(r"(\S+) (\S+)/(\S+)", re.ASCII)
PRICE_FORM = "1250.50 EUR/seat-year"


def parse_instant(text: str, *, is_end: bool = False) -> int:
    """Return the Unix milliseconds that a text names; ``is_end``: a day alone ends with it.

    Raises ``ValueError``, with the reason, for anything that could be read in two ways, and for what no
    lot may say: there are instants that the calendar has, and messages have not.
    """
    found = _parsed(text, is_end)
    if not INSTANT_MIN <= found <= INSTANT_MAX:
        raise ValueError(
            f"{text[:40]!r} is not between the years 1970 and 2200; leave it out where there is none"
        )
    return found


def _parsed(text: str, is_end: bool) -> int:
    if (day := _DAY.fullmatch(text)) is not None:
        found = _calendar(text, [int(each) for each in day.groups()], UTC)
        return _millis(found) + (DAY_MILLIS if is_end else 0)  # the last day has no next one
    time = _TIME.fullmatch(text)
    if time is None:
        raise ValueError(f"{text[:40]!r} is no date: {_FORMS}")
    *parts, fraction, zone = time.groups()
    found = _calendar(text, [int(each or 0) for each in parts], _offset(text, zone))
    return _millis(found) + int((fraction or "").ljust(3, "0"))


def _calendar(text: str, parts: list[int], zone: timezone) -> datetime:
    try:
        return datetime(*parts, tzinfo=zone)  # type: ignore[arg-type,misc]  # six at most
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is not in the calendar: {error}") from error


def _offset(text: str, zone: str) -> timezone:
    if zone in ("Z", "z"):
        return UTC
    if not zone:
        raise ValueError(
            f"{text[:40]!r} has no offset, so it is another moment in every place: add Z for UTC, "
            "or one as +01:00"
        )
    found = _OFFSET.fullmatch(zone)
    if found is None or int(found[2]) > _OFFSET_HOURS_MAX:
        raise ValueError(
            f"{zone[:40]!r} is no offset from UTC, as Z or +01:00; names of zones are not read, "
            "because their rules change"
        )
    length = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-length if found[1] == "-" else length)


def _millis(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def instant_text(millis: int, *, is_end: bool = False) -> str:
    """Return the shortest text that `parse_instant` reads as this instant: a day where it is one."""
    instant = _EPOCH + timedelta(milliseconds=millis)
    if (instant.hour, instant.minute, instant.second, instant.microsecond) == (0, 0, 0, 0):
        return f"{instant - DAY if is_end else instant:%Y-%m-%d}"
    whole = f"{instant:%Y-%m-%dT%H:%M:%S}"
    return f"{whole}.{millis % 1000:03}Z" if millis % 1000 else f"{whole}Z"


def instant_shown(millis: int) -> str:
    """Return an instant for people, always as a time: ``2027-01-01 00:00 UTC``."""
    instant = _EPOCH + timedelta(milliseconds=millis)
    return (
        f"{instant:%Y-%m-%d %H:%M:%S} UTC"
        if instant.second
        else f"{instant:%Y-%m-%d %H:%M} UTC"
    )


def parse_length(text: str) -> timedelta:
    """Return a length such as ``90s``, ``2h``, ``1d12h``. Raises ``ValueError``."""
    found = _LENGTH.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"{text[:40]!r} is no length of time, as 45m, 2h or 1d12h")
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def parse_price(text: str) -> Price:
    """Return a price such as ``1250.50 EUR/seat-year``. Raises ``ValueError``.

    Whether amount and currency are ones is for ``seatkeeper.core.lots`` to say.
    """
    found = _PRICE.fullmatch(text)
    units = {unit.value: unit for unit in PriceUnit}
    if found is None or found[3] not in units:
        raise ValueError(
            f"{text[:40]!r} is no price, as {PRICE_FORM}, or /{PriceUnit.SEAT_HOUR.value}"
        )
    return Price(found[1], found[2], units[found[3]])
