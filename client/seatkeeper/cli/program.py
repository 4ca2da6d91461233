"""A program that runs while we hold a seat: started, listened to, stopped with all it started.

Theory of operation
-------------------
*Terminal.* With a controlling terminal the program stays in our process group. Then job control
works as if we were not there, also in a pipeline, and Ctrl-C and Ctrl-Z reach the program
once, from the kernel. So such a signal must not be forwarded, and one that somebody *sent* to us
must be: `sigwaitinfo` tells them apart. Without a terminal the program gets a group of its own,
and every signal is forwarded. What is sent to our whole group by a person arrives twice.

*Signals.* All of `FORWARDED` are blocked before any thread exists and taken by one thread. A signal
that was ignored when we were started (``nohup``) stays ignored, here and in the program.

*Stopping.* We are the reaper of orphans, so whatever the program started, however deep and
in whatever group, stays our descendant, and is found and stopped when the seat is lost.

*Our own death.* The kernel kills the program when we die without a chance to do it; what the
program itself started is beyond that.

All of this is Linux.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.cli.exits import Exit

PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.02
KILL_SECONDS_MAX = 5.0
"""How long the kernel has to carry out a SIGKILL; a process may be stuck in a device."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FORWARDED = (*ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH)

# Python has no safe way to run anything between fork and exec while there are threads, so a small
# program does what must be done there, and becomes the program. Python ignores SIGPIPE; programs
# expect it to end them.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, ignored, command = int(sys.argv[1]), sys.argv[2].split(), sys.argv[3:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit(1)
for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
    if str(int(number)) not in ignored:
        signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
try:
    os.execvp(command[0], command)
except OSError as error:
    print(f"seatkeeper: {command[0]}: {error.strerror}", file=sys.stderr)
    sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
"""


@dataclass(frozen=True)
class Received:
    """A signal that arrived here."""

    number: int
    from_kernel: bool
    """Whether the terminal made it, and so gave it to everyone in our group."""


class Signals:
    """Takes our signals, and hands them to the event loop."""

    def __init__(self) -> None:
        """Block them. To be made before any other thread is."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.ignored = tuple(
            number for number in FORWARDED if signal.getsignal(number) is signal.SIG_IGN
        )
        self._taken = {*FORWARDED, signal.SIGCHLD} - {*self.ignored}
        signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)

    def listen(self, loop: asyncio.AbstractEventLoop, tell: Callable[[Received], None]) -> None:
        """Call ``tell`` in ``loop`` for each signal, for as long as the process lives."""
        threading.Thread(target=self._take, args=(loop, tell), daemon=True).start()

    def _take(self, loop: asyncio.AbstractEventLoop, tell: Callable[[Received], None]) -> None:
        while True:
            info = signal.sigwaitinfo(self._taken)
            try:
                loop.call_soon_threadsafe(tell, Received(info.si_signo, info.si_code > 0))
            except RuntimeError:
                return  # the loop is closed: we are at the end


class Program:
    """A program under a seat."""

    def __init__(self, pid: int, *, shares_our_group: bool) -> None:
        self.pid = pid
        self._shares_our_group = shares_our_group
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ending: int | None = None

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], signals: Signals
    ) -> Program:
        """Start ``command`` with our files and terminal as they are."""
        adopt_orphans()
        shared = has_terminal()
        launcher = launched(command, ignored=signals.ignored)
        if shared:
            pid = os.posix_spawn(sys.executable, launcher, environment)
        else:
            pid = os.posix_spawn(sys.executable, launcher, environment, setpgroup=0)
        return cls(pid, shares_our_group=shared)

    async def wait(self) -> int:
        """Return the exit code: the program's own, or 128 + n when signal n ended it."""
        return await asyncio.shield(self._status)

    def receive(self, received: Received) -> None:
        """Pass on a signal that arrived here, or take note of what has ended."""
        if received.number == signal.SIGCHLD:
            self._reap()
            return
        if self._shares_our_group and received.from_kernel:
            return
        if received.number in ENDING:
            self._ending = received.number
        if not self._status.done():
            send(self.pid, received.number)

    async def stop(self, grace: float) -> None:
        """Stop the program and all that it started: ask, wait for ``grace`` seconds, kill."""
        await _stop(descendants, signal.SIGTERM, grace)

    async def stop_what_is_left(self, grace: float) -> None:
        """Pass a signal that ended the program on to those in its group that it left behind.

        A shell dies of SIGTERM and leaves its command running. Daemons, in groups of their own,
        are meant to stay.
        """
        if self._ending is not None:
            await _stop(self._left_behind, self._ending, grace)

    def _left_behind(self) -> list[int]:
        group = os.getpgrp() if self._shares_our_group else self.pid
        return [pid for pid in descendants() if _group_of(pid) == group]

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid and not self._status.done():
                code = os.waitstatus_to_exitcode(status)
                self._status.set_result(code if code >= 0 else 128 - code)


def launched(command: Sequence[str], *, ignored: Sequence[int] = ()) -> list[str]:
    """Return what to start in place of ``command``, so that it dies when we do.

    To be started from a thread that lives as long as we do: the kernel counts threads.
    """
    numbers = " ".join(str(int(number)) for number in ignored)
    launcher = (sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), numbers)
    return [*launcher, *command]


def find_program(name: str) -> tuple[Exit, str] | None:
    """Return why ``name`` cannot be run, as a shell would; None when it can."""
    if os.sep in name:
        places = [Path(name)]
    else:
        places = [Path(folder or ".", name) for folder in os.get_exec_path()]
    found = [place for place in places if place.is_file()]
    if not found:
        if any(place.is_dir() for place in places) and os.sep in name:
            return Exit.NOT_EXECUTABLE, f"{name}: is a folder"
        return Exit.NO_COMMAND, f"{name}: command not found"
    if not any(os.access(place, os.X_OK) for place in found):
        return Exit.NOT_EXECUTABLE, f"{name}: not executable (chmod +x?)"
    return None


def has_terminal() -> bool:
    """Return whether a terminal controls us, wherever our input and output go."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def adopt_orphans() -> None:
    """Become the parent of whatever our descendants leave behind."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def send(pid: int, number: int) -> None:
    """Send a signal to a child that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        # Gone; or it became another user's (sudo), and is not ours to stop.
        return


def descendants() -> list[int]:
    """Return the processes that we and ours started and that still run."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name may hold anything, also blanks and brackets; what follows it does not.
            state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(entry.name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


async def _stop(find: Callable[[], list[int]], ask_with: int, grace: float) -> None:
    loop = asyncio.get_running_loop()
    for pid in find():
        send(pid, ask_with)
        send(pid, signal.SIGCONT)
    deadline = loop.time() + grace
    while find():
        if loop.time() >= deadline:
            for pid in find():
                send(pid, signal.SIGKILL)
        if loop.time() >= deadline + KILL_SECONDS_MAX:
            return
        await asyncio.sleep(POLL_SECONDS)
