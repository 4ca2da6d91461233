"""Every case, as a test; and that the runner distinguishes a failing case from one that passes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cases.__main__ import summary_of
from tests.cases.cases import Case, Outcome, find_cases, run_case
from tests.tree import ROOT


@pytest.mark.parametrize("case", find_cases(), ids=lambda case: case.name)
def test_a_case(case: Case) -> None:
    outcome = run_case(case)
    if outcome.state == "skip":
        pytest.skip(outcome.reason)
    assert outcome.state == "pass", outcome.reason


def made(folder: Path, body: str) -> Case:
    path = folder / "case_made.py"
    path.write_text(f'"""Expected."""\n\ndef case(place):\n{body}\n')
    return Case("made", path, "Expected.")


def test_a_case_that_asserts_fails_with_what_it_saw(tmp_path: Path) -> None:
    outcome = run_case(made(tmp_path, "    assert place.folder.is_file(), 'it is a folder'"))
    assert (outcome.state, outcome.reason) == ("FAIL", "it is a folder")
    assert outcome.line.startswith("FAIL  made ")


def test_a_case_that_breaks_fails(tmp_path: Path) -> None:
    outcome = run_case(made(tmp_path, "    {}['key']"))
    assert outcome.state == "FAIL"
    assert "KeyError" in outcome.reason
    outcome = run_case(made(tmp_path, "    import os; os._exit(0)"))
    assert outcome.state == "FAIL"
    assert "ended with 0" in outcome.reason


def test_a_case_that_cannot_run_here_has_not_passed(tmp_path: Path) -> None:
    body = "    from tests.cases.place import CannotRun\n    raise CannotRun('needs wings')"
    outcome = run_case(made(tmp_path, body))
    assert (outcome.state, outcome.reason) == ("skip", "needs wings")
    passed = Outcome(outcome.case, "pass", 1.0)
    assert summary_of([outcome, passed]) == {"cases": 1, "failed": 0, "skipped": 1}


def test_a_case_that_never_ends_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    body = (
        "    import subprocess, time\n"
        "    child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"    open({str(note)!r}, 'w').write(str(child.pid))\n"
        "    time.sleep(600)"
    )
    outcome = run_case(made(tmp_path, body), seconds_max=5)
    assert outcome.state == "FAIL"
    assert "not done within 5 s" in outcome.reason
    # Killed, which the kernel does in its own time, and adopted by another, who waits for it in its.
    status = Path(f"/proc/{note.read_text()}/status")
    deadline = time.monotonic() + 30
    while _runs(status):
        assert time.monotonic() < deadline, "what the case started runs on"
        time.sleep(0.01)


def _runs(status: Path) -> bool:
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_last_line_is_one_flat_object() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cases", "no_such_case"], cwd=ROOT, capture_output=True
    )
    assert ended.returncode == 2
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cases", "comforts_no_terminal"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert json.loads(ended.stdout.splitlines()[-1]).keys() == {"cases", "failed", "skipped"}
