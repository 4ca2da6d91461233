"""Runs a command while a seat is held, from the queue to the exit code.

`SeatRunner` knows neither a command line nor a terminal: it takes a `RunConfig`, reports `Event` values
to a callback, returns an `Outcome`, and raises `RunFailed` where there is nothing to return. The order
matters. What can fail without a seat fails before one is asked for. When the seat is lost, the command
is stopped first and the loss reported after: protection does not depend on a reader. The seat is given
back whatever ends the command.

Signals arrive through `hold.signals`. While the command runs they are its own; before and after, one
that ends programs cancels the wait, and `SeatRunner.ended_by` says which it was.
"""

from __future__ import annotations

import asyncio
import enum
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from seatkeeper.hold.finding import Problem, explain_start
from seatkeeper.hold.program import CannotStart, Program
from seatkeeper.hold.signals import STOPS, Received, Signals, stop_ourselves
from seatkeeper.hold.surroundings import TokenFile, environment_of

if TYPE_CHECKING:
    from seatkeeper.client import AsyncGrant, AsyncSeatClient, HoldingState, QueuePosition
    from seatkeeper.client.session.grants import PlainTerms

GRACE_SECONDS = 2.0
"""Fits into the safety margin of the nodes' default lease of 15 s."""
MARGIN_OF_LEASE = 4
"""The client takes at most this part of a lease as its margin."""
SLACK_SECONDS = 1.0
"""What the margin covers beside the grace."""
TOKEN_POLL_SECONDS = 0.2
NO_ROOM = "no folder has room for it: TMPDIR, /tmp, /var/tmp, XDG_RUNTIME_DIR, /dev/shm"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What is run, and under which seat."""

    command: list[str]
    pool: str
    others: Mapping[str, float] = field(default_factory=dict)
    """Pools that will do as well, in the order of preference, after so many seconds."""
    seats: int = 1
    together: Mapping[str, int] = field(default_factory=dict)
    """Seats of other pools that are granted and held together with these, by pool."""
    take_over: str | None = None
    """The grant whose seats are taken over, and what they are for; empty: seats are asked for."""
    terms: PlainTerms = field(default_factory=dict)  # type: ignore[assignment]  # no term is required
    """What else is asked of the seat: see `seatkeeper.client.AsyncSeatClient.seat`."""
    grace: float = GRACE_SECONDS
    """Seconds between SIGTERM and SIGKILL after the seat is lost."""
    contain: bool = False
    """Run the command in a PID namespace, so that nothing it starts outlives it."""
    reclaim_signal: int | None = None
    """Sent to the command when the seat is called back. None: SIGUSR1, if the command handles it; 0:
    none is sent."""
    activity: str | None = None
    """A file: when it changes, the command is active. None: nothing is reported of that."""
    closed: tuple[int, ...] = ()
    """Standard streams that were closed at our start, and are to be closed for the command."""


@dataclass(frozen=True)
class Queued:
    """The request has a place in the queue, or another than before."""

    place: QueuePosition


@dataclass(frozen=True)
class WaitEnded:
    """The request waits no more: it was granted, refused or given up."""


@dataclass(frozen=True, kw_only=True)
class Granted:
    """The seat is held. The command starts when the callback has returned."""

    pool: str
    grant_id: str
    fence: int
    seats: int
    longest_hold: float | None = None
    """Seconds after which the pool calls the seat back; None: it does not."""


@dataclass(frozen=True)
class TokenFileFailed:
    """The file for the token cannot be written: the command has only the first token. Sent once."""

    reason: str


@dataclass(frozen=True)
class Noticed:
    """What a node said of the seats when it granted them, for people."""

    notice: str


@dataclass(frozen=True)
class InJeopardy:
    """No node has answered for a while. The command goes on, and is stopped if that lasts."""


@dataclass(frozen=True)
class IsCalledBack:
    """The seat is called back: the command goes on, and is stopped when the notice is over."""

    pool: str
    seconds: float
    """Until then."""
    why: str
    signal: int
    """What was sent to the command; 0: nothing."""


@dataclass(frozen=True)
class SafeAgain:
    """The seat is safe again."""


@dataclass(frozen=True)
class SeatIsLost:
    """The seat is lost; the command is being stopped."""

    grace: float
    why: str = ""
    """As far as it is known, for people; empty: the command's watchdog stopped it."""
    pool: str = ""
    """Of which pool; empty: it is not known."""


