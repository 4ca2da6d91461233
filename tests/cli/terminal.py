"""A command at a terminal, as a person at a keyboard has it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from types import TracebackType
from typing import Self

from tests.cli.commands import SCRIPT, SECONDS_MAX, environment


class Terminal:
    """Runs a command in a session of its own, with a new terminal."""

    rows = 50

    def __init__(self, *arguments: str, program: str = str(SCRIPT), **more: str) -> None:
        self._master, line = pty.openpty()
        fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, 120, 0, 0))
        self._seen = b""
        # `setsid --ctty` takes its standard input as the terminal of its new session.
        self._process = subprocess.Popen(
            ["setsid", "--wait", "--ctty", program, *arguments],
            stdin=line,
            stdout=line,
            stderr=line,
            env=environment(TERM="xterm", **more),
        )
        os.close(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The end of a terminal ends what runs in it.
        os.close(self._master)
        try:
            self._process.wait(SECONDS_MAX)
        finally:
            self._process.kill()
            self._process.wait()

    @property
    def seen(self) -> str:
        """Everything that has been on the screen."""
        while select.select([self._master], [], [], 0)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                break  # the other side is closed
            self._seen += data
        return self._seen.decode(errors="replace")

    def shows(self, text: str, times: int = 1) -> None:
        """Wait until ``text`` has been on the screen."""
        deadline = time.monotonic() + SECONDS_MAX
        while self.seen.count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} never came: {self._seen!r}"
            select.select([self._master], [], [], 0.05)

    def type(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def ends(self) -> int:
        """Wait until the command ends by itself, and return its exit code."""
        deadline = time.monotonic() + SECONDS_MAX
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on: {self.seen!r}"
            _ = self.seen
            select.select([self._master], [], [], 0.05)
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command alone, and not to what it runs."""
        # `setsid` has become the command: it forks only where it leads a group.
        os.kill(self._process.pid, number)


class TallTerminal(Terminal):
    """Room for the pools of all tests before this one: a live view ends with the screen."""

    rows = 1000
