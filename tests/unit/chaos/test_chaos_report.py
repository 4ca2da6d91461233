"""What is read after a run says what happened in it, whatever that was."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.chaos.runs import NOTHING, a_run, run, scenario_result

from seatkeeper.chaos.report import ReportError, markdown, picture, summary
from seatkeeper.chaos.result import Injected
from seatkeeper.oracle.record import Attack

VIOLATIONS_MAX = 20


def test_without_matplotlib_there_is_no_picture_and_everything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportError, match=r"pip install '\.\[chaos\]'"):
        picture(a_run())
    assert markdown(a_run())
    assert summary(a_run())


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, seatkeeper.chaos.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_says_in_short_what_came_of_it() -> None:
    page = markdown(a_run())
    assert (
        "Run against three nodes, checked against etcd's change stream, for 20 seconds: 2 scenarios "
        "with 3 faults. 22,000 acknowledged answers checked: **0 violations**. "
        "0 scenarios prove nothing." in page
    )
    assert (
        "| owner-dies | kill -9 owner | I1 I8 | 10.0 | 1 | 12,345 | 11,000 | 45 | kept |"
        in page
    )
    assert "###" not in page
    assert "<details>" in page
    assert "| 11.0 | Network.slow | all nodes | 8.0 |" in page


def test_the_page_shows_the_picture_and_the_command_when_it_is_given_them() -> None:
    assert "![" not in markdown(a_run())
    assert "```" not in markdown(a_run())
    page = markdown(a_run(), picture_file="out/chaos.svg", command="make chaos SEED=7")
    assert "](out/chaos.svg)" in page
    assert "```sh\nmake chaos SEED=7\n```" in page


def test_scenarios_that_went_wrong_have_a_section_each() -> None:
    outcome = a_run()
    outcome.scenario_results[0].violations = ["I1: 25 seats of 24"]
    outcome.scenario_results[1].inconclusive = "too little traffic"
    page = markdown(outcome)

    assert "**1 violation**. 1 scenario proves nothing." in page
    assert "| 45 | 1 violation |" in page
    assert "| 45 | inconclusive: too little traffic |" in page
    assert "### owner-dies\n\nWhat owner-dies is about.\n\n- I1: 25 seats of 24\n" in page
    assert "### network-breaks\n" in page
    assert "Proves nothing: too little traffic\n" in page


def test_violations_are_reported_also_for_an_inconclusive_scenario() -> None:
    outcome = a_run()
    outcome.scenario_results[0].violations = ["I1", "I2"]
    outcome.scenario_results[0].inconclusive = "cut short"
    assert "| 2 violations; inconclusive: cut short |" in markdown(outcome)


def test_what_policies_did_is_counted_by_scenario() -> None:
    outcome = a_run()
    assert "policies" not in markdown(outcome)
    outcome.scenario_results[0].seen = {"gangs": 2_000, "reclaims": 3}
    outcome.scenario_results[1].seen = {"kept": 1}
    page = markdown(outcome)
    assert "| scenario | reclaims | gangs | kept |" in page
    assert "| owner-dies | 3 | 2,000 | 0 |" in page
    assert "| network-breaks | 0 | 0 | 1 |" in page


def test_of_very_many_violations_the_rest_is_counted() -> None:
    outcome = a_run()
    outcome.scenario_results[0].violations = [f"at {each}" for each in range(VIOLATIONS_MAX)]
    assert "more" not in markdown(outcome)

    outcome.scenario_results[0].violations = [
        f"at {each}" for each in range(VIOLATIONS_MAX + 1_500)
    ]
    page = markdown(outcome)
    assert f"- at {VIOLATIONS_MAX - 1}\n- and 1,500 more\n" in page
    assert f"at {VIOLATIONS_MAX}\n" not in page


def test_whatever_is_in_a_name_the_page_keeps_its_shape() -> None:
    outcome = run(
        scenario_result("a|b", 0.0, Injected("Users.die", "one | <b>\ntwo", 1.0, 1.0))
    )
    outcome.scenario_results[0].violations = ["</details>\n# not a heading"]
    page = markdown(outcome)
    assert "| a\\|b |" in page
    assert "| 1.0 | Users.die | one \\| &lt;b&gt; two | 0.0 |" in page
    assert "- &lt;/details&gt; # not a heading\n" in page


def test_programs_get_numbers() -> None:
    outcome = a_run()
    outcome.scenario_results[0].violations = ["I1: 25 seats of 24"]
    outcome.scenario_results[1].inconclusive = "too little traffic"
    outcome.scenario_results[0].seen = {"gangs": 2}
    assert json.loads(json.dumps(summary(outcome))) == {
        "target": "three nodes",
        "judged_by": "etcd's change stream",
        "seconds": 20.0,
        "scenarios": 2,
        "void": 1,
        "faults": 3,
        "requests": 24_690,
        "acknowledged": 22_000,
        "unanswered": 90,
        "violations": 1,
        "prevented": {},
        "called_back": 0,
        "taken_back": 0,
        "chapters": [
            {
                "name": "owner-dies",
                "violations": ["I1: 25 seats of 24"],
                "void": "",
                "seen": {"gangs": 2},
            },
            {
                "name": "network-breaks",
                "violations": [],
                "void": "too little traffic",
                "seen": {},
            },
        ],
    }


def test_attempts_that_must_be_refused_are_reported() -> None:
    outcome = a_run()
    assert "Tried, and refused" not in markdown(outcome)
    outcome.prevented = {Attack.THEFT.value: 1_200, Attack.LATE_PUBLICATION.value: 1}
    assert (
        "Tried, and refused as it must be: somebody else's seat given back 1,200 times, "
        "an engine published too late 1 time.\n"
    ) in markdown(outcome)
    assert summary(outcome)["prevented"] == outcome.prevented


def test_of_a_run_in_which_nothing_happened_there_is_a_report() -> None:
    assert "0 scenarios with 0 faults" in markdown(NOTHING)
    assert "<details>" not in markdown(NOTHING)
    assert summary(NOTHING)["chapters"] == []
