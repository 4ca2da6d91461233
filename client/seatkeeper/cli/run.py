"""``seatkeeper run``: any program, while holding a seat."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion, streams
from seatkeeper.cli.command import claiming
from seatkeeper.cli.connection import Claimant
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import EndedBySignal, Exit, die_of, fail, say_interrupted
from seatkeeper.core import environment as variables
from seatkeeper.core.errors import NoSeatFree
from seatkeeper.core.gang import AFTER_MAX_SECONDS, ALTERNATIVES_MAX, GANG_MAX
from seatkeeper.core.validate import SEATS_MAX
from seatkeeper.hold.signals import PERSON, Signals

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient
    from seatkeeper.hold.finding import Problem
    from seatkeeper.hold.runner import SeatRunner

GRACE_SECONDS = 2.0
"""As `seatkeeper.hold.runner` has it, which is not loaded for the help text."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Stopping:
    """What becomes of a command that loses its seat: each field is an option."""

    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            metavar="SECONDS",
            min=0,
            max=600,
            help="Seconds between SIGTERM and SIGKILL after the seat is lost. More than "
            f"{GRACE_SECONDS:g} requests a longer lease, so that the command has ended before "
            "another client gets the seat.",
        ),
    ] = GRACE_SECONDS
    reclaim_signal: Annotated[
        str | None,
        typer.Option(
            "--reclaim-signal",
            metavar="NAME",
            help="Signal that the command gets when its seat is called back, such as TERM; none: it "
            "gets none. Left out: USR1, if the command handles it.",
        ),
    ] = None
    activity: Annotated[
        str | None,
        typer.Option(
            "--activity",
            metavar="FILE",
            help="The command is active when this file changes, such as its log: for pools that call "
            "idle seats back. Left out: nothing is reported, and its seat is not called back for that.",
        ),
    ] = None
    contain: Annotated[
        bool,
        typer.Option(
            "--contain",
            help="Run the command in a PID namespace, so that no process that it starts outlives it. "
            "Needs root (CAP_SYS_ADMIN).",
        ),
    ] = False


@dataclass(frozen=True)
class Asked:
    """Which seats the command is to have: each field is an option."""

    pool: Annotated[
        str,
        typer.Option(
            "--pool", metavar="NAME", help="Pool of the seat.", autocompletion=completion.pools
        ),
    ] = "tensorrt"
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--or",
            metavar="NAME[:SECONDS]",
            help="Another pool that will do, after so many seconds. Repeat it, up to 3 times, in the "
            "order of preference.",
            autocompletion=completion.pools,
        ),
    ] = None
    together: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME[:SEATS]",
            help="Seats of another pool, held together with these: all are granted at once, or none. "
            "Repeat it, up to 7 times.",
            autocompletion=completion.pools,
        ),
    ] = None
    seats: Annotated[
        int,
        typer.Option("--seats", metavar="N", min=1, help="Number of seats, granted together."),
    ] = 1
    take_over: Annotated[
        str | None,
        typer.Option(
            "--take-over",
            metavar="GRANT",
            help="Take over the seats that you hold under this grant elsewhere, at once; they are lost "
            "there.",
        ),
    ] = None


@app.command(
    # What follows the command's name is the command's own, also without `--`.
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "seatkeeper run -- env",
        "seatkeeper run --pool tensorrt --wait 600 -- sleep 1",
        "seatkeeper run --pool a100 --or l4:30 -- env",
        "seatkeeper run --pool compiler --with quantiser:2 -- env",
        "seatkeeper run --take-over GRANT -- ./resume.sh",
        "seatkeeper run --seats 2 -- sh -c 'echo under fence $SEATKEEPER_FENCE'",
    ),
)
@claiming
def run(
    at: Claimant,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND [ARGS]...", help="The command to run.")
    ],
    asked: Asked,
    stopping: Stopping,
) -> None:
    """Run a command while holding a seat, and release the seat when it ends.

    The exit code is the command's own, or 128+N if signal N ended it. Signals are forwarded;
    input and output are untouched. When the seat is lost, the command gets SIGTERM, then SIGKILL
    after the grace, and the exit code is 76. Background processes that it leaves continue without
    the seat; with --contain they end, and the command sees its own processes only ($$ is 2).

    When the seat is called back, as pools that lend seats may do, the command goes on, and is stopped
    in the same way when the notice is over; a command that has saved its work exits before.

    Its environment has SEATKEEPER_TOKEN_FILE, a file with the current token; SEATKEEPER_TOKEN, the
    first one; SEATKEEPER_POOL, SEATKEEPER_GRANT_ID, SEATKEEPER_FENCE and SEATKEEPER_SEATS.

    Standard output is the command's own. With --json, events of the seat go to standard error, one
    object a line.
    """
    if sys.platform != "linux":
        fail(Exit.FAILED, "run needs Linux; elsewhere, use the Python library")
    from seatkeeper.cli.run_report import RunReport, as_shells_say
    from seatkeeper.hold.finding import find_problem
    from seatkeeper.hold.runner import RunConfig
    from seatkeeper.hold.runner import SeatRunner as Runner

    if (problem := find_problem(command)) is not None:
        fail(*_as_failure(problem))

    def connect(ttl: timedelta | None, margin: timedelta) -> AsyncSeatClient:
        return at.claiming_client(command[0], ttl=ttl, safety_margin=margin)

    if asked.take_over is not None and (said := _said_beside(at, asked)):
        fail(Exit.USAGE, f"--take-over and {said}: it is as that grant has it; leave one out")
    config = RunConfig(
        command=command,
        pool=asked.pool,
        others=_alternatives(asked.pool, asked.others or []),
        seats=asked.seats,
        together=_together(asked),
        terms=at.terms(),
        take_over=asked.take_over,
        grace=stopping.grace,
        reclaim_signal=_signal_of(stopping.reclaim_signal),
        activity=stopping.activity,
        contain=stopping.contain,
        closed=streams.closed_at_start,
    )
    report = RunReport(command[0], asked.pool, as_json=at.json)
    runner = Runner(config, connect, Signals(), notify=report.write, die=die_of)
    try:
        code = _run_to_end(runner, asked.pool)
    except NoSeatFree as error:
        if asked.take_over is None:
            raise
        fail(Exit.NO_SEAT, str(error))  # it would not help to wait
    if code is None:
        raise SystemExit(int(Exit.SEAT_LOST))
    if -code in PERSON:
        raise EndedBySignal(-code)
    raise SystemExit(as_shells_say(code))


