"""A seed replays exactly in another process, and the last line says what came of all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.tree import ROOT


def run(*arguments: str) -> list[str]:
    """Run the simulation as its users do; return what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "random"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("seed", ["6", "19"])
def test_a_seed_replays_exactly(seed: str) -> None:
    first, second = run("--replay", seed), run("--replay", seed)
    assert first == second
    assert len(first) > 100


def test_the_last_line_is_one_object() -> None:
    reported = json.loads(run("--seeds", "4", "--jobs", "2")[-1])
    assert (reported["seeds"], reported["violations"]) == (4, 0)
    assert reported["operations"] > 50
    assert reported["faults"] > 0
