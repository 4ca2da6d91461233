"""A program that runs while we hold a seat: started, listened to, stopped with all it started.

Theory of operation
-------------------
*Terminal.* With a controlling terminal the program stays in our process group. Then job control
works as if we were not there, also in a pipeline, and Ctrl-C and Ctrl-Z reach the program
once, from the kernel. So such a signal must not be forwarded, and one that somebody *sent* to us
must be: `signals` tells them apart. Without a terminal the program gets a group of its own,
and every signal is forwarded. What is sent to our whole group by a person arrives twice.

*The guard* (`guard`) is between us and the program: it starts it, and stops it when we are gone,
stopped, or stuck beyond the lease. We tell it until when the seat may be believed in, by shared
memory. It is the one who stops; we do it ourselves only when it is gone or does not answer. A guard
that is stopped is told to go on; one that is killed takes the program along, and we stop what is
left: we are a reaper of orphans, too.

All of this is Linux.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from seatkeeper.hold.guard import Order, pack_lease
from seatkeeper.hold.linux import adopt_orphans, open_process, send, since_boot
from seatkeeper.hold.signals import (
    OF_TERMINAL,
    PERSON,
    STOPS,
    TAKEN,
    Received,
    Signals,
    stop_ourselves,
)
from seatkeeper.hold.stopping import (
    KILL_SECONDS_MAX,
    POLL_SECONDS,
    Stopping,
    descendants,
    reap,
    running,
)

READY_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 0.5
"""How long the guard may take to say that it stops; it shares the lease's margin with the grace."""
END_SECONDS_MAX = 5.0
"""How long after the program's end the guard may take to tell its exit code."""
READ_BYTES = 1 << 16

_GUARD = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from seatkeeper.hold.guard import main; main()"
)
_ROOT = str(Path(__file__).parents[2])


class CannotStart(OSError):
    """The command cannot be executed, or the guard cannot be started; ``errno`` says why."""


