"""The picture of a simulation: seats held by each project over time, and seats waited for, as SVG.

Drawn without a library. The same outcomes give the same text. Time is cut into ``COLUMNS`` columns, of
each of which the mean is drawn: so the area of a project is its seat time, and a peak that is shorter
than a column is lower than it was.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence

from seatkeeper.core.amounts import count, span
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.request import Request

COLUMNS = 400
PICTURED_MAX = 8
"""Most simulations in one picture, below each other; of more, the first are drawn."""
PROJECTS_MAX = 8
"""Projects that have a colour of their own, those that used most; the rest is one area."""
REST = "others"
# Okabe and Ito's colours, for all eyes.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#332288"),
    "#999999",
)
_LEFT, _WIDTH, _SEATS_HIGH, _QUEUE_HIGH, _GAP = 60, 800, 180, 80, 34
_PANEL_HIGH = _SEATS_HIGH + _QUEUE_HIGH + 2 * _GAP


def drawn(outcomes: Sequence[Outcome]) -> str:
    """Return the picture of all of them, in their order."""
    shown = outcomes[:PICTURED_MAX]
    names = _legend(shown)
    high = 40 + len(shown) * _PANEL_HIGH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 20} {high}" '
        'font-family="DejaVu Sans, sans-serif" font-size="11">',
        "<title>seats held and waited for, simulated</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        *_drawn_legend(names),
    ]
    for number, outcome in enumerate(shown):
        parts += _panel(outcome, names, 40 + number * _PANEL_HIGH)
    return "\n".join((*parts, "</svg>")) + "\n"


def _legend(outcomes: Sequence[Outcome]) -> list[str]:
    used: dict[str, float] = {}
    for outcome in outcomes:
        for name, each in outcome.projects.items():
            used[name] = used.get(name, 0) + each.used
    names = sorted(used, key=lambda name: (-used[name], name))
    return names[:PROJECTS_MAX] + [REST] * (len(names) > PROJECTS_MAX)


def _drawn_legend(names: Sequence[str]) -> Iterable[str]:
    across = _LEFT
    for place, name in enumerate(names):
        yield f'<rect x="{across}" y="10" width="10" height="10" fill="{COLOURS[place]}"/>'
        yield f'<text x="{across + 14}" y="19">{html.escape(name)}</text>'
        across += 26 + 7 * len(name)


def _panel(outcome: Outcome, names: Sequence[str], top: int) -> Iterable[str]:
    """Yield the seats held, one project upon the other, and below them the seats waited for."""
    held = [_means(outcome, each, _held) for each in _by_name(outcome, names)]
    waiting = [_means(outcome, each, _waited) for each in _by_name(outcome, names)]
    seats = outcome.seats_most
    most = max(seats, 1)
    bottom = top + _SEATS_HIGH + 14
    title = f"{outcome.spec.name}: {count(seats, 'seat')}, of which are held"
    yield f'<text x="{_LEFT}" y="{top + 10}" font-weight="bold">{html.escape(title)}</text>'
    yield from _stack(held, most, bottom, _SEATS_HIGH - 10)
    yield from _scale(most, bottom, _SEATS_HIGH - 10)
    longest = max((sum(column) for column in zip(*waiting, strict=True)), default=0)
    below = bottom + _QUEUE_HIGH + 16
    yield f'<text x="{_LEFT}" y="{bottom + 14}">seats waited for</text>'
    yield from _stack(waiting, max(longest, 1), below, _QUEUE_HIGH - 16)
    yield from _scale(max(longest, 1), below, _QUEUE_HIGH - 16)
    for part in range(5):
        across = _LEFT + part * _WIDTH / 4
        anchor = ("start", "middle", "middle", "middle", "end")[part]
        words = span(outcome.seconds * part / 4)
        yield f'<text x="{across:g}" y="{below + 13}" text-anchor="{anchor}">{words}</text>'


def _by_name(outcome: Outcome, names: Sequence[str]) -> list[list[Request]]:
    found: list[list[Request]] = [[] for _ in names]
    place = {name: number for number, name in enumerate(names)}
    for each in (*outcome.holders, *outcome.requests):
        found[place.get(each.arrival.project, len(names) - 1)].append(each)
    return found


def _held(request: Request, end: int) -> tuple[int, int]:
    if request.granted_at is None:
        return 0, 0
    return request.granted_at, end if request.ended_at is None else request.ended_at


def _since(outcome: Outcome, moment: int) -> int:
    """Return a moment, or the beginning for one before it."""
    return max(moment, outcome.began_at)


def _waited(request: Request, end: int) -> tuple[int, int]:
    until = request.granted_at if request.granted_at is not None else request.ended_at
    return request.arrival.at, end if until is None else until


def _means(
    outcome: Outcome,
    requests: Iterable[Request],
    when: Callable[[Request, int], tuple[int, int]],
) -> list[float]:
    """Return the mean of the seats in each column, of those that are held or waited for."""
    width = max(outcome.ended_at - outcome.began_at, 1) / COLUMNS
    rates = [0.0] * (COLUMNS + 2)
    """How the number of seats changes from column to column."""
    for each in requests:
        since, until = (_since(outcome, it) for it in when(each, outcome.ended_at))
        for moment, seats in ((since, each.arrival.seats), (until, -each.arrival.seats)):
            if until > since:
                at = (moment - outcome.began_at) / width
                column = min(int(at), COLUMNS)
                # It counts for the rest of its column, and for all of those after it.
                rates[column] += seats * (column + 1 - at)
                rates[column + 1] += seats * (at - column)
    means, total = [], 0.0
    for rate in rates[:COLUMNS]:
        total += rate
        means.append(max(0.0, total))
    return means


def _stack(
    layers: Sequence[Sequence[float]], most: float, bottom: int, high: int
) -> Iterable[str]:
    below = [0.0] * COLUMNS
    step = _WIDTH / COLUMNS
    for place, layer in enumerate(layers):
        above = [low + each for low, each in zip(below, layer, strict=True)]
        if any(layer):
            edge = [*_edge(above), *reversed(_edge(below))]
            points = " ".join(
                f"{_number(_LEFT + column * step)},{_number(bottom - high * seats / most)}"
                for column, seats in edge
            )
            yield f'<polygon points="{points}" fill="{COLOURS[place]}"/>'
        below = above


def _edge(values: Sequence[float]) -> list[tuple[int, float]]:
    """Return the corners of a line of steps: where it changes, and at both ends."""
    corners = [(0, values[0])]
    for column in range(1, COLUMNS):
        if values[column] != values[column - 1]:
            corners += [(column, values[column - 1]), (column, values[column])]
    return [*corners, (COLUMNS, values[-1])]


def _scale(most: float, bottom: int, high: int) -> Iterable[str]:
    for value, down in ((most, bottom - high), (0.0, bottom)):
        line = f'x1="{_LEFT}" y1="{down}" x2="{_LEFT + _WIDTH}" y2="{down}"'
        yield f'<line {line} stroke="black" stroke-width="0.7"/>'
        text = f"{value:.0f}"
        yield f'<text x="{_LEFT - 6}" y="{down + 4}" text-anchor="end">{text}</text>'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
