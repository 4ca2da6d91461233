"""What is read after a run says what happened in it, whatever that was."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import pytest

from seatkeeper.chaos.report import (
    ReportError,
    markdown,
    picture,
    summary,
)
from seatkeeper.chaos.result import Outcome, Sample, ScenarioResult, Struck
from seatkeeper.oracle.record import Attack

SVG = "{http://www.w3.org/2000/svg}"
POINTS_PER_INCH = 72
WIDTH_INCHES_MIN, WIDTH_INCHES_MAX = 10, 24
VIOLATIONS_MAX = 20
NOTHING = Outcome(target="nothing", judged_by="nobody", capacity=0)


def scenario_result(
    name: str, began: float, *struck: Struck, seconds: float = 10.0
) -> ScenarioResult:
    return ScenarioResult(
        name=name,
        sentence=f"What {name} is about.",
        row="kill -9 owner",
        promises=("I1", "I8"),
        began=began,
        ended=began + seconds,
        struck=list(struck),
        requests=12_345,
        acknowledged=11_000,
        unanswered=45,
    )


def run(*scenario_results: ScenarioResult) -> Outcome:
    end = int(max(each.ended for each in scenario_results))
    return Outcome(
        target="three nodes",
        judged_by="etcd's change stream",
        capacity=24,
        samples=[Sample(at / 4, at % 25, at % 7, at * 100) for at in range(end * 4)],
        scenario_results=list(scenario_results),
    )


def a_run() -> Outcome:
    """A run of two scenarios, in which three faults struck."""
    return run(
        scenario_result("owner-dies", 0.0, Struck("KillNode.owner", "node-1", 2.0, 3.5)),
        scenario_result(
            "network-breaks",
            10.0,
            Struck("Network.slow", "all nodes", 11.0, 19.0),
            Struck("Network.connections_break", "all nodes", 14.0, 14.0),
        ),
    )


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def names_at(svg: str) -> list[float]:
    """Where the upright names of scenarios stand, from left to right."""
    return [
        float(each.attrib["transform"].partition("translate(")[2].split()[0])
        for each in ElementTree.fromstring(svg).iter(f"{SVG}text")
        if (each.text or "").startswith("scenario-")
    ]


def width_inches(svg: str) -> float:
    width = ElementTree.fromstring(svg).attrib["width"]
    return float(width.removesuffix("pt")) / POINTS_PER_INCH


def test_the_picture_names_scenarios_kinds_of_faults_and_what_is_drawn() -> None:
    told = texts(picture(a_run()))
    assert {"owner-dies", "network-breaks", "capacity: 24"} <= set(told)
    assert told.count("KillNode") == told.count("Network") == 1
    assert {"requests", "answers", "seconds since the run began"} <= set(told)


def test_the_same_run_has_the_same_picture_whatever_its_reader_likes() -> None:
    first = picture(a_run())
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path"}):
        assert picture(a_run()) == first
        assert matplotlib.rcParams["svg.fonttype"] == "path"
    assert "<dc:date>" not in first


def test_a_fault_that_is_over_at_once_is_seen() -> None:
    outcome = run(scenario_result("one", 0.0))
    assert "PolyCollection" not in picture(outcome)
    outcome.scenario_results[0].struck.append(
        Struck("Network.connections_break", "all", 5.0, 5.0)
    )
    svg = picture(outcome)
    assert svg.count("PolyCollection") == 3  # one a panel
    shape = svg.partition('id="PolyCollection_1"')[2].partition(' d="')[2].partition('"')[0]
    across = {float(step.split()[1]) for step in shape.splitlines() if step[:1] in "ML"}
    assert max(across) - min(across) > 0.5


def test_many_short_scenarios_widen_the_picture_and_their_names_stay_apart() -> None:
    few = run(*(scenario_result(f"scenario-{each}", each * 10.0) for each in range(3)))
    many = run(
        *(scenario_result(f"scenario-{each}", each / 2, seconds=0.5) for each in range(90))
    )
    long = run(
        *(scenario_result(f"scenario-{each}", each * 28.0, seconds=28) for each in range(25))
    )

    assert width_inches(picture(few)) == WIDTH_INCHES_MIN
    assert WIDTH_INCHES_MIN < width_inches(picture(many)) < WIDTH_INCHES_MAX
    assert width_inches(picture(long)) == WIDTH_INCHES_MAX
    for outcome in (few, many, long):
        places = names_at(picture(outcome))
        assert len(places) == len(outcome.scenario_results)
        assert all(right - left > 10 for left, right in pairwise(places))


def test_names_at_the_end_stay_within_the_picture() -> None:
    outcome = run(
        scenario_result("scenario-long", 0.0, seconds=99),
        *(
            scenario_result(f"scenario-{each}", 99 + each / 10, seconds=0.1)
            for each in range(10)
        ),
    )
    svg = picture(outcome)
    places = names_at(svg)
    assert places == sorted(places)
    assert places[-1] < width_inches(svg) * POINTS_PER_INCH


def test_there_may_be_more_kinds_of_faults_than_colours_and_names_of_any_sort() -> None:
    struck = [Struck(f"Kind{each}.of_it", "here", each, each + 0.5) for each in range(20)]
    told = texts(
        picture(
            run(
                scenario_result("a < b & $c$ | _d_", 0.0, *struck),
                scenario_result("x" * 99, 10),
            )
        )
    )
    assert "a < b & $c$ | _d_" in told
    assert {f"Kind{each}" for each in range(20)} <= set(told)
    assert any(text.startswith("xxxx") and text.endswith("…") for text in told)


def test_without_matplotlib_there_is_no_picture_and_everything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportError, match=r"pip install '\.\[chaos\]'"):
        picture(a_run())
    assert markdown(a_run())
    assert summary(a_run())


def test_nobody_loads_matplotlib_who_draws_nothing() -> None:
    code = "import sys, seatkeeper.chaos.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_says_in_short_what_came_of_it() -> None:
    page = markdown(a_run())
    assert (
        "Run against three nodes, judged by etcd's change stream, for 20 seconds: 2 scenarios "
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
    outcome.scenario_results[1].void = "too little traffic"
    page = markdown(outcome)

    assert "**1 violation**. 1 scenario proves nothing." in page
    assert "| 45 | 1 violation |" in page
    assert "| 45 | void: too little traffic |" in page
    assert "### owner-dies\n\nWhat owner-dies is about.\n\n- I1: 25 seats of 24\n" in page
    assert "### network-breaks\n" in page
    assert "Proves nothing: too little traffic\n" in page


def test_what_was_broken_is_told_also_where_the_scenario_proves_nothing() -> None:
    outcome = a_run()
    outcome.scenario_results[0].violations = ["I1", "I2"]
    outcome.scenario_results[0].void = "cut short"
    assert "| 2 violations; void: cut short |" in markdown(outcome)


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
    outcome = run(scenario_result("a|b", 0.0, Struck("Users.die", "one | <b>\ntwo", 1.0, 1.0)))
    outcome.scenario_results[0].violations = ["</details>\n# not a heading"]
    page = markdown(outcome)
    assert "| a\\|b |" in page
    assert "| 1.0 | Users.die | one \\| &lt;b&gt; two | 0.0 |" in page
    assert "- &lt;/details&gt; # not a heading\n" in page


def test_programs_are_told_in_numbers() -> None:
    outcome = a_run()
    outcome.scenario_results[0].violations = ["I1: 25 seats of 24"]
    outcome.scenario_results[1].void = "too little traffic"
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
        "chapters": [
            {"name": "owner-dies", "violations": ["I1: 25 seats of 24"], "void": ""},
            {"name": "network-breaks", "violations": [], "void": "too little traffic"},
        ],
    }


def test_what_was_tried_and_must_be_refused_is_told() -> None:
    outcome = a_run()
    assert "Tried, and refused" not in markdown(outcome)
    outcome.prevented = {Attack.THEFT.value: 1_200, Attack.LATE_PUBLICATION.value: 1}
    assert (
        "Tried, and refused as it must be: somebody else's seat given back 1,200 times, "
        "an engine published too late 1 time.\n"
    ) in markdown(outcome)
    assert summary(outcome)["prevented"] == outcome.prevented


def test_of_a_run_in_which_nothing_happened_there_is_a_report() -> None:
    assert "capacity: 0" in texts(picture(NOTHING))
    assert "0 scenarios with 0 faults" in markdown(NOTHING)
    assert "<details>" not in markdown(NOTHING)
    assert summary(NOTHING)["chapters"] == []


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.0], [3.0, 3.2]])
def test_too_few_samples_for_a_rate_are_drawn_as_well(times: list[float]) -> None:
    outcome = Outcome("a", "b", 2, samples=[Sample(at, 1, 0, 5) for at in times])
    assert "capacity: 2" in texts(picture(outcome))
