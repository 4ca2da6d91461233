"""``seatkeeper import``: licence and options files of other servers, as a file of pools."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli.connection import Json
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import outputs_at, written
from seatkeeper.cli.render import say, speaks_utf8, write_event, write_json, write_text
from seatkeeper.core.amounts import count
from seatkeeper.core.text import path_in_json, printable
from seatkeeper.core.validate import is_name

if TYPE_CHECKING:
    from seatkeeper.cli.render import Json as Object
    from seatkeeper.client.builds.output import Output
    from seatkeeper.client.imports import Dialect, Outcome, Translation

STANDARD_INPUT = "standard input"

app = typer.Typer(
    help="Translate licence and options files of FlexNet and RLM into a file of pools.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Licence files and options files, in any order; - is standard input.",
    ),
]
OutputFile = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the pools to a file, rather than to standard output.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace the file of --output where it is there.")
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="FEATURE=POOL",
        help="The name of a feature's pool, where it shall not be that of the feature. May be "
        "repeated.",
    ),
]
WithVendor = Annotated[
    bool,
    typer.Option(
        "--with-vendor", help="Name pools VENDOR.FEATURE: where vendors have the same features."
    ),
]
Today = Annotated[
    str | None,
    typer.Option(
        "--today",
        metavar="YYYY-MM-DD",
        help="Leave out licences that have expired on this day, rather than today.",
    ),
]


@app.command(
    epilog=examples(
        "seatkeeper import flexnet license.lic vendor.opt -o pools.yaml",
        "seatkeeper import flexnet license.lic vendor.opt | seatkeeper pool plan -f -",
    )
)
def flexnet(
    files: Files,
    output: OutputFile = None,
    force: Force = False,
    name: Names = None,
    with_vendor: WithVendor = False,
    today: Today = None,
    as_json: Json = False,
) -> None:
    """Translate licence and options files of FlexNet.

    The seats of INCREMENT and FEATURE lines are a pool for each feature; those with dates are lots of
    it. RESERVE for a PROJECT or GROUP is its guarantee, and MAX its limit; INCLUDE and EXCLUDE are the
    pool's rules of who may use it. Everything else they say is listed on standard error, with the
    reason. Exit with 3 where something that decides who gets a seat has no counterpart.
    """
    from seatkeeper.client.imports import FLEXNET

    _translate(FLEXNET, files, _Wanted(output, force, name or [], with_vendor, today, as_json))


@app.command(
    epilog=examples(
        "seatkeeper import rlm license.lic isv.opt -o pools.yaml",
        "seatkeeper import rlm license.lic isv.opt | seatkeeper pool plan -f -",
    )
)
def rlm(
    files: Files,
    output: OutputFile = None,
    force: Force = False,
    name: Names = None,
    with_vendor: WithVendor = False,
    today: Today = None,
    as_json: Json = False,
) -> None:
    """Translate licence and options files of RLM, the Reprise License Manager.

    The seats of LICENSE lines are a pool for each product; those with dates are lots of it. RESERVE for
    a project or group is its guarantee, and MAX its limit; INCLUDE and EXCLUDE are the pool's rules of
    who may use it. Everything else they say is listed on standard error, with the reason. Exit with 3
    where something that decides who gets a seat has no counterpart.
    """
    from seatkeeper.client.imports import RLM

    _translate(RLM, files, _Wanted(output, force, name or [], with_vendor, today, as_json))


@dataclass(frozen=True)
class _Wanted:
    """What options say."""

    output: str | None
    force: bool
    named: list[str]
    with_vendor: bool
    given_day: str | None
    as_json: bool

    @property
    def today(self) -> date:
        """The day whose licences count. One that cannot be read ends the command."""
        try:
            return (
                date.today() if self.given_day is None else date.fromisoformat(self.given_day)
            )
        except ValueError:
            fail(Exit.USAGE, f"--today {self.given_day}: not a day such as 2027-01-31")

    @property
    def names(self) -> dict[str, str]:
        """The names of pools, by feature. One that cannot be read ends the command."""
        found: dict[str, str] = {}
        for text in self.named:
            feature, _, pool = text.rpartition("=")
            if not feature or not is_name(pool):
                reason = "FEATURE=POOL, where POOL has 1 to 63 of a-z 0-9 . _ -"
                fail(Exit.USAGE, f"--name {text}: write {reason}")
            if found.setdefault(feature, pool) != pool:
                fail(Exit.USAGE, f"--name: {feature} has two names")
        return found


def _translate(dialect: Dialect, files: Sequence[str], wanted: _Wanted) -> None:
    from seatkeeper.client.imports import report_lines, translate

    today, names = wanted.today, wanted.names
    _check_apart(files)
    place = _place(files, wanted)
    read = [(_name(file), _bytes_of(file)) for file in files]
    to_output = place is None and not wanted.as_json
    found = translate(
        dialect,
        read,
        today=today,
        names=names,
        with_vendor=wanted.with_vendor,
        as_ascii=to_output and not speaks_utf8(),
    )
    if not wanted.as_json:
        for line in report_lines(found):
            say(line, stderr=True)
    if found.refusals:
        _refuse(found, wanted.as_json)
    if place is not None:
        place.write(found.text.encode())
    if wanted.as_json:
        path = None if wanted.output is None else path_in_json(wanted.output)
        write_json({"output": path} | _json(found))
    elif place is None:
        write_text(found.text)
    if not found.is_whole:
        raise SystemExit(int(Exit.DIFFERS))


def _check_apart(files: Sequence[str]) -> None:
    """End the command where one file is named twice: its seats would count twice."""
    seen: dict[tuple[int, int], str] = {}
    for file in files:
        try:
            about = os.fstat(0) if file == "-" else Path(file).stat()
        except OSError:
            if file != "-":
                raise
            continue  # said where it is read
        at = about.st_dev, about.st_ino
        if at in seen:
            both = f"{_name(seen[at])} and {_name(file)}"
            fail(Exit.USAGE, f"{both} are one file, which would count twice")
        seen[at] = file


def _place(files: Sequence[str], wanted: _Wanted) -> Output | None:
    """Return where to write the pools; None: to standard output."""
    if wanted.output is None or wanted.output == "-":
        return None
    path = written(wanted.output)
    inputs = {f"input {file}": Path(file) for file in files if file != "-"}
    place = outputs_at({"--output": path}, inputs=inputs, as_json=wanted.as_json)["--output"]
    if path.is_file() and not wanted.force:
        fail(Exit.USAGE, f"--output {path}: it is there already; replace it with --force")
    return place


def _name(file: str) -> str:
    return STANDARD_INPUT if file == "-" else printable(file)


def _bytes_of(file: str) -> bytes:
    """Return what is in a file, and of a larger one than is read one byte more."""
    from seatkeeper.client.imports import FILE_BYTES_MAX

    if file != "-":
        with Path(file).open("rb") as opened:
            return opened.read(FILE_BYTES_MAX + 1)
    try:
        return sys.stdin.buffer.read(FILE_BYTES_MAX + 1) if sys.stdin is not None else b""
    except OSError as error:  # it was closed before we were started
        fail(Exit.USAGE, f"{STANDARD_INPUT}: {error.strerror}")


def _refuse(found: Translation, as_json: bool) -> None:
    for refusal in found.refusals:
        if as_json:
            places = list(refusal.places)
            write_event({"event": "fault", "reason": refusal.reason, "places": places})
        else:
            say(f"refused: {refusal}", stderr=True)
    fail(
        Exit.REFUSED,
        f"{count(len(found.refusals), 'fault')}: no file of pools can be made of this; nothing was "
        "written",
    )


def _json(found: Translation) -> Object:
    from seatkeeper.client.imports import Became

    return {
        "pools_yaml": found.text,
        "pools": found.pools,
        "counts": {became.name.lower(): len(found.of(became)) for became in Became},
        "statements": [_statement_json(outcome) for outcome in found.outcomes],
        "renamed": [renamed._asdict() for renamed in found.renamed],
        "other_lines": {
            name: {"comments": file.comments, "blank": file.blanks}
            for name, file in found.files.items()
        },
    }


def _statement_json(outcome: Outcome) -> Object:
    statement = outcome.statement
    return {
        "file": statement.file,
        "lines": list(statement.lines),
        "text": statement.shown,
        "became": outcome.became.name.lower(),
        "reasons": outcome.reasons,
        "remarks": list(statement.remarks),
        "targets": outcome.targets,
    }
