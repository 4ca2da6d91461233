"""A demand from a CSV file: strict, and with the line and the reason for whatever is wrong.

A row says when a request came, how long its seats were used, for which project, and how many:

    arrival,hold,project,seats
    2026-03-02T09:00:00Z,25m,vision,1
    2026-03-02T09:04:30Z,1h30m,speech,2

Columns may be in any order. ``wait``, ``priority``, ``holder``, ``work``, ``host`` and ``class`` may
stand beside them. A column of another name is an error, as it may be one of these misspelt; one whose
name begins with ``#`` is not read. Rows need not be sorted.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

from seatkeeper.core.amounts import count
from seatkeeper.core.text import hidden_in, named
from seatkeeper.core.validate import HOLDER_MAX, is_name
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.attribution import WORK_KEY
from seatkeeper.server.replay.demand import (
    ARRIVALS_MAX,
    MILLIS_MAX,
    PROJECTS_MAX,
    Arrival,
    fault_of,
)

BYTES_MAX = 64 << 20
FAULTS_SHOWN = 20
SPAN_DAYS_MAX = 3_660
NEEDED = ("arrival", "hold", "project", "seats")
OPTIONAL = ("wait", "priority", "holder", "work", "host", "class")
SECONDS_BEGIN = 86_400_000
"""What arrivals in seconds are counted from: a midnight, since a day is as good as another."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_SPAN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,9}", re.ASCII)
_T = TypeVar("_T")
_UNIT_MILLIS = (86_400_000, 3_600_000, 60_000, 1_000)


class TraceError(Exception):
    """A trace is not as documented; the message has a line for each fault, with file and line."""


class _FaultError(Exception):
    """What is wrong with a line."""


def read_trace(name: str, data: bytes, *, seconds_begin: int = SECONDS_BEGIN) -> list[Arrival]:
    """Return the arrivals in a file, sorted by time; those of one time in the order of the file.

    ``seconds_begin``: what arrivals that are given in seconds are counted from, in milliseconds.
    Raises ``TraceError`` for whatever is wrong, with the first ``FAULTS_SHOWN`` faults. Nothing of a
    file with a fault is used.
    """
    if len(data) > BYTES_MAX:
        raise TraceError(f"{name}: more than {BYTES_MAX >> 20} MiB; cut it into parts")
    rows = _rows(name, _text(name, data))
    columns = _columns(name, *next(rows, (1, [])))
    arrivals: list[Arrival] = []
    faults: list[str] = []
    kinds: set[bool] = set()
    """Whether arrivals are seconds: all of them, or none."""
    for line, cells in rows:
        try:
            arrivals.append(_arrival(columns, cells, kinds, seconds_begin))
        except _FaultError as fault:
            faults.append(f"{name}:{line}: {fault}")
        if len(arrivals) > ARRIVALS_MAX:
            faults.append(f"{name}:{line}: more than {ARRIVALS_MAX} rows; cut it into parts")
            break
    faults = faults or list(_faults_of_all(name, arrivals))
    if faults:
        more = len(faults) - FAULTS_SHOWN
        shown = faults[:FAULTS_SHOWN] + ([f"and {count(more, 'more fault')}"] * (more > 0))
        raise TraceError("\n".join(shown))
    return sorted(arrivals, key=lambda each: each.at)


def millis_of(text: str) -> int:
    """Return a length of time, in seconds (``90``, ``0.5``) or with units (``1h30m``, ``2d``).

    Raises ``ValueError`` with the reason.
    """
    if _NUMBER.fullmatch(text):
        return _millis_of_seconds(text)
    found = _SPAN.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"{text[:50]!r} is no length of time, such as 90, 25m or 1h30m")
    parts = zip(found.groups(default="0"), _UNIT_MILLIS, strict=True)
    millis = sum(int(number) * unit for number, unit in parts)
    if millis > MILLIS_MAX:
        raise ValueError(f"{text[:50]} is over {MILLIS_MAX // _UNIT_MILLIS[0]} days")
    return millis


