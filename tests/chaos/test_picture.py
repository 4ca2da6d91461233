"""The picture of a run: what is in it, and that it stays small."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import pytest
from tests.chaos.runs import NOTHING, a_run, run, scenario_result
from tests.tree import ROOT

from seatkeeper.chaos.report import picture
from seatkeeper.chaos.result import Injected, Outcome, Sample

SVG = "{http://www.w3.org/2000/svg}"
POINTS_PER_INCH = 72
WIDTH_INCHES_MIN, WIDTH_INCHES_MAX = 10, 24
BYTES_MAX = 100_000


@cache
def drawn() -> str:
    """The picture of ``a_run``, drawn once."""
    return picture(a_run())


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
    shown = texts(drawn())
    assert {"owner-dies", "network-breaks", "capacity: 24"} <= set(shown)
    assert shown.count("KillNode") == shown.count("Network") == 1
    assert {"requests", "answers", "seconds since the run began"} <= set(shown)


def test_the_same_run_has_the_same_picture_whatever_its_reader_likes() -> None:
    first = drawn()
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path"}):
        assert picture(a_run()) == first
        assert matplotlib.rcParams["svg.fonttype"] == "path"
    assert "<dc:date>" not in first


def test_a_fault_that_is_over_at_once_is_seen() -> None:
    outcome = run(scenario_result("one", 0.0))
    assert 'id="faults-' not in picture(outcome)
    outcome.scenario_results[0].injected.append(
        Injected("Network.connections_break", "all", 5.0, 5.0)
    )
    svg = picture(outcome)
    assert svg.count('id="faults-') == 3  # one a panel
    (shape,) = re.findall(r'id="faults-0-0">\n<path d="([^"]*)"', svg)
    across = {float(number) for number in re.findall(r"[MHL](\S+?)(?= |V|H|z)", shape)}
    assert max(across) - min(across) > 0.5


def test_many_short_scenarios_widen_the_picture_and_their_names_stay_apart() -> None:
    few = run(*(scenario_result(f"scenario-{each}", each * 10.0) for each in range(3)))
    many = run(
        *(scenario_result(f"scenario-{each}", each / 2, seconds=0.5) for each in range(90))
    )
    long = run(
        *(scenario_result(f"scenario-{each}", each * 28.0, seconds=28) for each in range(25))
    )

    pictures = [picture(outcome) for outcome in (few, many, long)]
    widths = [width_inches(each) for each in pictures]
    assert widths[0] == WIDTH_INCHES_MIN
    assert WIDTH_INCHES_MIN < widths[1] < WIDTH_INCHES_MAX
    assert widths[2] == WIDTH_INCHES_MAX
    for each, outcome in zip(pictures, (few, many, long), strict=True):
        places = names_at(each)
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
    injected = [Injected(f"Kind{each}.of_it", "here", each, each + 0.5) for each in range(20)]
    shown = texts(
        picture(
            run(
                scenario_result("a < b & $c$ | _d_", 0.0, *injected),
                scenario_result("x" * 99, 10),
            )
        )
    )
    assert "a < b & $c$ | _d_" in shown
    assert {f"Kind{each}" for each in range(20)} <= set(shown)
    assert any(text.startswith("xxxx") and text.endswith("…") for text in shown)


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.0], [3.0, 3.2]])
def test_too_few_samples_for_a_rate_are_drawn_as_well(times: list[float]) -> None:
    outcome = Outcome("a", "b", 2, samples=[Sample(at, 1, 0, 5) for at in times])
    assert "capacity: 2" in texts(picture(outcome))


def test_of_a_run_in_which_nothing_happened_there_is_a_picture() -> None:
    assert "capacity: 0" in texts(picture(NOTHING))


def test_a_long_run_with_many_scenarios_and_faults_has_a_small_picture() -> None:
    hours = run(
        *(
            scenario_result(
                f"scenario-{number}",
                number * 36.0,
                *(
                    Injected(f"Kind{(number + each) % 30}.of_it", "here", at, at + 0.4)
                    for each in range(20)
                    for at in [number * 36.0 + each * 1.8]
                ),
                seconds=36.0,
            )
            for number in range(100)
        )
    )
    assert (hours.faults, len(hours.samples)) == (2_000, 14_400)
    size = len(picture(hours).encode())
    assert size <= BYTES_MAX


def test_the_committed_picture_is_small() -> None:
    (committed,) = (ROOT / "docs").rglob("chaos-report.svg")
    assert committed.stat().st_size <= BYTES_MAX
    assert ElementTree.fromstring(committed.read_bytes()).tag == f"{SVG}svg"
