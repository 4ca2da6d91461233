"""Every signal that can be caught, handled in one place.

All are blocked before any thread exists, and taken by one thread with ``sigwaitinfo``, which
reports also whether the kernel made a signal (a terminal, a hang-up) or somebody sent it. Blocking
the signals of faults (SEGV, BUS, FPE, ILL) hides no fault: the kernel ends a process that causes
one of its own whether they are blocked or not, and what is taken here is only what somebody sent.

A signal that was ignored when we were started (``nohup``, background jobs of ``sh``) stays ignored,
here and in the command. Python itself ignores PIPE and XFSZ, so those cannot be seen.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

TAKEN = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
PERSON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Those by which people and supervisors end a program."""
OF_TERMINAL = frozenset(
    {
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGHUP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
        signal.SIGWINCH,
    }
)
"""Those that the kernel gives to everyone in a terminal's group."""
STOPS = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
HARMLESS = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})
"""Those that end no process that does not expect them."""
_OF_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
WAKES_MAX = 4096
"""How many signals are read at once; there is one byte for each, and no more are kept."""


@dataclass(frozen=True)
class Received:
    """A signal that arrived here."""

    number: int
    from_kernel: bool
    """Whether no process sent it: a terminal made it, a timer, or a limit."""

    @property
    def ends_us(self) -> bool:
        """Whether it is meant to end a program that does not expect it."""
        return self.number not in STOPS and self.number not in HARMLESS


class Signals:
    """Takes our signals, and hands them to the event loop."""

    def __init__(self) -> None:
        """Block them. To be made before any other thread is."""
        self.ignored = tuple(
            int(number)
            for number in sorted(TAKEN - _OF_PYTHON)
            if signal.getsignal(number) is signal.SIG_IGN
        )
        # A parent that ignores it would leave us without our children's exit codes.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        taken = {int(number) for number in TAKEN} - {*self.ignored}
        self._taken = taken | {int(signal.SIGCHLD)}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)
        self.blocked = tuple(sorted(int(number) for number in before))
        """Those that were blocked when we were started: they are in the command, too."""

    def listen(
        self, loop: asyncio.AbstractEventLoop, notify: Callable[[Received], None]
    ) -> None:
        """Call ``notify`` in ``loop`` for each signal, for as long as the process lives."""
        threading.Thread(target=self._take, args=(loop, notify), daemon=True).start()

    def _take(
        self, loop: asyncio.AbstractEventLoop, notify: Callable[[Received], None]
    ) -> None:
        while True:
            info = signal.sigwaitinfo(self._taken)
            try:
                loop.call_soon_threadsafe(notify, Received(info.si_signo, info.si_code > 0))
            except RuntimeError:
                return  # the loop is closed: we are at the end


def caught(*numbers: signal.Signals) -> list[signal.Signals]:
    """Return those of ``numbers`` that may be caught: what was ignored at our start stays so."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let a signal that has a handler wake ``loop``, which runs on the main thread.

    The interpreter calls a handler of `signal.signal` at its next step. A loop that was about to
    sleep, or whose signal the kernel gave to another thread, takes none until something else wakes
    it: `SIGINT` would be taken with the next event, and where none comes, never.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        loop.add_reader(reader, reader.recv, WAKES_MAX)
        try:
            yield
        finally:
            loop.remove_reader(reader)
            signal.set_wakeup_fd(before)


def wait_for_child(
    child: int, forward: Callable[[int], None], numbers: list[signal.Signals]
) -> int:
    """Wait until ``child`` has ended, and return what `os.waitpid` says of it.

    Each of ``numbers``, which the caller has blocked along with ``SIGCHLD`` before it forked, is
    handed to ``forward``; they are taken one by one, so none falls between two steps.
    """
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended == child:
            return status
        number = signal.sigwait({*numbers, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            forward(number)


def stop_ourselves(number: int) -> None:
    """Do what a signal of job control does to who does not catch it: stop, until CONT."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    # To this thread: another waits for it, and would take it. It stops all of them.
    signal.pthread_kill(threading.get_ident(), number)
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
