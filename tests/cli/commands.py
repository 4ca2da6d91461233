"""The console script as a user runs it, and the nodes that it talks to."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests import processes

from seatkeeper.cli.app import main

SCRIPT = Path(sys.executable).with_name("seatkeeper")
SECONDS_MAX = 20.0
POLL_SECONDS = 0.01


def as_shells_say(code: int) -> int:
    """The exit code as a shell shows it: 128 + n for what died of signal n."""
    return code if code >= 0 else 128 - code


OUTLOOK = ("waiting for", "seatkeeper: expected: ", "seatkeeper: no estimate: ")
"""What commands say before they begin: how long it may take."""


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote, which must be one JSON object and nothing else."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    def check(self, code: int = 0) -> Result:
        """Fail unless it ended so; a failure says why in one line, and shows no traceback.

        What dies of signal n has the exit code 128 + n, as a shell shows it.
        """
        assert as_shells_say(self.code) == code, (
            f"exit code {self.code}, not {code}:\n{self.out}\n{self.err}"
        )
        assert "Traceback" not in self.err
        return self

    def refused(self, code: int) -> str:
        """Return why it refused: the only line that it wrote, but for what it says of waiting."""
        self.check(code)
        assert self.out == ""
        lines = self.err.splitlines()
        (line,) = [line for line in lines if not any(each in line for each in OUTLOOK)]
        assert line.startswith("seatkeeper: ")
        return line


def environment(**more: str) -> dict[str, str]:
    """The environment of a user with no settings but ``more``."""
    # COLUMNS: who runs tests in parallel says how wide the terminal is that we do not have.
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("SEATKEEPER_") and k not in ("COLUMNS", "LINES")
    }
    # As in a shell with the virtual environment: help examples call `seatkeeper` by name.
    kept["PATH"] = f"{SCRIPT.parent}{os.pathsep}{kept['PATH']}"
    return kept | more


def seatkeeper(
    *arguments: str, stdin: str | None = None, environ: Mapping[str, str] | None = None
) -> Result:
    """Run a command to its end."""
    done = subprocess.run(
        [SCRIPT, *arguments],
        capture_output=True,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        text=True,
        timeout=60,
        env=environment(**(environ or {})),
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def in_process(
    *arguments: str, stdin: str | None = None, environ: Mapping[str, str] | None = None
) -> Result:
    """Run a command in this process: quicker, for what commands do, and for ways to be refused."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO((stdin or "").encode()))),
        mock.patch.object(sys, "argv", ["seatkeeper", *arguments]),
        mock.patch.dict(os.environ, environment(**(environ or {})), clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return Result(int(ended.value.code), out.getvalue(), err.getvalue())


@contextmanager
def started(
    *arguments: str, folder: Path, cwd: Path | None = None, **more: str
) -> Iterator[Running]:
    """Run a command beside the test; it is killed at the end if it still runs."""
    out, err = folder / "out.txt", folder / "err.txt"
    # Appended to: several programs write to one file here, and none may write over another.
    for file in (out, err):
        file.write_bytes(b"")
    with out.open("ab") as out_file, err.open("ab") as err_file:
        process = subprocess.Popen(
            [SCRIPT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            cwd=cwd,
            env=environment(**more),
            # Without a terminal, as in CI, wherever the tests are run.
            start_new_session=True,
        )
    try:
        yield Running(process, out, err)
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Running:
    """A command that runs beside the test."""

    process: subprocess.Popen[bytes]
    out_file: Path
    err_file: Path

    @property
    def out(self) -> str:
        """What it has written so far."""
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        """What it has complained so far."""
        return self.err_file.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it alone."""
        self.process.send_signal(number)

    def says(self, text: str, times: int = 1, seconds_max: float = SECONDS_MAX) -> None:
        """Wait until it has written ``text`` so many times, on either side."""

        def said() -> bool:
            return (self.out + self.err).count(text) >= times

        try:
            eventually(said, f"{text!r}", seconds_max)
        except AssertionError as late:
            ended = self.process.poll()
            message = f"{late}; it wrote {self.out!r} and {self.err!r}, and ended with {ended}"
            raise AssertionError(message) from None

    def ends(self, within: float = SECONDS_MAX) -> Result:
        """Wait until it ends by itself, at most so many seconds."""
        code = self.process.wait(within)
        return Result(code, self.out, self.err)


eventually = processes.until


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Running]:
    """Run a node on the memory store; `address_of` returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ("serve", "--store", "memory", "--listen", "127.0.0.1:0", *flags)
    with started(*arguments, folder=folder) as running:
        running.says('"serving"')
        yield running


def address_of(running: Running) -> str:
    """Return where a node or an agent listens, from its log."""
    for line in running.err.splitlines():
        entry: Mapping[str, Any] = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") == "serving":
            return str(entry["address"])
    raise AssertionError(f"no address in the log: {running.err}")


is_running = processes.is_running
