"""When the windows of a reservation are: from days and wall clocks to instants.

The days are those of a recurrence rule of RFC 5545, which ``dateutil`` works out; of such rules those
are read that have a next day soon, or none: see ``PARTS``. What is asked is answered from the time on
that is asked about, never from the beginning of the rule: an old rule costs as little as a new one.

A time of a wall clock is one instant, by one rule for opening and closing:

- Where clocks are put back and show it twice, it is the first time, as in RFC 5545.
- Where clocks are put forward and never show it, it is the moment in which they are. RFC 5545 would go
  on counting by the old time, and a window 02:30-03:00 would end before it began.

So a later time is never an earlier instant: windows that touch go on touching, and those that are apart
never overlap. A window whose whole time is left out that day, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from seatkeeper.core.reservations import (
    DAY_MINUTES,
    LENGTH_DAYS_MAX,
    Schedule,
    Span,
)

PARTS = ("FREQ", "INTERVAL", "BYDAY", "BYMONTHDAY", "BYMONTH", "UNTIL")
INTERVAL_MAX = 366
RULE_MAX = 200
LOOKED_AT_MAX = 500
"""Days of a rule that are looked at for one answer, at most."""
YEAR_DAYS = 371
"""Days for which windows are compared: a year, with both changes of the clocks."""
_WORDS = {
    "daily": "FREQ=DAILY",
    "weekdays": "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR",
    "weekends": "FREQ=WEEKLY;BYDAY=SA,SU",
}
WORDS = ", ".join(_WORDS)
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_BYDAY = re.compile(r"([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_TIMES = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)(?:\+(\d\d?))?", re.ASCII)
_DAY = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIRST_YEAR, _LAST_YEAR = 1971, 2199


class ScheduleFault(ValueError):
    """A schedule that cannot be read: which field of it, and the reason."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class ZoneUnknown(ScheduleFault):
    """The time zone is not known here. Another machine may know it."""