class Program:
    """A program under a guard, and so under a seat."""

    def __init__(self, signals: Signals, *, grace: float) -> None:
        """``grace``: what the program has to end by itself, also when nobody asks us."""
        self._signals = signals
        self._grace = grace
        self._shares_our_group = has_terminal()
        self._lease = os.memfd_create("seatkeeper-lease")
        self._guard = 0
        self._socket: socket.socket | None = None
        self._unread = b""
        self._words: dict[str, asyncio.Future[str]] = {}
        self._pid = 0
        self._pidfd: int | None = None
        self._ending: int | None = None
        self._pending: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = self._loop.create_future()
        self.stopped_by_guard = asyncio.Event()
        """Set when the guard stopped the program without being asked: the lease was over."""
        self.guard_gone = False

    @property
    def pid(self) -> int:
        """The program's process id; 0 before it is started."""
        return self._pid

    async def prepare(self) -> None:
        """Start the guard; raises `CannotStart`. Everything that can fail early, fails here."""
        adopt_orphans()
        ours, theirs = socket.socketpair()
        try:
            self._spawn(theirs.fileno())
        except OSError as error:
            ours.close()
            raise CannotStart(
                error.errno, f"cannot start the guard: {error.strerror}"
            ) from None
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket, self._words, self._unread = ours, {}, b""
        self._loop.add_reader(ours, self._hear)
        if await self._word("ready", READY_SECONDS_MAX) is None:
            raise CannotStart(0, "cannot start the guard: it ended, or does not answer")

    def publish(self, until: float, ends: float) -> None:
        """Say until when the seat may be believed in, and when another may have it."""
        with suppress(OSError):
            os.pwrite(self._lease, pack_lease(until, ends), 0)

    async def start(
        self,
        command: Sequence[bytes],
        environment: Mapping[bytes, bytes],
        *,
        closed: tuple[int, ...] = (),
        remove: bytes = b"",
    ) -> None:
        """Start ``command`` with our files and terminal as they are; raises `CannotStart`.

        ``closed``: standard streams that it finds closed. ``remove``: a folder to remove should
        we die.
        """
        if self.guard_gone:
            self.guard_gone = False
            await self.prepare()
        order = Order(
            list(command),
            dict(environment),
            own_group=not self._shares_our_group,
            closed=closed,
            ignored=self._signals.ignored,
            blocked=self._signals.blocked,
            remove=remove,
        ).packed()
        assert self._socket is not None
        try:
            await self._loop.sock_sendall(
                self._socket, f"start {len(order)}\n".encode() + order
            )
        except OSError as error:
            raise CannotStart(error.errno, "the guard ended") from None
        forked = await self._word("forked", READY_SECONDS_MAX)
        if not forked:
            raise CannotStart(0, "the guard ended, or does not answer")
        self._pid = int(forked)
        # It runs nothing of its own yet, so the number is surely its.
        self._pidfd = open_process(self._pid)
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._on_seen_to_end)
        outcome = asyncio.ensure_future(self._word("started", READY_SECONDS_MAX))
        self._say("go")
        failure = await outcome
        if failure not in (None, "", "started"):
            raise CannotStart(int(failure), os.strerror(int(failure)))
        pending, self._pending = self._pending, []
        for number in pending:
            self._forward(number)

    async def wait(self) -> int:
        """Return how it ended: its exit code, or -n when signal n ended it."""
        return await asyncio.shield(self._status)

    def receive(self, received: Received) -> None:
        """Pass on a signal that arrived here, or take note of what has ended."""
        number = received.number
        if number == signal.SIGCHLD:
            self._look_after_children()
            return
        shared = self._shares_our_group
        if received.from_kernel and number in OF_TERMINAL and shared:
            if number in STOPS:
                stop_ourselves(number)
            elif number == signal.SIGHUP and os.getsid(0) == os.getpid():
                # Of a hang-up, the kernel tells the session's leader alone.
                self._forward(number)
            return
        if received.ends_us:
            self._ending = number
        self._forward(number)
        if number in STOPS and shared:
            # The shell that waits for us is to see that its job has stopped.
            stop_ourselves(number)

    async def stop(self, grace: float) -> int:
        """Stop the program and all that it started: ask, wait for ``grace`` seconds, kill.

        Returns how many could not be stopped.
        """
        if not self.guard_gone:
            # Somebody may have stopped it.
            send(self._guard, signal.SIGCONT)
            stopped = asyncio.ensure_future(
                self._word("stopped", grace + KILL_SECONDS_MAX + END_SECONDS_MAX)
            )
            stopping = asyncio.ensure_future(self._word("stopping", ANSWER_SECONDS_MAX))
            self._say(f"stop {int(grace * 1000)}")
            if self.stopped_by_guard.is_set() or await stopping is not None:
                left = await stopped
                if left is not None:
                    return int(left or 0)
            stopped.cancel()
            await self._end_guard()
        return await self._stop_it_ourselves(grace)

    async def stop_what_is_left(self, grace: float) -> None:
        """Pass a signal that ended the program on to those in its group that it left behind.

        A shell dies of SIGTERM and leaves its command running. Daemons, in groups of their own,
        are meant to stay, and so is all that is left when the program has caught a signal that
        tells it something (SIGUSR1), gone on, and ended later. A program whose guard is gone was
        killed, and nothing of it stays.
        """
        if self.guard_gone:
            await self._stop_it_ourselves(grace)
        elif self._ending in PERSON or (self._ending and await self.wait() == -self._ending):
            swept = asyncio.ensure_future(
                self._word("swept", grace + KILL_SECONDS_MAX + END_SECONDS_MAX)
            )
            self._say(f"sweep {self._ending} {int(grace * 1000)}")
            await swept

    def left_behind(self) -> int:
        """Return how many processes the program has left, as far as ``/proc`` tells."""
        return len(running(pid for pid in descendants() or () if pid != self._guard))

    async def leave(self) -> None:
        """Let the guard go, and what still runs; the program has ended, or was never started."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._say("end")
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        os.close(self._lease)

    # The guard -------------------------------------------------------------------------------

    def _spawn(self, control: int) -> None:
        environment = {k: v for k, v in os.environb.items() if not k.startswith(b"PYTHON")}
        numbers = (control, self._lease, os.getpid(), int(self._grace * 1000), os.getpgrp())
        words = (sys.executable, "-I", "-S", "-c", _GUARD, _ROOT, *map(str, numbers))
        for descriptor in (control, self._lease):
            os.set_inheritable(descriptor, True)
        try:
            self._guard = os.posix_spawn(sys.executable, words, environment, setsigmask=TAKEN)
        finally:
            os.set_inheritable(self._lease, False)

    def _say(self, line: str) -> None:
        if self._socket is None or self.guard_gone:
            return
        with suppress(OSError):
            self._socket.send(line.encode() + b"\n")

    async def _word(self, name: str, seconds_max: float) -> str | None:
        """Wait until the guard says ``name``; None: it is gone, or does not in time."""
        if self.guard_gone:
            return None
        word = self._words.setdefault(name, self._loop.create_future())
        try:
            return await asyncio.wait_for(asyncio.shield(word), seconds_max)
        except (TimeoutError, ConnectionError):
            return None

    def _hear(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            self._on_guard_gone()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            name, _, value = line.decode().partition(" ")
            self._take(name, value)

    def _take(self, name: str, value: str) -> None:
        match name:
            case "ended":
                self._ended(int(value))
            case "failed":
                name = "started"
            case "started":
                value = "started"
            case "stopping" if "stopping" not in self._words:
                self.stopped_by_guard.set()
        word = self._words.setdefault(name, self._loop.create_future())
        if not word.done():
            word.set_result(value)

    def _on_guard_gone(self) -> None:
        if self.guard_gone:
            return
        self.guard_gone = True
        for word in self._words.values():
            if not word.done():
                word.set_exception(ConnectionError("the guard is gone"))
                word.exception()  # whoever waits has it; nobody may
        if self._pid and not self._status.done():
            # The kernel has killed it. Its exit code comes to us as its new parent.
            self._loop.call_later(END_SECONDS_MAX, self._ended, signal.SIGKILL)
        self._look_after_children()

    async def _end_guard(self) -> None:
        send(self._guard, signal.SIGKILL)
        deadline = since_boot() + END_SECONDS_MAX
        while not self.guard_gone and since_boot() < deadline:
            self._look_after_children()
            await asyncio.sleep(POLL_SECONDS)
        self.guard_gone = True

    # Processes -------------------------------------------------------------------------------

    def _forward(self, number: int) -> None:
        if self._status.done():
            return
        if not self._pid:
            self._pending.append(number)
            return
        send(self._pid, number, descriptor=self._pidfd)

    def _look_after_children(self) -> None:
        reap(self._on_reaped)
        if self._guard and not self.guard_gone:
            with suppress(OSError):
                if os.waitid(os.P_PID, self._guard, os.WSTOPPED | os.WNOHANG):
                    send(self._guard, signal.SIGCONT)

    def _on_reaped(self, pid: int, status: int) -> None:
        if pid == self._pid:
            self._ended(status)
        elif pid == self._guard:
            self._guard = 0
            self._on_guard_gone()

    def _ended(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(os.waitstatus_to_exitcode(status))

    def _on_seen_to_end(self) -> None:
        """Learn from the kernel that the program has ended; the guard tells how."""
        assert self._pidfd is not None
        self._loop.remove_reader(self._pidfd)
        if not self._status.done():
            self._loop.call_later(END_SECONDS_MAX, self._miss_the_guard)

    def _miss_the_guard(self) -> None:
        # It hangs. Without it, the exit code comes to us.
        if not self._status.done() and self._guard:
            send(self._guard, signal.SIGKILL)

    async def _stop_it_ourselves(self, grace: float) -> int:
        stopping = Stopping(
            now=since_boot(), grace=grace, ask_with=signal.SIGTERM, first_pid=self._pid
        )
        while not stopping.step(since_boot()):
            await asyncio.sleep(POLL_SECONDS)
            reap(self._on_reaped)
        return stopping.left


def has_terminal() -> bool:
    """Return whether a terminal controls us, wherever our input and output go."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
