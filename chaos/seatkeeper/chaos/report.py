"""What people and programs read after a run: a picture, a page, and numbers. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote

from seatkeeper.chaos.drawing import Band, bands_that_fit, compact, thinned
from seatkeeper.chaos.result import Injected, Outcome, Sample, ScenarioResult
from seatkeeper.oracle.seen import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VIOLATIONS_MAX = 20
"""Violations of a scenario that are listed; of the others there is only the number."""
_WIDTH_INCHES_MIN, _WIDTH_INCHES_MAX = 10.0, 24.0
_SECONDS_PER_INCH = 29.0
_LABEL_INCHES = 0.18
"""What a scenario's name, which stands upright, takes of the width."""
_LABEL_LENGTH_MAX = 48
_LETTER_INCHES = 0.075
_PANELS_INCHES = 6.5
"""The height of all but the names."""
_RATE_SECONDS = 0.999
"""Answers are counted over a second, give or take what samples are late by."""
_BAND_WIDTHS = 600
"""A fault that was over at once is drawn as wide as one of so many that fill the picture."""
_BANDS_MAX = 250
"""Bands of faults in each panel; where there are more, neighbours of a kind are drawn as one."""
_COLUMNS = 320
"""How finely a line is drawn: of each column, its lowest and its highest value."""
# Okabe and Ito's colours, then Paul Tol's muted ones, for all eyes; black is for the lines. A
# seventeenth kind of fault has the first one's colour, hatched.
_COLOURS = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#0072B2",
    "#F0E442",
    "#999999",
    "#332288",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#88CCEE",
)
_HATCHES = ("", "////", "....")


class ReportError(Exception):
    """The picture cannot be drawn; the message says what to install."""


def picture(outcome: Outcome) -> str:
    """Return the run over time, as SVG: the same text for the same run.

    Seats, waiting requests and answers stand below each other, behind them the faults. It stays
    small enough for a repository: at most 100 kB with a hundred scenarios, however long the run
    was. Raises ``ReportError`` where matplotlib is not installed.
    """
    try:
        # Not pyplot: it keeps what it draws, and looks for a display.
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise ReportError(
            "the picture needs matplotlib: pip install '.[chaos]' in a checkout"
        ) from missing
    seconds, width = _end(outcome), _width_inches(outcome)
    with matplotlib.rc_context():
        # The user's own taste would make another picture of the same run.
        matplotlib.rcdefaults()
        matplotlib.rc("svg", fonttype="none", hashsalt="seatkeeper")
        matplotlib.rc("font", size=10)
        matplotlib.rc("font", **{"sans-serif": ["DejaVu Sans", "sans-serif"]})
        matplotlib.rc("hatch", linewidth=0.6)
        figure = Figure(
            figsize=(width, _height_inches(outcome)), layout="constrained", facecolor="white"
        )
        seats, waiting, answers = (
            figure.add_subplot(6, 1, rows) for rows in ((1, 3), (4, 5), 6)
        )
        bands = bands_that_fit(
            _bands(_injected(outcome)), narrowest=seconds / _BAND_WIDTHS, most=_BANDS_MAX
        )
        for number, panel in enumerate((seats, waiting, answers)):
            panel.set_xlim(0, seconds)
            panel.tick_params(labelbottom=panel is answers)
            _draw_faults(panel, bands, f"faults-{number}")
            _draw_boundaries(panel, outcome.scenario_results)
        _draw_lines(seats, waiting, answers, outcome)
        _draw_names(seats, outcome.scenario_results, seconds, seconds * _LABEL_INCHES / width)
        figure.align_ylabels()
        handles, labels = seats.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=int(width / 1.6), frameon=False
        )
        file = BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return compact(file.getvalue().decode())


