"""The order in which files are handed to the workers of make test."""

from __future__ import annotations

import pytest
from tests.conftest import SLOW_FIRST, TESTS, slowness

LAST = len(SLOW_FIRST)


@pytest.mark.parametrize(
    ("file", "turn"),
    [
        ("client/processes/test_helper_processes.py", 0),
        ("unit/chaos/processes/test_chaos_faults.py", 0),
        ("builder/compilers/test_compile.py", 1),
        ("cluster/test_haproxy.py", 3),
        ("chaos/test_picture.py", LAST - 1),
        ("unit/chaos/test_chaos_trial.py", LAST),
        ("client/test_aio.py", LAST),
    ],
)
def test_slow_folders_come_first(file: str, turn: int) -> None:
    assert slowness(TESTS / file) == turn


def test_a_test_from_elsewhere_comes_last() -> None:
    assert slowness(TESTS.parent.parent / "test_other.py") == LAST


def test_every_slow_folder_is_there() -> None:
    assert [name for name in SLOW_FIRST if not [*TESTS.glob(f"**/{name}/")]] == []
