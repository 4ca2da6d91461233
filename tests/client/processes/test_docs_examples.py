"""The examples of two pages are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tree import ROOT

from seatkeeper.testing.service import InMemoryService

DOCS = ROOT / "docs" / "how-to"
SECONDS_MAX = 120


def blocks(page: str) -> list[str]:
    """The Python of a page."""
    return re.findall(
        r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )


def run(*arguments: str, folder: Path, **more: str) -> None:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | more,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_administrative_api_does_what_its_page_shows(tmp_path: Path) -> None:
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks("administer.md")), "utf-8")
    with InMemoryService() as service:
        run("-W", "error", str(program), folder=tmp_path, **service.environment)


def test_the_tests_on_the_page_about_tests_pass(tmp_path: Path) -> None:
    tests = [block for block in blocks("test-your-code.md") if block.startswith("# test_")]
    assert len(tests) >= 4
    for test in tests:
        (tmp_path / re.match(r"# (\w+\.py)", test)[1]).write_text(test, "utf-8")  # type: ignore[index]  # a test without a file name fails here
    run("-m", "pytest", "-q", "-p", "no:xdist", folder=tmp_path)


def test_the_service_without_pytest_works_as_on_the_page(tmp_path: Path) -> None:
    programs = [
        block for block in blocks("test-your-code.md") if not block.startswith("# test_")
    ]
    for number, text in enumerate(programs):
        program = tmp_path / f"program_{number}.py"
        program.write_text(text, "utf-8")
        run("-W", "error", str(program), folder=tmp_path)


@pytest.mark.parametrize("part", ["pools", "cluster", "engines"])
def test_every_administrative_call_is_on_the_page(part: str) -> None:
    from seatkeeper.client.admin import sync as sync_admin

    kind = {
        "pools": sync_admin.Pools,
        "cluster": sync_admin.Cluster,
        "engines": sync_admin.Engines,
    }
    page = (DOCS / "administer.md").read_text("utf-8")
    for name in vars(kind[part]):
        if not name.startswith("_"):
            assert f"| `{name}(" in page, f"client.{part}.{name} is not in the tables"
