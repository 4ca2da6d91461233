"""The plug-in for a second Python lowers the examples of every property, and leaves the rest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tree import ROOT

PROPERTIES = """
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

drawn = []
made = []

@settings(max_examples=200, database=None)
@given(st.integers())
def test_one(number):
    drawn.append(number)

def test_how_many_were_drawn():
    print("drawn", len(drawn))

class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        made.append(self)

    @rule()
    def step(self):
        pass

TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, database=None)

class TestZ:
    def test_how_many_were_made(self):
        print("made", len(made))
"""


@pytest.mark.parametrize(
    ("plugin", "drawn", "made"),
    [
        ((), range(21, 201), range(6, 51)),
        (("-p", "tests.few_examples"), range(1, 21), range(1, 6)),
    ],
)
def test_properties_are_tried_with_a_tenth(
    plugin: tuple[str, ...], drawn: range, made: range, tmp_path: Path
) -> None:
    (tmp_path / "test_properties.py").write_text(PROPERTIES)
    options = ("-q", "-s", "-p", "no:cacheprovider", "-p", "no:seatkeeper", *plugin)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = dict(re.findall(r"(drawn|made) (\d+)", done.stdout))
    assert int(numbers["drawn"]) in drawn
    assert int(numbers["made"]) in made
