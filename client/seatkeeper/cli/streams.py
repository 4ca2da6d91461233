"""The standard streams, as whatever started us left them: closed, full, broken, stopped.

Three promises, to every command:

- *Standard error never fails.* A message is written there if it can be; nothing that we do for a
  seat depends on it. For commands that hold a seat it does not block either (`hold_nothing_up`): a
  reader that has stopped reading gets what fits.
- *Standard output fails in one way*: `OutputFailed`, for it is what a command was asked for.
- *Numbers 0 to 2 are never anything else.* A stream that was closed is opened so that its use fails, as
  if it were closed still; otherwise the next socket would become standard output.
"""

from __future__ import annotations

import collections
import io
import os
import select
import sys
import threading
import time
from contextlib import suppress
from typing import Any

STANDARD = (0, 1, 2)
WAIT_SECONDS = 1.0
"""How long a stream that takes nothing now is waited for, where others set it to not block."""
DRAIN_SECONDS = 0.3
"""How long pending messages may take to be read, before we go on or end."""
PENDING_MAX = 1000
"""Pieces that wait for a reader that has stopped; more are dropped."""


class OutputFailed(OSError):
    """Standard output took not all of a result."""


class _Output(io.FileIO):
    """Standard output, whose failures have a name, and which may be set to not block."""

    def write(self, data: Any) -> int:  # noqa: ANN401  # as its base class has it
        try:
            while (written := super().write(data)) is None:
                _wait_for_room(self.fileno(), None)
        except OSError as error:
            raise OutputFailed(error.errno, error.strerror) from error
        return written


class Words(io.TextIOBase):
    """Standard error: takes everything, and forwards what can be forwarded."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int = 2, encoding: str = "utf-8") -> None:
        self._descriptor = descriptor
        self.encoding = encoding
        self._reported: collections.deque[bytes] = collections.deque(maxlen=PENDING_MAX)
        self._updated = threading.Condition()
        self._writer: threading.Thread | None = None
        self._is_writing = False

    def writable(self) -> bool:
        """Return that it can be written to: always."""
        return True

    def fileno(self) -> int:
        """Return 2."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether a person reads at a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def write(self, text: str) -> int:
        """Pass ``text`` on. Never raises."""
        data = text.encode(self.encoding, self.errors)
        if self._writer is None:
            _write(self._descriptor, data)
            return len(text)
        with self._updated:
            self._reported.append(data)
            self._updated.notify_all()
        return len(text)

    def hold_nothing_up(self) -> None:
        """From now on write on a thread of its own: a writer does not wait for a reader."""
        if self._writer is None:
            self._writer = threading.Thread(target=self._notify, daemon=True)
            self._writer.start()

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Wait until all is written, but not long."""
        deadline = time.monotonic() + seconds
        with self._updated:
            while self._reported or self._is_writing:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._updated.wait(left)

    def _notify(self) -> None:
        while True:
            with self._updated:
                self._is_writing = False
                self._updated.notify_all()
                while not self._reported:
                    self._updated.wait()
                self._is_writing = True
                data = self._reported.popleft()
            _write(self._descriptor, data)


closed_at_start: tuple[int, ...] = ()
"""Which of the streams were closed when we were started."""


def set_up() -> None:
    """Make the streams keep their promises.

    Streams that somebody put in place of the process's own (tests) are left alone.
    """
    global closed_at_start  # one command a process
    closed_at_start = _reopen()
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # stays open as long as the process
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        old = sys.stdout
        interactive = os.isatty(1)
        raw = _Output(1, "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=getattr(old, "encoding", None) or "utf-8",
            errors="surrogateescape" if old is None else old.errors,
            line_buffering=interactive,
        )
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        # One that flushes the old one at exit finds nothing in it.
        sys.stderr = Words(2, getattr(sys.stderr, "encoding", None) or "utf-8")


def hold_nothing_up() -> None:
    """From now on, do not wait for a reader of standard error."""
    if isinstance(sys.stderr, Words):
        sys.stderr.hold_nothing_up()


def drain() -> None:
    """Give the reader of standard error a moment: before the command writes there, or at the end."""
    if isinstance(sys.stderr, Words):
        sys.stderr.drain()


def give_up_output() -> None:
    """See to it that nothing more is written to standard output, also not at exit."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    with suppress(OSError, ValueError):
        sys.stdout.flush()


def _reopen() -> tuple[int, ...]:
    """Open what is closed of the standard streams: the wrong way round, so that its use fails."""
    closed = []
    for standard in STANDARD:
        try:
            os.fstat(standard)
        except OSError:
            closed.append(standard)
    for standard in closed:
        opened = os.open(os.devnull, os.O_WRONLY if standard == 0 else os.O_RDONLY)
        if opened != standard:
            os.dup2(opened, standard)
            os.close(opened)
        os.set_inheritable(standard, True)
    return tuple(closed)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            if not _wait_for_room(descriptor, WAIT_SECONDS):
                return
        except OSError:
            # Closed, full, broken: no reader is left.
            return


def _wait_for_room(descriptor: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