@dataclass(frozen=True)
class NotStopped:
    """Some of the command's processes could not be stopped and may go on without a seat."""

    processes: int


@dataclass(frozen=True)
class EndedWithIt:
    """The command ended and left processes, which were ended as well."""

    processes: int


@dataclass(frozen=True)
class WatchdogKilled:
    """The watchdog was killed, so the command was stopped."""


@dataclass(frozen=True)
class LeftBehind:
    """The command ended and left processes that go on without the seat."""

    processes: int


@dataclass(frozen=True)
class CommandEnded:
    """The command ended by itself or by a signal."""

    code: int
    """Its exit code; -n: signal n ended it."""


@dataclass(frozen=True)
class GivenBack:
    """A signal ended the command, and the seat is given back."""

    number: int


Event = (
    Queued
    | WaitEnded
    | Granted
    | TokenFileFailed
    | Noticed
    | InJeopardy
    | IsCalledBack
    | SafeAgain
    | SeatIsLost
    | NotStopped
    | EndedWithIt
    | WatchdogKilled
    | LeftBehind
    | CommandEnded
    | GivenBack
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int | None
    """The command's exit code, or -n for signal n; None: the seat was lost, and the command stopped."""


class RunFailed(Exception):
    """The command was not run; the message says why."""

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        """What is wrong with the command itself, if that is why."""


def lease_for(grace: float) -> tuple[timedelta | None, timedelta]:
    """Return the lease to ask for, and the margin to keep, so that ``grace`` fits into it.

    The seat counts as lost a margin before another may get it, and the command is gone a grace
    after that. None: the nodes' default will do.
    """
    margin = timedelta(seconds=grace + SLACK_SECONDS)
    return (margin * MARGIN_OF_LEASE if grace > GRACE_SECONDS else None), margin


class SeatRunner:
    """One run of one command."""

    def __init__(
        self,
        config: RunConfig,
        connect: Callable[[timedelta | None, timedelta], AsyncSeatClient],
        signals: Signals,
        *,
        notify: Callable[[Event], None],
        die: Callable[[int], object],
    ) -> None:
        """Run nothing yet.

        ``connect`` returns a client for a lease (None: the nodes' default) and a safety margin.
        ``signals`` were blocked before any thread existed. ``notify`` gets each event, in the event
        loop; whatever it raises ends the run. ``die`` ends the process, for a second signal while
        the first is being obeyed.
        """
        self._config = config
        self._connect = connect
        self._signals = signals
        self._notify = notify
        self._die = die
        self._task: asyncio.Task[Outcome] | None = None
        self._program: Program | None = None
        self._phase = _Phase.WAITING
        self._lost = asyncio.Event()
        self._grants: Sequence[AsyncGrant] = ()
        """Those that are held; the first is of the pool that was asked for first."""
        self._active: tuple[int, ...] | None = None
        """What the file of activity was like when it was last looked at."""
        self._called_back = False
        self._token_file: TokenFile | None = None
        self._token_file_failed = False
        self._interrupted_by: int | None = None
        self.ended_by: int | None = None
        """The signal that cancelled the run before there was a program."""

    async def run(self) -> Outcome:
        """Wait for a seat, run the command under it, and give the seat back.

        Raises ``RunFailed``; what the client raises where no seat is had; and ``CancelledError`` when
        a signal ended the wait. May be called once.
        """
        self._task = asyncio.current_task()
        try:
            program = self._program = Program(
                self._signals, grace=self._config.grace, contain=self._config.contain
            )
            self._signals.listen(asyncio.get_running_loop(), self._receive)
            await program.prepare()
        except CannotStart as error:
            raise RunFailed(f"{error.strerror}; no seat was asked for") from error
        self._token_file = TokenFile.make()
        try:
            return await self._with_seat(program)
        finally:
            if self._token_file is not None:
                self._token_file.remove()
            await program.leave()

    async def _with_seat(self, program: Program) -> Outcome:
        config = self._config
        client = self._connect(*lease_for(config.grace))
        try:
            try:
                grants = await self._take(client)
            finally:
                self._notify(WaitEnded())
            try:
                outcome = await self._run_under(grants, program)
            finally:
                self._phase = _Phase.ENDED
                await _whatever_happens(_release(grants))
        finally:
            await _whatever_happens(client.close())
        if self._interrupted_by is not None and not self._lost.is_set():
            self._notify(GivenBack(self._interrupted_by))
        return outcome

    def _on_queued(self, place: QueuePosition) -> None:
        self._notify(Queued(place))

    async def _take(self, client: AsyncSeatClient) -> Sequence[AsyncGrant]:
        config = self._config
        # The command finds a token, from its first moment on.
        if config.take_over is not None:
            taken = await client.take_over(
                config.pool, config.take_over, token=True, on_state=self._on_state
            )
            return [taken]
        if config.together:
            gang = client.gang(
                {config.pool: config.seats, **config.together},
                **config.terms,
                token=True,
                on_queued=self._on_queued,
                on_state=self._on_state,
            )
            grants = await gang.take()
            return [grants[pool] for pool in (config.pool, *config.together)]
        if config.others:
            one_of = client.one_of(
                {config.pool: 0.0, **config.others},
                seats=config.seats,
                **config.terms,
                token=True,
                on_queued=self._on_queued,
                on_state=self._on_state,
            )
            return [*(await one_of.take()).values()]
        acquired = await client.acquire(
            config.pool,
            seats=config.seats,
            **config.terms,
            token=True,
            on_queued=self._on_queued,
            on_state=self._on_state,
        )
        return [acquired]

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
                # The user does not want to wait until the service has the seat back.
                self._task.cancel()
            elif self.ended_by is None:
                self.ended_by = received.number
                self._task.cancel()
            else:
                self._die(received.number)

    async def _run_under(self, grants: Sequence[AsyncGrant], program: Program) -> Outcome:
        self._phase = _Phase.RUNNING
        self._grants, grant = grants, grants[0]
        given = {
            "SEATKEEPER_TOKEN": grant.token,
            "SEATKEEPER_POOL": grant.pool,
            "SEATKEEPER_GRANT_ID": grant.grant_id,
            "SEATKEEPER_FENCE": str(grant.fence),
            "SEATKEEPER_SEATS": str(grant.seats),
        }
        if self._write_tokens():
            assert self._token_file is not None
            given["SEATKEEPER_TOKEN_FILE"] = str(self._token_file.path)
            if len(grants) > 1:
                given["SEATKEEPER_TOKEN_FOLDER"] = str(self._token_file.folder)
        for each in grants:
            self._notify(_granted(each))
            if each.notice:
                self._notify(Noticed(each.notice))
        _publish(program, grant)
        self._note_activity()
        folder = b"" if self._token_file is None else os.fsencode(self._token_file.folder)
        command = self._config.command
        try:
            await program.start(
                [os.fsencode(word) for word in command],
                environment_of(given),
                closed=self._config.closed,
                remove=folder,
            )
        except CannotStart as error:
            if not error.errno:
                raise RunFailed(str(error.strerror)) from error
            problem = explain_start(command[0], error.errno)
            raise RunFailed(problem.message, problem) from error
        if self._called_back:  # before there was a command to notify
            self._notify_of_reclaim()
        keeping = asyncio.create_task(self._keep_fresh(program))
        try:
            return await self._until_the_end(program)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _until_the_end(self, program: Program) -> Outcome:
        ended = asyncio.create_task(program.wait())
        lost = asyncio.create_task(self._lost.wait())
        overrun = asyncio.create_task(program.stopped_by_watchdog.wait())
        await asyncio.wait({ended, lost, overrun}, return_when=asyncio.FIRST_COMPLETED)
        if not (lost.done() or overrun.done()):
            lost.cancel()
            overrun.cancel()
            await self._end(program, ended.result())
            return Outcome(ended.result())
        self._lost.set()
        # The command is stopped before the loss is reported: whatever reports may fail.
        stopping = asyncio.create_task(program.stop(self._config.grace))
        await asyncio.sleep(0)
        self._notify(SeatIsLost(self._config.grace, *_why_lost(self._grants)))
        if left := await stopping:
            self._notify(NotStopped(left))
        # Not awaited: one that became another user's cannot be stopped by us.
        ended.cancel()
        lost.cancel()
        overrun.cancel()
        return Outcome(None)

    async def _end(self, program: Program, code: int) -> None:
        if ended := await program.stop_what_is_left(self._config.grace):
            self._notify(EndedWithIt(ended))
        if program.watchdog_gone:
            self._notify(WatchdogKilled())
        if left := program.left_behind():
            self._notify(LeftBehind(left))
        self._notify(CommandEnded(code))

    async def _keep_fresh(self, program: Program) -> None:
        from seatkeeper.client import SeatLost

        while True:
            await asyncio.sleep(TOKEN_POLL_SECONDS)
            try:
                self._write_tokens()
            except SeatLost:
                # By the clock, which knows also of the time that the machine was suspended.
                self._lost.set()
                return
            _publish(program, self._grants[0])
            self._note_activity()

    def _note_activity(self) -> None:
        """Report that the command is active, when its file has changed; and first of all."""
        if self._config.activity is None:
            return
        try:
            found = os.stat(self._config.activity)
            seen: tuple[int, ...] = found.st_mtime_ns, found.st_size, found.st_ino
        except OSError:
            seen = ()  # not there yet, or not any more
        if seen != self._active:
            self._active = seen
            for grant in self._grants:
                grant.report_activity()

    def _write_tokens(self) -> bool:
        """Put the tokens where the command looks for them; a failure is reported once.

        Raises ``SeatLost``.
        """
        tokens = {grant.pool: grant.token for grant in self._grants}
        where, why = self._token_file, NO_ROOM
        if where is not None:
            try:
                where.write(next(iter(tokens.values())))
                if len(tokens) > 1:
                    where.write_each(tokens)
            except OSError as error:
                # The folder may be gone: a program that cleans up too much harms itself alone.
                why = f"{where.path}: {error.strerror}"
            else:
                return True
        if not self._token_file_failed:
            self._token_file_failed = True
            self._notify(TokenFileFailed(why))
        return False

    def _on_state(self, state: HoldingState) -> None:
        match state.value:
            case "jeopardy":
                self._notify(InJeopardy())
            case "reclaiming":
                self._called_back = True
                self._notify_of_reclaim()
            case "safe":
                self._called_back = False
                self._notify(SafeAgain())
            case "lost":
                self._lost.set()

    def _notify_of_reclaim(self) -> None:
        """Report that the seat is called back, and send the command its signal."""
        program = self._program
        called_back = [
            (each.reclaim.until, each.pool, each.reclaim)
            for each in self._grants
            if each.reclaim is not None
        ]
        if not called_back or program is None or not program.pid:
            return
        _, pool, reclaim = min(called_back, key=lambda each: each[:2])
        chosen = self._config.reclaim_signal
        number = signal.SIGUSR1 if chosen is None else chosen
        sent = bool(number) and program.notify(number, only_if_handled=chosen is None)
        seconds = max(0.0, (reclaim.until - datetime.now(UTC)).total_seconds())
        self._notify(IsCalledBack(pool, seconds, reclaim.message, number if sent else 0))


class _Phase(enum.Enum):
    """What a signal means."""

    WAITING = "there is no program yet"
    RUNNING = "signals are the program's"
    ENDED = "the seat is being given back"


async def _whatever_happens(work: Awaitable[None]) -> None:
    """Give back. The command's exit code is ours, whatever comes of that: the lease ends anyway."""
    with suppress(Exception, asyncio.CancelledError):
        await work


def _publish(program: Program, grant: AsyncGrant) -> None:
    """Publish to the watchdog until when it need not act."""
    if (times := grant.lease_times()) is not None:
        program.publish(*times)


def _granted(grant: AsyncGrant) -> Granted:
    longest = grant.longest_hold
    return Granted(
        pool=grant.pool,
        grant_id=grant.grant_id,
        fence=grant.fence,
        seats=grant.seats,
        longest_hold=None if longest is None else longest.total_seconds(),
    )


async def _release(grants: Sequence[AsyncGrant]) -> None:
    await asyncio.gather(*(grant.release() for grant in grants), return_exceptions=True)


def _why_lost(grants: Sequence[AsyncGrant]) -> tuple[str, str]:
    """Return why seats are lost, and of which pool; empty: it is not known."""
    from seatkeeper.client import SeatLost

    for grant in grants:
        try:
            grant.raise_if_lost()
        except SeatLost as error:
            return str(error).removeprefix(f"{grant.pool}: "), grant.pool
    return "", ""
