"""``seatkeeper report``: what the ledger's database says of a time."""

from __future__ import annotations

import csv
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import Json, say, show, table, write_json
from seatkeeper.core.extras import explain
from seatkeeper.core.instants import instant_shown, parse_instant

if TYPE_CHECKING:
    from seatkeeper.ledger.reports import KnownGap, UsageReport

DATABASE_DEFAULT = "sqlite:///seatkeeper-ledger.db"
"""As `seatkeeper.ledger.config` has it, which only those who write a ledger load."""
DAY_MILLIS = 86_400_000
HEADINGS = ("SEAT-HOURS", "GRANTS", "HELD NOW", "UNCERTAIN")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.callback()
def report() -> None:
    """Show who used what, from the database that `seatkeeper ledger` writes."""


@app.command(
    epilog=examples(
        "seatkeeper report usage",
        "seatkeeper report usage --from 2026-11-01 --to 2026-11-30 --by holder",
        "seatkeeper report usage --by label:team --format csv",
    )
)
def usage(
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WHEN",
            help="A day in UTC, or a time with its offset. [default: 30 days before the end]",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Likewise; a day is included. [default: now]",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="WHAT", help="pool, project, holder, host, or label:KEY.")
    ] = "project",
    format_: Annotated[
        Format, typer.Option("--format", help="json: one object for all of it.")
    ] = Format.TABLE,
    database: Annotated[
        str,
        typer.Option(
            "--ledger-database",
            envvar="SEATKEEPER_LEDGER_DATABASE",
            metavar="URL",
            help="Database of the ledger.",
        ),
    ] = DATABASE_DEFAULT,
    ledger: Annotated[
        str, typer.Option("--ledger-name", metavar="NAME", help="Which ledger in it.")
    ] = "default",
) -> None:
    """Show how many seat-hours each project, holder or pool has used.

    Seats that are held count up to now. A time of which the ledger does not know all is named: seats
    whose end falls into it count up to its end, and as uncertain from its beginning.
    """
    try:
        from seatkeeper.ledger.database import DatabaseError
        from seatkeeper.ledger.questions import ask_usage
        from seatkeeper.ledger.reports import ReportError
    except ModuleNotFoundError:
        fail(Exit.CONFIG, explain("this command", "server", "ledger"))
    now = time.time_ns() // 1_000_000
    said = _moment("--from", from_), _moment("--to", to, is_end=True)
    end = now if said[1] is None else min(said[1], now)
    begin = end - 30 * DAY_MILLIS if said[0] is None else said[0]
    try:
        found = ask_usage(database, ledger, begin, end, by)
    except ReportError as error:
        fail(Exit.USAGE, str(error))
    except DatabaseError as error:
        fail(Exit.UNAVAILABLE, str(error))
    _write(found, by, format_)


def _moment(option: str, text: str | None, *, is_end: bool = False) -> int | None:
    if text is None:
        return None
    try:
        return parse_instant(text, is_end=is_end)
    except ValueError as error:
        fail(Exit.USAGE, f"{option}: {error}")


def _write(found: UsageReport, by: str, format_: Format) -> None:
    match format_:
        case Format.JSON:
            write_json(_json(found, by))
        case Format.CSV:
            out = csv.writer(sys.stdout, lineterminator="\n")
            out.writerow([by, "seat_hours", "grants", "held", "uncertain_hours"])
            for row in found.rows:
                hours = f"{row.seat_hours:.6f}", f"{row.uncertain_hours:.6f}"
                out.writerow([row.name, hours[0], row.grants, row.held, hours[1]])
        case Format.TABLE:
            cells = [
                (
                    row.name or "-",
                    _hours(row.seat_hours),
                    str(row.grants),
                    str(row.held),
                    _hours(row.uncertain_hours) if row.uncertain_hours else "",
                )
                for row in found.rows
            ]
            say(f"{instant_shown(found.from_at)} to {instant_shown(found.to_at)}")
            show(table([by.upper(), *HEADINGS], cells))
    if format_ is not Format.JSON:
        for gap in found.gaps:
            say(_gap_line(gap), stderr=format_ is Format.CSV)


def _hours(hours: float) -> str:
    return f"{hours:.4f}" if hours < 1 else f"{hours:.2f}"


def _gap_line(gap: KnownGap) -> str:
    detail = f": {gap.detail}" if gap.detail else ""
    return (
        f"gap: not all is known from {instant_shown(gap.from_at)} to {instant_shown(gap.to_at)} "
        f"({gap.cause}{detail})"
    )


def _json(found: UsageReport, by: str) -> Json:
    return {
        "from": _iso(found.from_at),
        "to": _iso(found.to_at),
        "by": by,
        "rows": [
            {
                "name": row.name,
                "seat_hours": row.seat_hours,
                "grants": row.grants,
                "held": row.held,
                "uncertain_hours": row.uncertain_hours,
            }
            for row in found.rows
        ],
        "gaps": [
            {
                "cause": gap.cause,
                "from": _iso(gap.from_at),
                "to": _iso(gap.to_at),
                "detail": gap.detail,
            }
            for gap in found.gaps
        ],
    }


def _iso(millis: int) -> str:
    found = datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds")
    return found.replace("+00:00", "Z")
