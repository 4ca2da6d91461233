"""Programs that hold seats, as processes: what is done to them must not be done to the tests."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import processes

from seatkeeper.core.clock import SystemClock, set_default_clock

DEADLINE_SECONDS = 60.0

_PREAMBLE = """
import asyncio, ctypes, os, signal, sys, threading, time
from datetime import timedelta
from seatkeeper.client import *
from seatkeeper.client.helper import present as links

ADDRESS = sys.argv[1]
LIBC = ctypes.PyDLL(None)  # calls keep the interpreter, as badly written extensions do

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def wait_input():
    return sys.stdin.readline().strip()

def helper():
    return links.running().helper_pid

def settled(seats, seconds=20):
    # A renewal that is late on a busy machine is a doubt, and no loss.
    deadline = time.monotonic() + seconds
    while seats.state.value == "jeopardy" and time.monotonic() < deadline:
        time.sleep(0.05)
    return seats.state.value

def ttl(seconds, **more):
    return ClientConfig(ttl=timedelta(seconds=seconds), **more)

def ends_well(child, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"
"""


class Program:
    """A script in a process of its own. It writes lines, and reads lines."""

    def __init__(
        self,
        script: str,
        *arguments: str,
        flags: tuple[str, ...] = (),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        before: str = "",
    ) -> None:
        source = _PREAMBLE + textwrap.dedent(script)
        command = [sys.executable, *flags, "-c", source, *arguments]
        if before:
            # Not between fork and exec of this process, which runs gRPC.
            first = f"import os, resource, signal, sys\n{before}\nos.execv(sys.argv[1], sys.argv[1:])"
            command = [sys.executable, "-c", first, *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """Return the next line that it says."""
        line = self.lines.get(timeout=DEADLINE_SECONDS)
        assert line is not None, "the program ended: " + "".join(self.errors)
        return line

    def answer(self) -> str:
        """Return the next line that is not about a doubt, or its end: those come on busy machines."""
        while (line := self.line()) in ("state jeopardy", "state safe"):
            pass
        return line

    def notify(self, line: str = "") -> None:
        """Say a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(DEADLINE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None and stream is self.process.stdin:
                stream.close()
        for reader in self._readers:
            reader.join(5)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.errors += lines


wait_until = processes.until


@contextmanager
def real_clock() -> Iterator[None]:
    """Let clients made here count by the machine's clock, so that a helper may keep their sessions.

    Beside a service in memory they would count by one that tests move.
    """
    before = set_default_clock(SystemClock())
    try:
        yield
    finally:
        set_default_clock(before)


is_stopped = processes.is_stopped


def is_gone(pid: int) -> bool:
    """Return whether a process has ended."""
    return not processes.is_running(pid)
