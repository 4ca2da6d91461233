"""The previous release comes out of git, or it is said why not and what helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.compat import previous
from tests.compat.__main__ import main
from tests.compat.previous import (
    HistoryMissing,
    check_history,
    previous_commit,
    previous_release,
)
from tests.tree import ROOT


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of two commits."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for name in ("first", "second"):
        (folder / name).write_text(name)
        git(folder, "add", name)
        git(folder, "commit", "--quiet", "--message", name)
    return folder


def test_a_commit_that_is_there_is_found(repository: Path) -> None:
    check_history(repository, git(repository, "rev-parse", "HEAD~1"))


def test_an_archive_without_history_says_that_a_clone_is_needed(tmp_path: Path) -> None:
    with pytest.raises(HistoryMissing, match=r"no git checkout.*clone it"):
        check_history(tmp_path, "0" * 40)


def test_a_shallow_clone_says_how_to_get_the_rest(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD~1")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{repository}", str(clone))

    with pytest.raises(HistoryMissing, match="fetch --unshallow"):
        check_history(clone, commit)


def test_a_machine_without_git_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(HistoryMissing, match="git is not installed"):
        check_history(tmp_path, "0" * 40)


def test_a_name_that_is_no_whole_hash_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "previous-release.txt"
    file.write_text("main\n")

    with pytest.raises(HistoryMissing, match="one full commit hash"):
        previous_commit(file)


def test_the_command_says_why_it_cannot_run_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def missing() -> None:
        check_history(tmp_path, "0" * 40)

    monkeypatch.setattr("tests.compat.__main__.previous_release", missing)
    monkeypatch.setattr(sys, "argv", ["tests.compat", "--json", "-"])

    assert main() == 1
    assert "no git checkout" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]


@pytest.fixture(scope="module")
def old() -> previous.Release:
    """The previous release, as it is kept for all runs."""
    try:
        return previous_release()
    except HistoryMissing as error:
        pytest.skip(f"NOT TESTED: {error}")


def test_its_packages_are_its_own_and_its_nodes_say_what_they_are(
    old: previous.Release, tmp_path: Path
) -> None:
    text = (
        "import importlib.metadata, seatkeeper.client, seatkeeper.v1.seat_pb2 as pb;"
        "print(importlib.metadata.version('seatkeeper'));"
        "print(seatkeeper.client.__file__); print(pb.__file__)"
    )
    # Neither the folder nor the variable that would bring ours to the front counts.
    said = subprocess.run(
        [*old.interpreter, "-c", text],
        cwd=ROOT / "client",
        env={**os.environ, "PYTHONPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    assert said[0] == old.version
    assert old.commit[:12] in old.version
    assert all(str(previous.CACHE) in file for file in said[1:])


def test_it_is_built_once(old: previous.Release) -> None:
    built = old.python.parents[2] / "built"
    before = built.stat().st_mtime_ns

    assert previous_release() == old
    assert built.stat().st_mtime_ns == before
