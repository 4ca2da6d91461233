"""Tests and tools find the tree at whatever depth they lie."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.mutants.defects import DEFECTS
from tests.tree import PORTIONS, ROOT, portions_of, root_above

COUNTED = re.compile(r"__file__\)(?:\.resolve\(\))?\.(?:parents\[[^\]]+\]|parent\.parent)")
NEEDS_NO_PACKAGE = "bench/step.py"
"""Runs before anything is installed, and from any folder, so it cannot import ``tests.tree``."""


def make_package(folder: Path, file: str) -> None:
    (folder / "seatkeeper").mkdir(parents=True)
    (folder / "seatkeeper" / file).touch()


def test_the_root_is_the_checkout_and_the_portions_are_those_that_hold_code() -> None:
    assert (ROOT / "tests" / "tree.py").is_file()
    assert {"client", "server", "builder", "chaos", "proto"} <= set(PORTIONS)
    assert list(PORTIONS) == sorted(PORTIONS)


def test_a_portion_is_a_folder_with_sources_and_not_what_one_left_behind(
    tmp_path: Path,
) -> None:
    make_package(tmp_path / "server", "node.py")
    make_package(tmp_path / "proto", "seat.proto")
    make_package(tmp_path / "gone", "old.pyc")
    make_package(tmp_path / ".venv", "hidden.py")
    (tmp_path / "docs").mkdir()
    assert portions_of(tmp_path) == ("proto", "server")


def test_the_root_is_found_from_any_depth_and_missed_outside_a_tree(tmp_path: Path) -> None:
    deep = tmp_path / "tests" / "unit" / "pool"
    deep.mkdir(parents=True)
    with pytest.raises(LookupError, match=r"no pyproject\.toml"):
        root_above(deep / "test_loop.py")

    (tmp_path / "pyproject.toml").touch()
    (deep.parent / "pyproject.toml").touch()  # of a distribution, without tests beside it
    assert root_above(deep / "test_loop.py") == tmp_path
    assert root_above(tmp_path / "tests" / "tree.py") == tmp_path


def test_no_test_or_bench_counts_folders_up_to_the_root() -> None:
    counted = [
        f"{path.relative_to(ROOT)}: {found}"
        for folder in ("tests", "bench")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != ROOT / NEEDS_NO_PACKAGE
        for found in COUNTED.findall(path.read_text())
    ]
    assert counted == [], "use tests.tree.ROOT"


def test_every_defect_is_planted_where_its_code_is() -> None:
    """One whose code has changed is noticed here, and not only when all are tried."""
    lost = [
        defect.name
        for defect in DEFECTS
        if (ROOT / defect.file).read_text().count(defect.code) != 1
    ]
    assert lost == [], "plant it where the code is now"