@dataclass(frozen=True)
class _Days:
    """On which days windows open."""

    freq: str
    interval: int
    weekdays: tuple[tuple[int, int], ...]
    """Number of the weekday, and which of the month; 0: each."""
    monthdays: tuple[int, ...]
    months: tuple[int, ...]
    until: date | None
    first: date | None

    def on(self, begin: date) -> Iterator[date]:
        """Yield the days from ``begin`` on."""
        from dateutil import rrule  # of pools with reservations alone

        weekdays = [
            rrule.weekday(number, nth) if nth else rrule.weekday(number)
            for number, nth in self.weekdays
        ]
        found = rrule.rrule(
            getattr(rrule, self.freq),
            dtstart=_midnight(self._start(begin)),
            interval=self.interval,
            wkst=rrule.MO,
            byweekday=weekdays or None,
            bymonthday=self.monthdays or None,
            bymonth=self.months or None,
            until=_midnight(min(self.until or _LAST_DAY, _LAST_DAY)),
        )
        for each in found:
            if each.date() >= begin:
                yield each.date()

    def _start(self, begin: date) -> date:
        """Return where to begin to count, so that intervals are those from the first day on."""
        if self.first is None:
            return begin
        begin = max(begin, self.first)
        length = self.interval * (7 if self.freq == "WEEKLY" else 1)
        if self.interval == 1:
            return begin
        return self.first + timedelta(days=(begin - self.first).days // length * length)


_LAST_DAY = date(_LAST_YEAR, 12, 31)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


@lru_cache(maxsize=1_000)
def days_of(rule: str, first_day: str = "") -> _Days:
    """Return what a rule says. Raises ``ScheduleFault`` for one that is not read, or has no day."""
    parts = _parts(rule)
    freq = parts.pop("FREQ", "")
    if freq not in ("DAILY", "WEEKLY", "MONTHLY"):
        raise ScheduleFault("when", f"FREQ={freq[:20]} is none of DAILY, WEEKLY and MONTHLY")
    interval = _number(parts.pop("INTERVAL", "1"), "INTERVAL", 1, INTERVAL_MAX)
    weekdays = tuple(map(_weekday, _listed(parts.pop("BYDAY", ""))))
    monthdays = tuple(
        _number(each, "BYMONTHDAY", -31, 31) for each in _listed(parts.pop("BYMONTHDAY", ""))
    )
    months = tuple(
        _number(each, "BYMONTH", 1, 12) for each in _listed(parts.pop("BYMONTH", ""))
    )
    until = _day(parts.pop("UNTIL"), "when") if "UNTIL" in parts else None
    first = _day(first_day, "from") if first_day else None
    days = _Days(freq, interval, weekdays, monthdays, months, until, first)
    _check(days)
    if until is not None and first is not None and until < first:
        raise ScheduleFault("when", f"UNTIL={until} is before the first day, {first}")
    return days


def _parts(rule: str) -> dict[str, str]:
    if len(rule) > RULE_MAX:
        raise ScheduleFault("when", f"has over {RULE_MAX} characters")
    found: dict[str, str] = {}
    for part in rule.split(";"):
        name, equals, value = part.partition("=")
        if not equals or name not in PARTS:
            parts = ", ".join(f"{each}=" for each in PARTS)
            raise ScheduleFault(
                "when",
                f"{part[:40]!r} is none of {parts}, and the words are {WORDS}, or days as MO,TU",
            )
        if name in found:
            raise ScheduleFault("when", f"{name} is there twice")
        found[name] = value
    return found


def _listed(text: str) -> list[str]:
    return text.split(",") if text else []


def _number(text: str, name: str, least: int, most: int) -> int:
    if (
        re.fullmatch(r"-?[0-9]{1,4}", text) is None
        or not least <= int(text) <= most
        or not int(text)
    ):
        raise ScheduleFault("when", f"{name}={text[:20]} is not from {least} to {most}")
    return int(text)


def _weekday(text: str) -> tuple[int, int]:
    found = _BYDAY.fullmatch(text)
    if found is None:
        raise ScheduleFault(
            "when", f"BYDAY={text[:20]} is no day, as MO, or 1MO, the first of the month"
        )
    return _WEEKDAYS.index(found[2]), int(found[1] or 0)


def _day(text: str, field: str) -> date:
    found = _DAY.fullmatch(text)
    try:
        day = date(*map(int, found.groups())) if found else None
    except ValueError:
        day = None
    if day is None or not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        form = "20261201" if field == "when" else "2026-12-01"
        raise ScheduleFault(field, f"{text[:20]!r} is no day between 1971 and 2199, as {form}")
    return day


def _check(days: _Days) -> None:
    """Refuse what has no day, or a next one only after many years: looking for it has no bound."""
    if days.interval > 1 and days.first is None:
        raise ScheduleFault("when", "INTERVAL needs a day to count from: give `from`")
    if days.interval > 1 and (days.months or (days.freq == "DAILY" and days.weekdays)):
        raise ScheduleFault("when", "INTERVAL does not go with BYMONTH, or with BYDAY of DAILY")
    if days.freq != "MONTHLY":
        if days.monthdays or any(nth for _, nth in days.weekdays):
            raise ScheduleFault("when", "BYMONTHDAY, and BYDAY as 1MO, are of FREQ=MONTHLY")
        if days.freq == "WEEKLY" and not days.weekdays:
            raise ScheduleFault("when", "FREQ=WEEKLY needs BYDAY, such as BYDAY=MO,TU")
        return
    if days.interval > 1:
        raise ScheduleFault("when", "INTERVAL does not go with MONTHLY: name months by BYMONTH")
    if bool(days.monthdays) == bool(days.weekdays):
        raise ScheduleFault("when", "FREQ=MONTHLY needs one of BYDAY and BYMONTHDAY")
    months = days.months or tuple(range(1, 13))
    longest = max(_MONTH_DAYS[month - 1] for month in months)
    if days.monthdays and min(map(abs, days.monthdays)) > longest:
        raise ScheduleFault("when", f"no month of BYMONTH has so many days: at most {longest}")


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone. Raises ``ZoneUnknown``, or ``ScheduleFault`` for what is no name of one."""
    if len(name) > 64 or _ZONE.fullmatch(name) is None:
        raise ScheduleFault(
            "zone", f"{name[:64]!r} is no name of a time zone, as UTC or Europe/Berlin"
        )
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ZoneUnknown(
            "zone",
            f"there is no time zone {name} in the data of this machine: names are as "
            "UTC or Europe/Berlin",
        ) from error


def instant(day: date, minutes: int, zone: ZoneInfo) -> int:
    """Return when wall clocks show a time, so many minutes after a day's midnight. Never decreases.

    Shown twice: the first time. Never shown: the moment in which clocks are put forward.
    """
    wall = _midnight(day) + timedelta(minutes=minutes)
    late = wall.replace(tzinfo=zone).astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) == wall:
        return _millis(late)
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    before = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):  # halved: at most 17 times, as a day has seconds
        middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return _millis(late)


def _millis(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def spans(when: Schedule, begin: int) -> Iterator[Span]:
    """Yield the windows of a schedule that are not over at an instant, in order; at most so many.

    Raises ``ScheduleFault``.
    """
    days, zone = days_of(when.rule, when.first_day), zone_of(when.zone)
    back = timedelta(days=2 + (when.closes - 1) // DAY_MINUTES)
    start = max(_day_of(begin) - back, date(_FIRST_YEAR, 1, 1))
    for count, day in enumerate(days.on(start)):
        if count >= LOOKED_AT_MAX:
            return
        span = instant(day, when.opens, zone), instant(day, when.closes, zone)
        if span[0] < span[1] and span[1] > begin:
            yield span


def _day_of(millis: int) -> date:
    most = _millis(datetime(_LAST_YEAR, 12, 31, tzinfo=UTC))
    return (_EPOCH + timedelta(milliseconds=min(max(0, millis), most))).date()


def following(when: Schedule, after: int | None, now: int) -> Span | None:
    """Return the first window that begins after an instant, and is not over at ``now``; None: none.

    Raises ``ScheduleFault``; ``ZoneUnknown`` where this machine does not know the zone.
    """
    begin = now if after is None else max(now, after)
    return next((span for span in spans(when, begin) if after is None or span[0] > after), None)


def check_schedule(when: Schedule, now: int) -> list[Span]:
    """Return the windows of about a year from ``now`` on. Raises ``ScheduleFault``, also for none."""
    days_of(when.rule, when.first_day)
    if not 0 <= when.opens < DAY_MINUTES:
        raise ScheduleFault(
            "at", f"opens {when.opens} minutes after midnight, not within the day"
        )
    if not when.opens < when.closes <= when.opens + LENGTH_DAYS_MAX * DAY_MINUTES:
        raise ScheduleFault(
            "at", f"a window closes after it opens, at most {LENGTH_DAYS_MAX} days later"
        )
    zone_of(when.zone)
    horizon = now + YEAR_DAYS * DAY_MINUTES * 60_000
    found: list[Span] = []
    for span in spans(when, now):
        if found and span[0] > horizon:
            break
        found.append(span)
    if not found:
        raise ScheduleFault("when", "no day that is still to come is among these")
    for one, other in pairwise(found):
        if other[0] < one[1]:
            raise ScheduleFault(
                "at",
                "a window is longer than it takes until the next one opens, such as on "
                f"{_day_of(other[0])}",
            )
    return found


def read_rule(text: str) -> str:
    """Return the rule that a text names: a word such as ``weekdays``, days, as ``MO,TU``, or itself."""
    said = text.strip()
    if said.lower() in _WORDS:
        return _WORDS[said.lower()]
    days = [each.strip().upper() for each in said.split(",")]
    if all(each in _WEEKDAYS for each in days):
        return f"FREQ=WEEKLY;BYDAY={','.join(days)}"
    return said.upper().removeprefix("RRULE:")


def rule_text(rule: str) -> str:
    """Return the shortest text that ``read_rule`` reads as this rule."""
    for word, meant in _WORDS.items():
        if meant == rule:
            return word
    days = rule.removeprefix("FREQ=WEEKLY;BYDAY=")
    if days != rule and read_rule(days) == rule:
        return days
    return rule


def read_times(text: str) -> tuple[int, int]:
    """Return when windows open and close, of a text as ``22:00-06:00``. Raises ``ScheduleFault``.

    A close that is not later than the opening is on the next day; ``+3`` behind it: on the third.
    """
    found = _TIMES.fullmatch(text.strip())
    parts = [int(each) for each in found.groups()[:4]] if found else [99]
    if found is None or max(parts[0::2]) > 24 or max(parts[1::2]) > 59 or parts[0] == 24:
        raise ScheduleFault(
            "at",
            f"{text[:40]!r} are no times, as 22:00-06:00, or 18:00-06:00+3 for three days later",
        )
    opens, closes = 60 * parts[0] + parts[1], 60 * parts[2] + parts[3]
    if closes > DAY_MINUTES:
        raise ScheduleFault("at", f"{text[:40]!r}: a day ends at 24:00")
    if found[5] is not None:
        return opens, closes + int(found[5]) * DAY_MINUTES
    return opens, closes if closes > opens else closes + DAY_MINUTES
