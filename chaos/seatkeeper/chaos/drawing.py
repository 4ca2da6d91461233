"""Keep a picture small however long the run was: fewer points, merged bands, short paths. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby

Band = tuple[float, float]
"""From when until when, in seconds since the run began."""

_INDENT = re.compile(r"\n +<")
_TAG = re.compile(r"<[^>]*>")
_PATH = re.compile(r' d="([^"]*)"')
_STEP = re.compile(r"([A-Za-z])([^A-Za-z]*)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def thinned(
    times: Sequence[float], values: Sequence[float], *, columns: int
) -> tuple[list[float], list[float]]:
    """Return the points that a line of steps needs in a picture that is ``columns`` wide.

    Of each column the lowest and the highest value stay, so a peak of one sample is seen; the
    first and the last point stay where they were. No more than ``2 * columns + 2`` points.
    """
    if not times:
        return [], []
    began, last = times[0], len(times) - 1
    width = max(times[-1] - began, 1e-9) / columns
    kept = {0, last}
    for _, column in groupby(range(len(times)), lambda at: int((times[at] - began) / width)):
        members = list(column)
        kept |= {min(members, key=values.__getitem__), max(members, key=values.__getitem__)}
    drawn: list[int] = []
    for at in sorted(kept):
        # A step that changes nothing is a longer line.
        if not drawn or at == last or values[at] != values[drawn[-1]]:
            drawn.append(at)
    return [times[at] for at in drawn], [values[at] for at in drawn]


def merged(bands: Sequence[Band], *, apart: float) -> list[Band]:
    """Return the bands in order, those that are less than ``apart`` from each other as one."""
    joined: list[Band] = []
    for since, until in sorted(bands):
        if joined and since - joined[-1][1] < apart:
            joined[-1] = (joined[-1][0], max(joined[-1][1], until))
        else:
            joined.append((since, until))
    return joined


def bands_that_fit(
    kinds: Mapping[str, Sequence[Band]], *, narrowest: float, most: int
) -> dict[str, list[Band]]:
    """Return each kind's bands, at least ``narrowest`` wide, and at most ``most`` over all kinds.

    Where there are more, neighbours of a kind are drawn as one: first those that touch, then
    those that are further and further apart. Every kind keeps at least one band.
    """
    wide = {
        kind: [(since, max(until, since + narrowest)) for since, until in bands]
        for kind, bands in kinds.items()
    }
    apart = 0.0
    joined = {kind: merged(bands, apart=apart) for kind, bands in wide.items()}
    while sum(map(len, joined.values())) > max(most, len(kinds)):
        apart = max(2 * apart, narrowest)
        joined = {kind: merged(bands, apart=apart) for kind, bands in joined.items()}
    return joined


def compact(svg: str) -> str:
    """Return the same picture in fewer letters: a tenth of a point is as fine as it gets.

    Text between tags stays as it is.
    """
    short = _TAG.sub(lambda tag: _short_numbers(_PATH.sub(_short_path, tag[0])), svg)
    return _INDENT.sub("\n<", short)


def _short_numbers(tag: str) -> str:
    return _LONG_NUMBER.sub(lambda number: _rounded(float(number[0])), tag)


def _rounded(number: float) -> str:
    text = f"{number:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _short_path(attribute: re.Match[str]) -> str:
    """Write ``M``, ``L`` and ``z`` tersely; a path with curves only loses its line breaks."""
    path = attribute[1]
    steps = [(step[1], step[2].split()) for step in _STEP.finditer(path)]
    if any(letter not in "MLz" for letter, _ in steps):
        return f' d="{" ".join(path.split())}"'
    written: list[str] = []
    here = ("", "")
    for letter, numbers in steps:
        if letter == "z":
            written.append("z")
            continue
        across, down = (_rounded(float(number)) for number in numbers)
        match letter:
            case "M":
                written.append(f"M{across} {down}")
            case _ if (across, down) == here:
                pass
            case _ if down == here[1]:
                written.append(f"H{across}")
            case _ if across == here[0]:
                written.append(f"V{down}")
            case _:
                written.append(f"L{across} {down}")
        here = (across, down)
    return f' d="{"".join(written)}"'