def markdown(outcome: Outcome, *, picture_file: str = "", command: str = "") -> str:
    """Return the run as a page: what was tried, and all that was not as promised.

    Shows the picture where ``picture_file`` says where it is, and ``command`` as what repeats the
    run. What was run may put anything in its words; it stays text.
    """
    parts = ["# Chaos report", _in_short(outcome)]
    if picture_file:
        parts.append(f"![The run over time]({quote(picture_file, safe='/:')})")
    if command:
        parts.append(f"The same again:\n\n```sh\n{command}\n```")
    if outcome.prevented:
        parts.append(_attacks(outcome))
    parts += ["## Scenarios", _scenarios(outcome.scenario_results)]
    if seen := [each for each in outcome.scenario_results if each.seen]:
        parts += ["## What policies did meanwhile", _seen(seen)]
    parts += [
        _section(each)
        for each in outcome.scenario_results
        if each.violations or each.inconclusive
    ]
    if outcome.faults:
        parts.append(_faults(_injected(outcome)))
    return "\n\n".join(parts) + "\n"


def summary(outcome: Outcome) -> dict[str, object]:
    """Return the run for programs: numbers, strings and lists that JSON knows."""
    return {
        "target": outcome.target,
        "judged_by": outcome.checked_by,
        "seconds": round(outcome.seconds, 3),
        "scenarios": len(outcome.scenario_results),
        "void": outcome.inconclusive,
        "faults": outcome.faults,
        "requests": sum(
            scenario_result.requests for scenario_result in outcome.scenario_results
        ),
        "acknowledged": outcome.acknowledged,
        "unanswered": sum(
            scenario_result.unanswered for scenario_result in outcome.scenario_results
        ),
        "violations": outcome.violations,
        "prevented": dict(outcome.prevented),
        "called_back": outcome.called_back,
        "taken_back": outcome.taken_back,
        "chapters": [
            {
                "name": each.name,
                "violations": list(each.violations),
                "void": each.inconclusive,
                "seen": dict(each.seen),
            }
            for each in outcome.scenario_results
        ],
    }


def _injected(outcome: Outcome) -> list[Injected]:
    return [
        injected
        for scenario_result in outcome.scenario_results
        for injected in scenario_result.injected
    ]


# The picture.


def _end(outcome: Outcome) -> float:
    """Return the second in which the last thing happened; never nothing, for it is a width."""
    ends = [scenario_result.ended for scenario_result in outcome.scenario_results]
    ends += [injected.until for injected in _injected(outcome)]
    ends += [sample.at for sample in outcome.samples]
    return max([1.0, *ends])


def _width_inches(outcome: Outcome) -> float:
    wish = max(
        _end(outcome) / _SECONDS_PER_INCH, len(outcome.scenario_results) * _LABEL_INCHES * 1.2
    )
    return min(max(wish, _WIDTH_INCHES_MIN), _WIDTH_INCHES_MAX)


def _height_inches(outcome: Outcome) -> float:
    longest = max((len(_shortened(each.name)) for each in outcome.scenario_results), default=0)
    return _PANELS_INCHES + _LETTER_INCHES * longest


def _bands(faults: Sequence[Injected]) -> dict[str, list[Band]]:
    bands: dict[str, list[Band]] = {}
    for fault in faults:
        kind = fault.fault.partition(".")[0]
        bands.setdefault(kind, []).append((fault.since, fault.until))
    return dict(sorted(bands.items()))


