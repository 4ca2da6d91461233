"""What make unit leaves out, and what it refuses: a test there needs no more than the small install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests import pure
from tests.tree import ROOT

TESTS = ROOT / "tests"

TRIES = """
import subprocess
from pathlib import Path

import pytest


def program(folder, name, size):
    path = folder / name
    path.write_text("#!/bin/sh\\necho started\\n" + "#" * size)
    path.chmod(0o755)
    return path


def test_heavy_modules_are_missing():
    with pytest.raises(ModuleNotFoundError, match="make unit does not install it"):
        import onnx.helper
    with pytest.raises(ModuleNotFoundError):
        import tensorrt_rtx


def test_a_real_etcd_does_not_start(tmp_path):
    etcd = program(tmp_path, "etcd", 200_000)
    with pytest.raises(Exception, match="make unit starts no .*etcd"):
        subprocess.run([etcd], check=True)


def test_a_stand_in_and_other_programs_do(tmp_path):
    for name, size in (("etcd", 10), ("printer", 200_000)):
        done = subprocess.run([program(tmp_path, name, size)], capture_output=True, check=True)
        assert done.stdout == b"started\\n"
"""


def test_what_needs_the_full_set_up_fails_wherever_it_runs(tmp_path: Path) -> None:
    (tmp_path / "test_tries.py").write_text(TRIES)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.pure",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, tmp_path / "test_tries.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.parametrize(
    ("folder", "is_ours"),
    [
        ("", True),
        ("unit", True),
        ("unit/pool", True),
        ("client/transport", True),
        ("client/processes", False),
        ("builder/compilers", False),
        ("unit/service/processes", False),
        ("cli", False),
        ("cluster", False),
        ("contract", False),
    ],
)
def test_a_test_belongs_to_it_by_its_folder(folder: str, is_ours: bool) -> None:
    assert (pure.pytest_ignore_collect(TESTS / folder) is not True) is is_ours


def test_every_folder_that_is_named_is_there() -> None:
    assert [name for name in pure.FOLDERS if not (TESTS / name).is_dir()] == []
    assert [name for name in pure.ELSEWHERE if not [*TESTS.glob(f"*/**/{name}")]] == []


def test_a_file_is_never_left_out_by_itself() -> None:
    assert pure.pytest_ignore_collect(TESTS / "cli" / "test_help.py") is None