def _millis_of_seconds(text: str, days_max: int = MILLIS_MAX // _UNIT_MILLIS[0]) -> int:
    seconds = Decimal(text)
    if seconds < 0:
        raise ValueError(f"{text[:50]} is under 0")
    # Compared before it is made whole: 1e999 would be a number of a thousand digits.
    if seconds > days_max * 86_400:
        raise ValueError(f"{text[:50]} s is over {days_max} days")
    return int(seconds * 1000)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")  # spreadsheets mark it
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TraceError(f"{name}:{line}: not UTF-8; save it as CSV in UTF-8") from None


def _rows(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TraceError(f"{name}:{line}: not CSV: {error}") from None
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield line, cells


def _columns(name: str, line: int, head: list[str]) -> Mapping[str, int]:
    """Return where each column is."""
    names = [cell.lower() for cell in head]
    where = f"{name}:{line}: "
    if not names:
        raise TraceError(f"{name}: empty; its first line is {','.join(NEEDED)}")
    for mark, words in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and mark in head[0]:
            raise TraceError(
                f"{where}columns are separated by {words}; separate them by commas"
            )
    unknown = [
        each for each in names if each not in (*NEEDED, *OPTIONAL) and not each.startswith("#")
    ]
    missing = [each for each in NEEDED if each not in names]
    if missing:
        raise TraceError(f"{where}no column {', '.join(missing)}; write {','.join(NEEDED)}")
    if unknown:
        raise TraceError(
            f"{where}column {unknown[0][:50]!r} is none of {', '.join((*NEEDED, *OPTIONAL))}; "
            "leave it out, or begin its name with #"
        )
    doubled = [each for each in (*NEEDED, *OPTIONAL) if names.count(each) > 1]
    if doubled:
        raise TraceError(f"{where}column {doubled[0]} is there twice")
    return {each: place for place, each in enumerate(names)} | {"": len(names)}


def _arrival(
    columns: Mapping[str, int], cells: list[str], kinds: set[bool], seconds_begin: int
) -> Arrival:
    if len(cells) != columns[""]:
        raise _FaultError(f"{count(len(cells), 'cell')}, and the head has {columns['']}")

    def cell(column: str) -> str:
        return cells[columns[column]] if column in columns else ""

    at, is_seconds = _at(cell("arrival"), seconds_begin)
    kinds.add(is_seconds)
    if len(kinds) > 1:
        raise _FaultError("arrival: seconds and dates in one file; write all in one way")
    arrival = Arrival(
        at=at,
        hold_millis=_parsed("hold", cell("hold"), millis_of),
        project=_parsed("project", cell("project"), _project),
        seats=_parsed("seats", cell("seats"), _whole),
        wait_millis=_parsed("wait", cell("wait"), millis_of) if cell("wait") else None,
        priority=_parsed("priority", cell("priority") or "0", _whole),
        holder=_parsed("holder", cell("holder"), _holder),
        work_key=_parsed("work", cell("work"), _work),
        host=_parsed("host", cell("host"), _holder),
        cost_class=_parsed("class", cell("class"), _project) if cell("class") else "",
    )
    if (fault := fault_of(arrival)) is not None:
        raise _FaultError(": ".join(fault))
    return arrival


def _parsed(column: str, text: str, parse: Callable[[str], _T]) -> _T:
    try:
        return parse(text)
    except ValueError as error:
        raise _FaultError(f"{column}: {error}") from None


def _at(text: str, seconds_begin: int) -> tuple[Instant, bool]:
    """Return a time, and whether it is given in seconds."""
    if _NUMBER.fullmatch(text):
        millis = _parsed("arrival", text, lambda each: _millis_of_seconds(each, SPAN_DAYS_MAX))
        return Instant(seconds_begin + millis), True
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        example = "2026-03-02T09:00:00Z"
        raise _FaultError(
            f"arrival: {text[:50]!r} is neither seconds nor a time such as {example}"
        ) from None
    if moment.tzinfo is None:
        raise _FaultError(f"arrival: {text[:50]} has no time zone; end it with Z, or +01:00")
    try:
        return Instant(int(moment.astimezone(UTC).timestamp() * 1000)), False
    except (OverflowError, ValueError):
        raise _FaultError(f"arrival: {text[:50]} is out of range") from None


def _project(text: str) -> str:
    if not is_name(text):
        raise ValueError(
            f"{text[:64]!r} is not a name: 1 to 63 of `a-z 0-9 . _ -`, starting with a letter or a "
            "digit"
        )
    return text


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:50]!r} is no whole number")
    return int(text)


def _holder(text: str) -> str:
    if len(text) > HOLDER_MAX:
        raise ValueError(f"over {HOLDER_MAX} characters")
    if hidden := hidden_in(text):
        raise ValueError(f"has characters that cannot be shown, such as {named(hidden)}")
    return text


def _work(text: str) -> str:
    if not WORK_KEY.fullmatch(text):
        raise ValueError(f"{text[:50]!r} is not at most 128 of `A-Z a-z 0-9 . _ - / : @ +`")
    return text


def _faults_of_all(name: str, arrivals: list[Arrival]) -> Iterator[str]:
    if not arrivals:
        yield f"{name}: no row below its head"
        return
    days = (max(each.at for each in arrivals) - min(each.at for each in arrivals)) / 86_400_000
    if days > SPAN_DAYS_MAX:
        apart = f"{days:.0f} days apart; at most {SPAN_DAYS_MAX}"
        yield f"{name}: the first and the last arrival are {apart}"
    projects = len({each.project for each in arrivals})
    if projects > PROJECTS_MAX:
        yield f"{name}: {projects} projects; at most {PROJECTS_MAX}"