def _together(asked: Asked) -> dict[str, int]:
    """Return how many seats of each other pool are wanted, too. What is wrong ends the command."""
    found: dict[str, int] = {}
    for said in asked.together or []:
        name, colon, number = said.partition(":")
        seats = 0 if colon else 1
        if number.isascii() and number.isdigit() and len(number) <= len(str(SEATS_MAX)):
            seats = int(number)
        if not name or name == asked.pool or name in found or not 0 < seats <= SEATS_MAX:
            fail(
                Exit.USAGE,
                f"--with {said}: NAME or NAME:SEATS, each pool once and not {asked.pool}, which is "
                f"that of --pool; 1 to {SEATS_MAX} seats",
            )
        found[name] = seats
        if len(found) >= GANG_MAX:
            fail(Exit.USAGE, f"--with: at most {GANG_MAX - 1} other pools")
    if found and asked.others:
        fail(
            Exit.USAGE, "--with and --or: seats of all pools, or of one of them; leave one out"
        )
    return found


def _said_beside(at: Claimant, asked: Asked) -> str:
    """Return the option that says of seats to be taken over what they have already; empty: none."""
    terms = at.terms()
    said = {
        "--seats": asked.seats != 1,
        "--or": asked.others,
        "--with": asked.together,
        "--wait": terms.get("wait") is not None,
        "--priority": terms.get("priority"),
        "--label": terms.get("labels"),
        "--as": terms.get("cost_class"),
        "--project": at.project != os.environ.get(variables.PROJECT, "default"),
    }
    return next((option for option, value in said.items() if value), "")


def _alternatives(pool: str, others: list[str]) -> dict[str, float]:
    """Return after how many seconds each other pool will do. What is wrong ends the command."""
    found: dict[str, float] = {}
    last = 0.0
    for said in others:
        name, colon, seconds = said.partition(":")
        try:
            after = float(seconds) if colon else last
        except ValueError:
            after = -1.0
        if not name or name == pool or name in found or not last <= after <= AFTER_MAX_SECONDS:
            fail(
                Exit.USAGE,
                f"--or {said}: NAME or NAME:SECONDS, each pool once and not {pool}, which is that of "
                "--pool; at most a day, and never less than for the one before",
            )
        found[name] = last = after
        if len(found) >= ALTERNATIVES_MAX:
            fail(Exit.USAGE, f"--or: at most {ALTERNATIVES_MAX - 1} other pools")
    return found


def _signal_of(name: str | None) -> int | None:
    """Return the number of a signal; 0: none. A name that is none ends the command."""
    if name is None:
        return None
    plain = name.strip().upper().removeprefix("SIG")
    if plain == "NONE":
        return 0
    found = getattr(signal, f"SIG{plain}", None)
    if not isinstance(found, signal.Signals) or plain in {"KILL", "STOP"}:
        fail(
            Exit.USAGE,
            f"--reclaim-signal {name}: no signal that a program can handle, nor none",
        )
    return int(found)


def _run_to_end(runner: SeatRunner, pool: str) -> int | None:
    """Return the command's exit code, or -n for a signal; None: its seat was lost."""
    from seatkeeper.hold.runner import RunFailed

    streams.hold_nothing_up()
    try:
        return asyncio.run(runner.run()).code
    except RunFailed as error:
        fail(*(_as_failure(error.problem) if error.problem else (Exit.FAILED, str(error))))
    except asyncio.CancelledError:
        if runner.ended_by is None:
            raise
        say_interrupted(runner.ended_by, f"no seat of {pool} is held or waited for")
        raise EndedBySignal(runner.ended_by) from None


def _as_failure(problem: Problem) -> tuple[Exit, str]:
    return Exit.NO_COMMAND if problem.is_missing else Exit.NOT_EXECUTABLE, problem.message