def _draw_faults(panel: Axes, kinds: Mapping[str, Sequence[Band]], name: str) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    for number, (kind, bands) in enumerate(kinds.items()):
        hatch = _HATCHES[number // len(_COLOURS) % len(_HATCHES)]
        colour = _COLOURS[number % len(_COLOURS)]
        # One path for a kind: a path of its own for each band would say its colour each time.
        rectangles = [
            Outline([(left, 0), (right, 0), (right, 1), (left, 1), (left, 0)], closed=True)
            for left, right in bands
        ]
        panel.add_patch(
            PathPatch(
                Outline.make_compound_path(*rectangles),
                transform=panel.get_xaxis_transform(),
                facecolor=(colour, 0.45),
                edgecolor="#555555" if hatch else "none",
                linewidth=0,
                hatch=hatch,
                label=kind,
                zorder=1,
                gid=f"{name}-{number}",
            )
        )


def _draw_boundaries(panel: Axes, scenario_results: Sequence[ScenarioResult]) -> None:
    panel.plot(
        *_apart(
            [
                [(scenario_result.began, 0), (scenario_result.began, 1)]
                for scenario_result in scenario_results
            ]
        ),
        transform=panel.get_xaxis_transform(),
        color="#333333",
        linewidth=0.9,
        linestyle=":",
        zorder=2,
    )


def _apart(lines: Sequence[Sequence[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    """Return lines as one that has gaps: drawn as one path, they say their style once."""
    points = [point for line in lines for point in (*line, (math.nan, math.nan))]
    return [across for across, _ in points], [up for _, up in points]


def _draw_lines(seats: Axes, waiting: Axes, answers: Axes, outcome: Outcome) -> None:
    samples = outcome.samples
    at = [sample.at for sample in samples]
    held, asking = [each.held for each in samples], [each.asking for each in samples]
    rated_at, rates = _rates(samples)
    for panel, label, times, values in (
        (seats, "seats that users\ncount on", at, held),
        (waiting, "requests\nthat wait", at, asking),
        (answers, "answers\na second", rated_at, rates),
    ):
        panel.step(
            *thinned(times, values, columns=_COLUMNS),
            where="post",
            color="black",
            linewidth=1.1,
            zorder=4,
        )
        panel.set_ylabel(label)
        panel.set_ylim(0, 1.12 * max([1, *values]))
    seats.axhline(
        outcome.capacity,
        color="black",
        linestyle=(0, (6, 4)),
        linewidth=1,
        label=f"capacity: {outcome.capacity:,}",
        zorder=3,
    )
    seats.set_ylim(0, 1.12 * max([1, outcome.capacity, *held]))
    answers.set_xlabel("seconds since the run began")


def _draw_names(
    panel: Axes, scenario_results: Sequence[ScenarioResult], seconds: float, apart: float
) -> None:
    """Write the names above the panel, each tied to where its scenario began."""
    across = panel.get_xaxis_transform()
    places = _spread(
        [scenario_result.began for scenario_result in scenario_results], apart, seconds
    )
    starts = [scenario_result.began for scenario_result in scenario_results]
    ties = [[(start, 1), (place, 1.03)] for start, place in zip(starts, places, strict=True)]
    panel.plot(*_apart(ties), transform=across, color="#777777", linewidth=0.6, clip_on=False)
    for scenario_result, place in zip(scenario_results, places, strict=True):
        panel.text(
            place,
            1.04,
            _shortened(scenario_result.name),
            transform=across,
            rotation="vertical",
            horizontalalignment="center",
            verticalalignment="bottom",
            parse_math=False,
            fontsize=9,
        )


def _spread(wishes: Sequence[float], apart: float, end: float) -> list[float]:
    """Return places near the wished ones, in their order, so far apart that names can be read.

    Where there is not room for all of them until ``end``, they share it evenly.
    """
    apart = min(apart, end / max(1, len(wishes)))
    places: list[float] = []
    for wish in wishes:
        places.append(max([wish, *(place + apart for place in places[-1:])]))
    for number, place in enumerate(reversed(places)):
        places[-1 - number] = min(place, end - number * apart)
    return places


def _rates(samples: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """Return acknowledged answers per second, and from when on: of a second or more at a time."""
    marks = list(samples[:1])
    for sample in samples:
        if sample.at - marks[-1].at >= _RATE_SECONDS:
            marks.append(sample)
    rates = [
        (after.acknowledged - before.acknowledged) / (after.at - before.at)
        for before, after in pairwise(marks)
    ]
    # The last rate holds until the last mark, so it is there twice.
    return [mark.at for mark in marks], rates + (rates[-1:] or [0.0] * len(marks))


def _shortened(name: str) -> str:
    return name if len(name) <= _LABEL_LENGTH_MAX else f"{name[: _LABEL_LENGTH_MAX - 1]}…"


# The page.


def _in_short(outcome: Outcome) -> str:
    inconclusive = _many(outcome.inconclusive, "scenario")
    return (
        f"Run against {_text(outcome.target)}, checked against {_text(outcome.checked_by)}, for "
        f"{outcome.seconds:,.0f} seconds: {_many(len(outcome.scenario_results), 'scenario')} with "
        f"{_many(outcome.faults, 'fault')}. {_many(outcome.acknowledged, 'acknowledged answer')} "
        f"checked: **{_many(outcome.violations, 'violation')}**. "
        f"{inconclusive} {'proves' if outcome.inconclusive == 1 else 'prove'} nothing."
    )


def _attacks(outcome: Outcome) -> str:
    tried = ", ".join(
        f"{what} {_many(times, 'time')}" for what, times in outcome.prevented.items()
    )
    return f"Tried, and refused as it must be: {_text(tried)}."


def _scenarios(scenario_results: Sequence[ScenarioResult]) -> str:
    return _table(
        (
            "scenario",
            "row of the matrix",
            "promises",
            ">seconds",
            ">faults",
            ">requests",
            ">acknowledged",
            ">unanswered",
            "result",
        ),
        (
            (
                each.name,
                each.row,
                " ".join(each.promises),
                f"{each.ended - each.began:,.1f}",
                f"{len(each.injected):,}",
                f"{each.requests:,}",
                f"{each.acknowledged:,}",
                f"{each.unanswered:,}",
                _result_text(each),
            )
            for each in scenario_results
        ),
    )


def _seen(scenario_results: Sequence[ScenarioResult]) -> str:
    """Return how often what a process may die in the middle of has happened, scenario by scenario."""
    kinds = [kind for kind in KINDS if any(kind in each.seen for each in scenario_results)]
    rows = (
        (each.name, *(f"{each.seen.get(kind, 0):,}" for kind in kinds))
        for each in scenario_results
    )
    return _table(("scenario", *(f">{kind}" for kind in kinds)), rows)


def _result_text(scenario_result: ScenarioResult) -> str:
    # What was broken was broken, also where the scenario was too short to prove the opposite.
    violated = (
        [_many(len(scenario_result.violations), "violation")]
        if scenario_result.violations
        else []
    )
    inconclusive = (
        [f"inconclusive: {scenario_result.inconclusive}"]
        if scenario_result.inconclusive
        else []
    )
    return "; ".join(violated + inconclusive) or "kept"


def _section(scenario_result: ScenarioResult) -> str:
    lines = [f"### {_text(scenario_result.name)}", "", _text(scenario_result.sentence), ""]
    if scenario_result.inconclusive:
        lines += [f"Proves nothing: {_text(scenario_result.inconclusive)}", ""]
    lines += [
        f"- {_text(violation)}" for violation in scenario_result.violations[:_VIOLATIONS_MAX]
    ]
    if (more := len(scenario_result.violations) - _VIOLATIONS_MAX) > 0:
        lines.append(f"- and {more:,} more")
    return "\n".join(lines).rstrip()


def _faults(faults: Sequence[Injected]) -> str:
    table = _table(
        (">second", "fault", "place", ">for seconds"),
        (
            (f"{each.since:,.1f}", each.fault, each.place, f"{each.until - each.since:,.1f}")
            for each in faults
        ),
    )
    heading = "All faults" if len(faults) > 1 else "The fault"
    # Without an empty line around it, the table is taken for HTML.
    return f"<details>\n<summary>{heading}</summary>\n\n{table}\n\n</details>"


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Return a table. A head that begins with ``>`` has numbers below it."""
    ruler = ["---:" if head.startswith(">") else "---" for head in heads]
    cells = [[head.removeprefix(">") for head in heads], ruler]
    cells += [[_text(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _text(words: str) -> str:
    """Return it as one line in which nothing is HTML."""
    return html.escape(" ".join(words.split()), quote=False)


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
