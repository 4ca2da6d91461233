"""One node or agent as a child process, with a log file and a bounded stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from seatkeeper.devcluster.launch import launched

POLL_SECONDS = 0.1
LOG_LINES_SHOWN = 5


class Service:
    """A process of ours: a node or the agent, started by its command line. It dies with us."""

    def __init__(self, name: str, log: Path, command: Sequence[str]) -> None:
        """Start ``seatkeeper COMMAND``; its output is added to ``log``."""
        self.name = name
        self.log = log
        arguments = (sys.executable, "-P", "-m", "seatkeeper.cli", *command)
        # Settings for other nodes that the user has in the environment are not for these.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SEATKEEPER_")
        }
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                launched(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def reload(self) -> None:
        """Have it read its settings again."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join(f"  {line}" for line in lines)

    async def stop(self, at_once: asyncio.Event, seconds_max: float) -> None:
        """End it: ask, wait, kill. ``at_once`` ends the waiting."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + seconds_max
        while self._process.poll() is None:
            if at_once.is_set() or asyncio.get_running_loop().time() >= deadline:
                self._process.kill()
                self._process.wait()
                return
            await asyncio.sleep(POLL_SECONDS)
