"""``seatkeeper run``: any program, while holding a seat."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion, streams
from seatkeeper.cli.command import claiming
from seatkeeper.cli.connection import Claimant
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import EndedBySignal, Exit, die_of, fail, say_interrupted
from seatkeeper.hold.signals import PERSON, Signals

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient
    from seatkeeper.hold.finding import Problem
    from seatkeeper.hold.runner import SeatRunner

GRACE_SECONDS = 2.0
"""As `seatkeeper.hold.runner` has it, which is not loaded for the help text."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    # What follows the command's name is the command's own, also without `--`.
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "seatkeeper run -- env",
        "seatkeeper run --pool tensorrt --wait 600 -- sleep 1",
        "seatkeeper run --seats 2 -- sh -c 'echo under fence $SEATKEEPER_FENCE'",
    ),
)
@claiming
def run(
    at: Claimant,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND [ARGS]...", help="What to run.")
    ],
    pool: Annotated[
        str,
        typer.Option(
            "--pool", metavar="NAME", help="Pool of the seat.", autocompletion=completion.pools
        ),
    ] = "tensorrt",
    seats: Annotated[
        int, typer.Option("--seats", metavar="N", min=1, help="Seats to take, all together.")
    ] = 1,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            metavar="SECONDS",
            min=0,
            max=600,
            help="Time to end by itself that the command has when the seat is lost. "
            f"More than {GRACE_SECONDS:g} asks for a longer lease, so that it has ended when "
            "another gets the seat.",
        ),
    ] = GRACE_SECONDS,
    contain: Annotated[
        bool,
        typer.Option(
            "--contain",
            help="Run the command in a PID namespace: nothing that it starts outlives it, however "
            "it or we are ended. Needs root (CAP_SYS_ADMIN).",
        ),
    ] = False,
) -> None:
    """Run a command while holding a seat, and give the seat back when it ends.

    The exit code is the command's own, or 128+N when signal N ended it. Signals are forwarded,
    input and output are left alone. When the seat is lost the command gets SIGTERM, after the
    grace SIGKILL, and the exit code is 76. What it leaves behind when it ends goes on without the
    seat; with --contain it is ended, and the command sees processes of its own alone ($$ is 2).

    The command finds in its environment SEATKEEPER_TOKEN_FILE, a file whose token is always
    fresh; SEATKEEPER_TOKEN, the first token; SEATKEEPER_POOL, SEATKEEPER_GRANT_ID,
    SEATKEEPER_FENCE and SEATKEEPER_SEATS.

    Standard output is the command's own. With --json, what happens to the seat is written to
    standard error, one object a line.
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

    config = RunConfig(
        command=command,
        pool=pool,
        seats=seats,
        terms=at.terms(),
        grace=grace,
        contain=contain,
        closed=streams.closed_at_start,
    )
    report = RunReport(command[0], pool, as_json=at.json)
    code = _run_to_end(
        Runner(config, connect, Signals(), notify=report.write, die=die_of), pool
    )
    if code is None:
        raise SystemExit(int(Exit.SEAT_LOST))
    if -code in PERSON:
        raise EndedBySignal(-code)
    raise SystemExit(as_shells_say(code))


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
