"""Finding cases, and running one in a process of its own with a limit to its time."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.tree import ROOT

FOLDER: Final = Path(__file__).parent
SECONDS_MAX: Final = 120.0
"""Time that a case may take."""
END_SECONDS_MAX: Final = 15.0
"""Time that it gets to clean up, after that."""
MARK: Final = "SEATKEEPER_TEST_CASE"
"""In the environment of all that a case starts: how what it leaves behind is found."""

State = Literal["pass", "FAIL", "skip"]


@dataclass(frozen=True)
class Case:
    """A file ``case_NAME.py``."""

    name: str
    path: Path
    expected: str
    """First line of its docstring."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    case: Case
    state: State
    seconds: float
    reason: str = ""

    @property
    def line(self) -> str:
        """The outcome for people."""
        said = f"{self.reason}  ({self.case.expected})" if self.reason else self.case.expected
        return f"{self.state}  {self.case.name:32} {self.seconds:6.1f} s   {said}"


def find_cases(names: list[str] | None = None) -> list[Case]:
    """Return the cases of these names, or all of them, in the order of their names.

    A name may be given with or without ``case_`` and ``.py``, or as its beginning. Raises
    ``KeyError`` for one that fits none.
    """
    cases = [_read(path) for path in sorted(FOLDER.glob("case_*.py"))]
    if not names:
        return cases
    chosen: dict[str, Case] = {}
    for name in names:
        stem = Path(name).stem.removeprefix("case_")
        exact = [case for case in cases if case.name == stem]
        found = exact or [case for case in cases if case.name.startswith(stem)]
        if not found:
            raise KeyError(name)
        chosen |= {case.name: case for case in found}
    return list(chosen.values())


def run_case(case: Case, seconds_max: float = SECONDS_MAX) -> Outcome:
    """Run a case to its end, or to that of its time; whatever it started is gone afterwards."""
    began = time.monotonic()
    mark = uuid.uuid4().hex
    folder = Path(tempfile.mkdtemp(prefix="case-"))
    outcome, output = folder / "outcome.json", folder / "output.txt"
    (folder / "place").mkdir()
    try:
        with output.open("wb") as file:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.cases.alone",
                    case.path,
                    folder / "place",
                    outcome,
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | {MARK: mark},
                start_new_session=True,
            )
        state, reason = _wait(process, outcome, output, seconds_max)
    finally:
        end_marked(mark)
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(case, state, time.monotonic() - began, reason)


def _wait(
    process: subprocess.Popen[bytes], outcome: Path, output: Path, seconds_max: float
) -> tuple[State, str]:
    late = ""
    try:
        process.wait(seconds_max)
    except subprocess.TimeoutExpired:
        late = f"not done within {seconds_max:.0f} s; "
        process.terminate()
        try:
            process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        answer = json.loads(outcome.read_text())
    except (OSError, ValueError):
        last = output.read_text(errors="replace").strip().splitlines()[-1:]
        return "FAIL", late + f"ended with {process.returncode}: {' '.join(last) or 'no word'}"
    if late:
        return "FAIL", late + answer["reason"]
    return answer["state"], answer["reason"]


def end_marked(mark: str) -> None:
    """Kill every process that has the mark in its environment: all that a case left behind."""
    sought = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            ours = sought in entry.read_bytes().split(b"\0")
            if ours and int(entry.parent.name) != os.getpid():
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except OSError:
            continue  # it has ended, or is another user's


def _read(path: Path) -> Case:
    text = ast.get_docstring(ast.parse(path.read_bytes(), str(path))) or "(says nothing)"
    return Case(path.stem.removeprefix("case_"), path, text.splitlines()[0])
