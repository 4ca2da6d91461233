"""``seatkeeper run``: any program, while holding a seat."""

from __future__ import annotations

import asyncio
import enum
import os
import signal
import sys
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion, streams
from seatkeeper.cli.connection import Claimant, claiming
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import EndedBySignal, Exit, die_of, fail, name_of, say_interrupted
from seatkeeper.cli.render import Json, write_event
from seatkeeper.cli.waiting import Priority, Wait, Waiting
from seatkeeper.core.amounts import count, span
from seatkeeper.hold.signals import PERSON, STOPS, Received, Signals, stop_ourselves

if TYPE_CHECKING:
    from seatkeeper.client import AsyncGrant, HoldingState
    from seatkeeper.hold.finding import Problem
    from seatkeeper.hold.program import Program
    from seatkeeper.hold.surroundings import TokenFile

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
        str,
        typer.Option(
            "--pool", metavar="NAME", help="Pool of the seat.", autocompletion=completion.pools
        ),
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

    The exit code is the command's own, or 128+N when signal N ended it. Signals are passed on,
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
    from seatkeeper.hold.finding import find_problem

    if (problem := find_problem(command)) is not None:
        fail(*_as_failure(problem))
    one = _Run(at, command, grace, Signals(), contain=contain)
    streams.hold_nothing_up()
    try:
        code = asyncio.run(one.run(pool, seats, wait, priority))
    except asyncio.CancelledError:
        if one.ended_by is None:
            raise
        say_interrupted(one.ended_by, f"no seat of {pool} is held or waited for")
        raise EndedBySignal(one.ended_by) from None
    if -code in PERSON:
        raise EndedBySignal(-code)
    raise SystemExit(_as_shells_say(code))


