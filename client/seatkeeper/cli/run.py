"""``seatkeeper run``: any program, while holding a seat."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli.connection import Claimant, claiming
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.program import ENDING, Program, Received, Signals, find_program
from seatkeeper.cli.render import Json, span, write_event
from seatkeeper.cli.waiting import Priority, Wait, Waiting

if TYPE_CHECKING:
    from seatkeeper.client import AsyncGrant, HoldingState

GRACE_SECONDS = 2.0
"""Fits into the safety margin of the nodes' default lease of 15 s."""
MARGIN_OF_LEASE = 4
"""The client takes at most this part of a lease as its margin."""
SLACK_SECONDS = 1.0
"""What the margin covers beside the grace."""
TOKEN_POLL_SECONDS = 0.2

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
        str, typer.Option("--pool", metavar="NAME", help="Pool of the seat.")
    ] = "tensorrt",
    seats: Annotated[
        int, typer.Option("--seats", metavar="N", min=1, help="Seats to take, all together.")
    ] = 1,
    wait: Wait = None,
    priority: Priority = 0,
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
) -> None:
    """Run a command while holding a seat, and give the seat back when it ends.

    The exit code is the command's own, or 128+N when signal N ended it. Signals are passed on,
    input and output are left alone. When the seat is lost the command gets SIGTERM, after the
    grace SIGKILL, and the exit code is 76.

    The command finds in its environment SEATKEEPER_TOKEN_FILE, a file whose token is always
    fresh; SEATKEEPER_TOKEN, the first token; SEATKEEPER_POOL, SEATKEEPER_GRANT_ID,
    SEATKEEPER_FENCE and SEATKEEPER_SEATS.

    Standard output is the command's own. With --json, what happens to the seat is written to
    standard error, one object a line.
    """
    if sys.platform != "linux":
        fail(Exit.FAILED, "run needs Linux; elsewhere, use the Python library")
    if (problem := find_program(command[0])) is not None:
        fail(*problem)
    signals = Signals()
    one = _Run(at, command, grace, signals)
    try:
        code = asyncio.run(one.run(pool, seats, wait, priority))
    except asyncio.CancelledError:
        code = 128 + (one.ended_by or 0)
    raise SystemExit(code)


class _Run:
    """One run, from the queue to the exit code."""

    def __init__(
        self, at: Claimant, command: list[str], grace: float, signals: Signals
    ) -> None:
        self._at = at
        self._command = command
        self._grace = grace
        self._signals = signals
        self._program: Program | None = None
        self._lost = asyncio.Event()
        self.ended_by: int | None = None
        """The signal that ended us before there was a program."""

    async def run(self, pool: str, seats: int, wait: float | None, priority: int = 0) -> int:
        """Wait for a seat, run the command under it, return its exit code."""
        task = asyncio.current_task()
        assert task is not None

        def tell(received: Received) -> None:
            if self._program is not None:
                self._program.receive(received)
            elif received.number in ENDING and self.ended_by is None:
                self.ended_by = received.number
                task.cancel()

        self._signals.listen(asyncio.get_running_loop(), tell)
        waiting = Waiting(pool, tell=write_event if self._at.json else None)
        ttl, margin = lease_for(self._grace)
        async with self._at.claiming_client(ttl=ttl, safety_margin=margin) as client:
            try:
                grant = await client.acquire(
                    pool,
                    seats=seats,
                    wait=wait,
                    priority=priority,
                    on_queued=waiting.queued,
                    on_state=self._on_state,
                )
            finally:
                waiting.done()
            try:
                code = await self._run_under(grant)
            finally:
                await grant.release()
        return code

    async def _run_under(self, grant: AsyncGrant) -> int:
        self._say(
            {
                "event": "granted",
                "pool": grant.pool,
                "grant_id": grant.grant_id,
                "fence": grant.fence,
                "seats": grant.seats,
            }
        )
        with tempfile.TemporaryDirectory(prefix="seatkeeper-") as folder:
            token_file = Path(folder) / "token"
            write_token(token_file, grant.token)
            environment = os.environ | {
                "SEATKEEPER_TOKEN": grant.token,
                "SEATKEEPER_TOKEN_FILE": str(token_file),
                "SEATKEEPER_POOL": grant.pool,
                "SEATKEEPER_GRANT_ID": grant.grant_id,
                "SEATKEEPER_FENCE": str(grant.fence),
                "SEATKEEPER_SEATS": str(grant.seats),
            }
            self._program = Program.start(self._command, environment, self._signals)
            keeping = asyncio.create_task(self._keep_fresh(grant, token_file))
            try:
                return await self._until_the_end(self._program, grant.pool)
            finally:
                keeping.cancel()
                with suppress(asyncio.CancelledError):
                    await keeping

    async def _until_the_end(self, program: Program, pool: str) -> int:
        ended = asyncio.create_task(program.wait())
        lost = asyncio.create_task(self._lost.wait())
        await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not lost.done():
            lost.cancel()
            await program.stop_what_is_left(self._grace)
            self._say({"event": "ended", "exit_code": ended.result()})
            return ended.result()
        self._say(
            {"event": "lost", "pool": pool},
            f"the seat of {pool} is lost: stopping {self._command[0]} (SIGTERM, and SIGKILL "
            f"after {span(self._grace)})",
        )
        await program.stop(self._grace)
        # Not awaited: one that became another user's cannot be stopped by us.
        ended.cancel()
        return Exit.SEAT_LOST

    async def _keep_fresh(self, grant: AsyncGrant, token_file: Path) -> None:
        from seatkeeper.client.errors import SeatLost

        written = grant.token
        while True:
            await asyncio.sleep(TOKEN_POLL_SECONDS)
            try:
                token = grant.token
            except SeatLost:
                # By the clock, which knows also of the time that the machine was suspended.
                self._lost.set()
                return
            if token != written:
                # The folder may be gone: a program that cleans up too much harms itself alone.
                with suppress(OSError):
                    write_token(token_file, token)
                written = token

    def _on_state(self, state: HoldingState) -> None:
        match state.value:
            case "jeopardy":
                self._say(
                    {"event": "jeopardy"},
                    "the seat is in doubt: no node has answered for a while. "
                    f"{self._command[0]} goes on, and will be stopped if that lasts",
                )
            case "safe":
                self._say({"event": "safe"}, "the seat is safe again")
            case "lost":
                self._lost.set()

    def _say(self, event: Json, text: str = "") -> None:
        if self._at.json:
            write_event(event)
        elif text:
            print(f"seatkeeper: {text}", file=sys.stderr, flush=True)


def lease_for(grace: float) -> tuple[timedelta | None, timedelta]:
    """Return the lease to ask for, and the margin to keep, so that ``grace`` fits into it.

    The seat counts as lost a margin before another may get it, and the command is gone a grace
    after that. None: the nodes' default will do.
    """
    margin = timedelta(seconds=grace + SLACK_SECONDS)
    return (margin * MARGIN_OF_LEASE if grace > GRACE_SECONDS else None), margin


def write_token(file: Path, token: str) -> None:
    """Put a token into a file, whole or not at all, for nobody else to read."""
    draft = file.with_name(".token")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(token)
    draft.replace(file)
