"""Questions that the ledger answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, and_, case, cast, func, or_, select

from seatkeeper.ledger.schema import gaps, grants, histories, ledgers
from seatkeeper.server.domain import Instant

BY = ("pool", "project", "holder", "host")
LABEL = "label:"
_HOUR_MILLIS = 3_600_000
BEFORE = "before the ledger began"
SINCE = "not written yet"
FRESH_MILLIS = 60_000
"""A ledger that has written within so long knows the present: a quiet one writes every few seconds."""


class ReportError(Exception):
    """The question cannot be answered; the message says why."""


@dataclass(frozen=True, slots=True)
class Used:
    """What one project, or whatever the report is by, had between two moments."""

    name: str
    """Empty: of those that say none."""
    seat_hours: float
    """Seats times hours, of those within the two moments."""
    grants: int
    """How many were held in that time, if only for a part of it."""
    held: int
    """How many of them still are."""
    uncertain_hours: float
    """Of ``seat_hours``, those after the last moment at which it is known that the seats were held."""


@dataclass(frozen=True, slots=True)
class KnownGap:
    """A time of which the ledger does not know all."""

    cause: str
    from_at: Instant
    to_at: Instant
    detail: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Who used what between two moments: from the first on, and before the second."""

    from_at: Instant
    to_at: Instant
    rows: tuple[Used, ...]
    """Most seat-hours first."""
    gaps: tuple[KnownGap, ...]
    """Those that touch that time."""


def usage(
    connection: Connection, ledger: str, from_at: Instant, to_at: Instant, by: str
) -> UsageReport:
    """Return who used what. ``by``: one of ``BY``, or ``label:KEY``.

    Seats that are held count up to ``to_at``, which should not be later than now. Raises
    ``ReportError`` where there is no such ledger, or ``by`` is none of these.
    """
    if from_at >= to_at:
        raise ReportError("--from is not before --to")
    row = connection.execute(select(ledgers).where(ledgers.c.name == ledger)).one_or_none()
    if row is None or not row.history:
        raise ReportError(
            f"there is no ledger {ledger!r} in this database; `seatkeeper ledger` writes one"
        )
    key, found = _key(connection, by), row.id
    known_until = to_at if to_at - row.at <= FRESH_MILLIS else Instant(row.at)
    ended = func.coalesce(grants.c.ended_at, to_at)
    begin = _larger(grants.c.counts_from, from_at)
    within = _larger(_smaller(ended, to_at) - begin, 0)
    held_until = func.coalesce(grants.c.ended_from, grants.c.ended_at, known_until)
    known = _smaller(held_until, to_at)
    sure = _larger(known - begin, 0)
    rows = connection.execute(
        select(
            key.label("name"),
            func.sum(grants.c.seats * within).label("used"),
            func.sum(grants.c.seats * sure).label("sure"),
            func.count().label("grants"),
            func.sum(case((grants.c.ended_at.is_(None), 1), else_=0)).label("held"),
        )
        .where(_overlaps(found, from_at, to_at))
        .group_by(key)
    )
    used = [
        Used(
            row.name or "",
            float(row.used) / _HOUR_MILLIS,
            row.grants,
            int(row.held),
            float(row.used - row.sure) / _HOUR_MILLIS,
        )
        for row in rows
    ]
    used.sort(key=lambda row: (-row.seat_hours, row.name))
    around = _around(connection, found, (from_at, to_at), known_until)
    return UsageReport(
        from_at, to_at, tuple(used), (*_gaps(connection, found, from_at, to_at), *around)
    )


def _key(connection: Connection, by: str) -> ColumnElement[Any]:
    if by in BY:
        return grants.c[by]
    if not by.startswith(LABEL) or by == LABEL:
        raise ReportError(f"--by {by}: one of {', '.join(BY)}, or label:KEY")
    name = by.removeprefix(LABEL)
    if '"' in name or "\\" in name:
        raise ReportError(f"--by {by}: no label has such a key")
    labels: ColumnElement[Any] = func.nullif(grants.c.labels, "")
    if connection.dialect.name == "sqlite":
        found: ColumnElement[Any] = func.json_extract(labels, f'$."{name}"')
    else:
        found = cast(labels, JSON)[name].as_string()
    return found


def _overlaps(ledger: int, from_at: Instant, to_at: Instant) -> ColumnElement[bool]:
    return and_(
        grants.c.ledger == ledger,
        grants.c.counts_from < to_at,
        or_(grants.c.ended_at.is_(None), grants.c.ended_at > from_at),
    )


def _around(
    connection: Connection, ledger: int, times: tuple[Instant, Instant], known_until: Instant
) -> Iterator[KnownGap]:
    """Yield what is before the ledger began, and after what it has written."""
    from_at, to_at = times
    first = select(func.min(histories.c.from_at)).where(histories.c.ledger == ledger)
    began = Instant(connection.execute(first).scalar_one())
    if from_at < began:
        yield KnownGap(BEFORE, from_at, min(began, to_at), "")
    if known_until < to_at:
        yield KnownGap(SINCE, max(known_until, from_at), to_at, "is it running?")


def _gaps(
    connection: Connection, ledger: int, from_at: Instant, to_at: Instant
) -> tuple[KnownGap, ...]:
    touching = and_(gaps.c.ledger == ledger, gaps.c.from_at < to_at, gaps.c.to_at >= from_at)
    rows: Sequence[Any] = connection.execute(
        select(gaps).where(touching).order_by(gaps.c.from_at, gaps.c.id)
    ).all()
    return tuple(
        KnownGap(row.cause, Instant(row.from_at), Instant(row.to_at), row.detail)
        for row in rows
    )


def _larger(one: ColumnElement[Any], other: int) -> ColumnElement[Any]:
    return case((one > other, one), else_=other)


def _smaller(one: ColumnElement[Any], other: int) -> ColumnElement[Any]:
    return case((one < other, one), else_=other)