class _Run:
    """One run, from the queue to the exit code."""

    def __init__(
        self,
        at: Claimant,
        command: list[str],
        grace: float,
        signals: Signals,
        *,
        contain: bool = False,
    ) -> None:
        self._at = at
        self._command = command
        self._name = command[0]
        self._grace = grace
        self._contain = contain
        self._signals = signals
        self._task: asyncio.Task[int] | None = None
        self._program: Program | None = None
        self._phase = _Phase.WAITING
        self._lost = asyncio.Event()
        self._token_file: TokenFile | None = None
        self._interrupted_by: int | None = None
        self.ended_by: int | None = None
        """The signal that ended us before there was a program."""

    async def run(self, pool: str, seats: int, wait: float | None, priority: int) -> int:
        """Wait for a seat, run the command under it; return its exit code, or -n for a signal.

        What can fail before a seat is taken comes first.
        """
        from seatkeeper.hold.program import CannotStart, Program
        from seatkeeper.hold.surroundings import TokenFile

        self._task = asyncio.current_task()
        try:
            program = self._program = Program(
                self._signals, grace=self._grace, contain=self._contain
            )
            self._signals.listen(asyncio.get_running_loop(), self._receive)
            await program.prepare()
        except CannotStart as error:
            fail(Exit.FAILED, f"{error.strerror}; no seat was asked for")
        self._token_file = TokenFile.make()
        try:
            return await self._with_seat(program, pool, seats, wait, priority)
        finally:
            if self._token_file is not None:
                self._token_file.remove()
            await program.leave()

    async def _with_seat(
        self, program: Program, pool: str, seats: int, wait: float | None, priority: int
    ) -> int:
        waiting = Waiting(pool, tell=write_event if self._at.json else None)
        ttl, margin = lease_for(self._grace)
        client = self._at.claiming_client(self._name, ttl=ttl, safety_margin=margin)
        try:
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
                code = await self._run_under(grant, program)
            finally:
                self._phase = _Phase.ENDED
                await _whatever_happens(grant.release())
        finally:
            await _whatever_happens(client.close())
        if self._interrupted_by is not None and not self._lost.is_set():
            name = name_of(self._interrupted_by)
            self._say(
                {"event": "given_back", "pool": pool, "signal": name},
                f"{self._name} ended after {name}; the seat of {pool} is given back",
            )
        return code

    def _receive(self, received: Received) -> None:
        assert self._task is not None
        assert self._program is not None
        if received.ends_us:
            self._interrupted_by = received.number
        if received.number == signal.SIGCHLD or self._phase is _Phase.RUNNING:
            self._program.receive(received)
        elif received.number in STOPS:
            stop_ourselves(received.number)
        elif received.ends_us:
            if self._phase is _Phase.ENDED:
                # Our user does not want to wait until the service has the seat back.
                self._task.cancel()
            elif self.ended_by is None:
                self.ended_by = received.number
                self._task.cancel()
            else:
                die_of(received.number)

    async def _run_under(self, grant: AsyncGrant, program: Program) -> int:
        from seatkeeper.hold.finding import explain_start
        from seatkeeper.hold.program import CannotStart
        from seatkeeper.hold.surroundings import environment_of

        self._phase = _Phase.RUNNING
        given = {
            "SEATKEEPER_TOKEN": grant.token,
            "SEATKEEPER_POOL": grant.pool,
            "SEATKEEPER_GRANT_ID": grant.grant_id,
            "SEATKEEPER_FENCE": str(grant.fence),
            "SEATKEEPER_SEATS": str(grant.seats),
        }
        if self._write_token(grant.token):
            assert self._token_file is not None
            given["SEATKEEPER_TOKEN_FILE"] = str(self._token_file.path)
        event = {key: getattr(grant, key) for key in ("pool", "grant_id", "fence", "seats")}
        self._say({"event": "granted"} | event)
        # What we have said of the queue is to be seen before what the command says.
        streams.drain()
        publish(program, grant)
        folder = b"" if self._token_file is None else os.fsencode(self._token_file.folder)
        try:
            await program.start(
                [os.fsencode(word) for word in self._command],
                environment_of(given),
                closed=streams.closed_at_start,
                remove=folder,
            )
        except CannotStart as error:
            if not error.errno:
                fail(Exit.FAILED, str(error.strerror))
            fail(*_as_failure(explain_start(self._name, error.errno)))
        keeping = asyncio.create_task(self._keep_fresh(grant, program))
        try:
            return await self._until_the_end(program, grant.pool)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _until_the_end(self, program: Program, pool: str) -> int:
        ended = asyncio.create_task(program.wait())
        lost = asyncio.create_task(self._lost.wait())
        overrun = asyncio.create_task(program.stopped_by_guard.wait())
        await asyncio.wait({ended, lost, overrun}, return_when=asyncio.FIRST_COMPLETED)
        if not (lost.done() or overrun.done()):
            lost.cancel()
            overrun.cancel()
            await self._end(program, ended.result())
            return ended.result()
        self._lost.set()
        # Stopped first, told after: protection does not depend on telling.
        stopping = asyncio.create_task(program.stop(self._grace))
        await asyncio.sleep(0)
        self._say(
            {"event": "lost", "pool": pool},
            f"the seat of {pool} is lost: stopping {self._name} (SIGTERM, and SIGKILL "
            f"after {span(self._grace)})",
        )
        left = await stopping
        if left:
            self._say(
                {"event": "not_stopped", "processes": left},
                f"{left} of the processes of {self._name} could not be stopped (another user's, or "
                "stuck in a device) and may go on without a seat",
            )
        # Not awaited: one that became another user's cannot be stopped by us.
        ended.cancel()
        lost.cancel()
        overrun.cancel()
        return Exit.SEAT_LOST

    async def _end(self, program: Program, code: int) -> None:
        if ended := await program.stop_what_is_left(self._grace):
            self._say(
                {"event": "ended_with_it", "processes": ended},
                f"{self._name} has ended and left {count(ended, 'background job')}, "
                "ended with it (--contain)",
            )
        if program.guard_gone:
            self._say(
                {"event": "guard_killed"},
                f"the guard of {self._name} was killed, so {self._name} was stopped",
            )
        if left := program.left_behind():
            self._say(
                {"event": "left_behind", "processes": left},
                f"{self._name} has ended and left {count(left, 'background job')} running "
                "without the seat",
            )
        self._say({"event": "ended", "exit_code": _as_shells_say(code)})

    async def _keep_fresh(self, grant: AsyncGrant, program: Program) -> None:
        from seatkeeper.core.errors import SeatLost

        while True:
            await asyncio.sleep(TOKEN_POLL_SECONDS)
            try:
                token = grant.token
            except SeatLost:
                # By the clock, which knows also of the time that the machine was suspended.
                self._lost.set()
                return
            publish(program, grant)
            self._write_token(token)

    def _write_token(self, token: str) -> bool:
        """Put a token where the command looks for it; what cannot be done is said, once."""
        where = self._token_file
        why = "no folder has room for it: TMPDIR, /tmp, /var/tmp, XDG_RUNTIME_DIR, /dev/shm"
        if where is not None:
            try:
                where.write(token)
            except OSError as error:
                # The folder may be gone: a program that cleans up too much harms itself alone.
                why = f"{where.path}: {error.strerror}"
            else:
                return True
        if not self._has_no_token_file:
            self._has_no_token_file = True
            self._say(
                {"event": "no_token_file", "error": why},
                f"the file for the token cannot be written ({why}): {self._name} has only the "
                "first token, in SEATKEEPER_TOKEN",
            )
        return False

    _has_no_token_file = False

    def _on_state(self, state: HoldingState) -> None:
        match state.value:
            case "jeopardy":
                self._say(
                    {"event": "jeopardy"},
                    "the seat is in doubt: no node has answered for a while. "
                    f"{self._name} goes on, and will be stopped if that lasts",
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


class _Phase(enum.Enum):
    """What a signal means."""

    WAITING = "there is no program yet"
    RUNNING = "signals are the program's"
    ENDED = "the seat is being given back"


async def _whatever_happens(work: Awaitable[None]) -> None:
    """Give back. The command's exit code is ours, whatever comes of that: the lease ends anyway."""
    with suppress(Exception, asyncio.CancelledError):
        await work


def publish(program: Program, grant: AsyncGrant) -> None:
    """Tell the guard until when it need not act."""
    if (times := grant.lease_times()) is not None:
        program.publish(*times)


def _as_failure(problem: Problem) -> tuple[Exit, str]:
    return Exit.NO_COMMAND if problem.is_missing else Exit.NOT_EXECUTABLE, problem.message


def _as_shells_say(code: int) -> int:
    return code if code >= 0 else 128 - code


def lease_for(grace: float) -> tuple[timedelta | None, timedelta]:
    """Return the lease to ask for, and the margin to keep, so that ``grace`` fits into it.

    The seat counts as lost a margin before another may get it, and the command is gone a grace
    after that. None: the nodes' default will do.
    """
    margin = timedelta(seconds=grace + SLACK_SECONDS)
    return (margin * MARGIN_OF_LEASE if grace > GRACE_SECONDS else None), margin
