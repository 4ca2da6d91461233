"""A long step says what it does, that it still does it, and how it ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bench import step
from tests.tree import ROOT


def run_step(*command: str, quiet_seconds: float = 0.5) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; from bench import step; "
        f"step.QUIET_SECONDS_MAX = {quiet_seconds}; sys.exit(step.main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "fetch: a thing of 3 MB", "--", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_prints_its_step_first_and_forwards_output() -> None:
    ended = run_step("echo", "halfway")
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == ["fetch: a thing of 3 MB", "fetch: halfway"]


def test_it_is_never_silent_for_long() -> None:
    ended = run_step("sh", "-c", "echo Downloading it; sleep 3")
    said = [line for line in ended.stdout.splitlines() if "s: Downloading it" in line]
    assert len(said) >= 2


def test_a_step_that_fails_shows_all_that_was_said_and_its_exit_code() -> None:
    ended = run_step("sh", "-c", "echo why >&2; exit 7")
    assert ended.returncode == 7
    assert "why" in ended.stderr
    assert run_step("sh", "-c", "kill -9 $$").returncode == 137


def test_a_step_without_a_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert step.main(["text"]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_plan_names_what_is_downloaded_and_what_is_there(tmp_path: Path) -> None:
    said: list[str] = []
    step.print_plan(tmp_path, said.append)
    assert "TensorRT-RTX, the compiler    148 MB, 315 MB on disk" in "\n".join(said)
    for there in (".venv/.ready", ".tools/etcd/etcd"):
        (tmp_path / there).parent.mkdir(parents=True)
        (tmp_path / there).touch()
    said.clear()
    step.print_plan(tmp_path, said.append)
    assert "packages: there already" in "\n".join(said)
    assert "MB" not in "\n".join(said)
