"""Which optimisation profiles fit the requests that a model gets.

Pure. Requests of the same sizes are one *shape* with a count. Shapes are put in the order of their
volume, the number of elements of all inputs, and cut into as many stretches as profiles are wanted.
A profile ranges from the smallest to the largest size in its stretch, dimension by dimension, and is
fastest at the shape that half of its requests are not larger than.

What is kept small is the *waste*: the part of all elements that would be padding if each request were
padded to the largest sizes of its profile. The best cuts are found by dynamic programming over the
sorted shapes, as in Bellman, "On the approximation of curves by line segments using dynamic
programming" (1961), which for this order is exact.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from seatkeeper.artifacts.errors import ProfileInvalid
from seatkeeper.artifacts.plan import DIM_MAX, PROFILES_MAX, RANK_MAX, Profile, ProfileShape

SHAPES_MAX = 300
"""Most different shapes that cuts are looked for between."""
ROWS_MAX = 10_000_000
COUNT = "count"

Shape = tuple[tuple[int, ...], ...]
"""The sizes of each input, in the order of their names."""


@dataclass(frozen=True)
class Requests:
    """How often each shape was asked for."""

    inputs: tuple[str, ...]
    """Names, sorted."""
    counts: Mapping[Shape, int]

    @property
    def total(self) -> int:
        """How many requests there were."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Advice:
    """One profile, and what it is good for."""

    profile: Profile
    requests: int
    """How many requests it serves."""
    waste: float
    """Part of their elements that would be padding, if each were padded to the largest sizes."""


def read_requests(lines: Iterable[str]) -> Requests:
    """Return the requests that a CSV file lists.

    Its head names the model's inputs, and may name ``count``; below, each row has the sizes of one
    request, such as ``8x3x224x224``, and how many there were of it (1 without that column). Raises
    ``ProfileInvalid``, with the number of the row, for anything else.
    """
    rows = csv.reader(lines)
    head = [name.strip() for name in next(rows, [])]
    inputs = sorted(name for name in head if name != COUNT)
    if not inputs or len(set(head)) < len(head) or not all(head):
        raise ProfileInvalid(
            "the first row names the model's inputs, each once, and may name `count`: input,count"
        )
    counts: Counter[Shape] = Counter()
    ranks: tuple[int, ...] = ()
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if number > ROWS_MAX:
            raise ProfileInvalid(f"there are more than {ROWS_MAX} rows; count equal ones")
        if len(row) != len(head):
            raise ProfileInvalid(
                f"row {number} has {len(row)} fields, and the head {len(head)}"
            )
        said = dict(zip(head, row, strict=True))
        shape = tuple(_sizes(said[name], name, number) for name in inputs)
        ranks = ranks or tuple(map(len, shape))
        if tuple(map(len, shape)) != ranks:
            raise ProfileInvalid(
                f"row {number} has other numbers of dimensions than those before"
            )
        counts[shape] += _count(said.get(COUNT, "1"), number)
    if not counts.total():
        raise ProfileInvalid("the file lists no requests")
    return Requests(tuple(inputs), {shape: count for shape, count in counts.items() if count})


def suggest_profiles(requests: Requests, profiles_max: int) -> list[Advice]:
    """Return at most so many profiles that together serve every request, with the least waste.

    Fewer where more would save nothing. Ordered by volume. Raises ``ProfileInvalid`` for a number of
    profiles that is not 1 to 16.
    """
    if not 1 <= profiles_max <= PROFILES_MAX:
        raise ProfileInvalid(f"{profiles_max} profiles are not 1 to {PROFILES_MAX}")
    shapes = _thinned(
        sorted(requests.counts, key=lambda shape: (volume(shape), shape)), requests
    )
    counts = [sum(requests.counts[each] for each in group) for group in shapes]
    ends = _cuts(shapes, counts, profiles_max)
    return [
        _advice(requests, [each for group in shapes[start:end] for each in group])
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def volume(shape: Shape) -> int:
    """Return the number of elements of all inputs."""
    return sum(math.prod(sizes) for sizes in shape)


def _thinned(shapes: Sequence[Shape], requests: Requests) -> list[list[Shape]]:
    """Return neighbours together where there are too many to look at one by one."""
    size = math.ceil(len(shapes) / SHAPES_MAX)
    return [list(shapes[start : start + size]) for start in range(0, len(shapes), size)]


def _largest(shapes: Iterable[Shape]) -> Shape:
    return tuple(
        tuple(map(max, zip(*sizes, strict=True))) for sizes in zip(*shapes, strict=True)
    )


def _smallest(shapes: Iterable[Shape]) -> Shape:
    return tuple(
        tuple(map(min, zip(*sizes, strict=True))) for sizes in zip(*shapes, strict=True)
    )


def _cuts(
    groups: Sequence[Sequence[Shape]], counts: Sequence[int], profiles_max: int
) -> list[int]:
    """Return where stretches end, so that the elements they are padded to are fewest."""
    many = len(groups)
    padded = _padded(groups, counts)
    # best[k][end]: fewest elements of the first `end` groups in k stretches; where the last begins.
    best: list[list[tuple[float, int]]] = [[(0.0, 0)] + [(math.inf, 0)] * many]
    for _ in range(min(profiles_max, many)):
        last = best[-1]
        row = [
            min((last[start][0] + padded[end - 1][start], start) for start in range(end))
            for end in range(1, many + 1)
        ]
        best.append([(math.inf, 0), *row])
    stretches = min(range(1, len(best)), key=lambda k: (best[k][many][0], k))
    ends: list[int] = []
    end = many
    for k in range(stretches, 0, -1):
        ends.append(end)
        end = best[k][end][1]
    return ends[::-1]


def _padded(groups: Sequence[Sequence[Shape]], counts: Sequence[int]) -> list[list[int]]:
    """Return how many elements one profile for groups ``start`` to ``end`` pads its requests to.

    As ``[end][start]``, both within.
    """
    before = [0, *accumulate(counts)]
    largest = [_largest(group) for group in groups]
    padded: list[list[int]] = []
    for end in range(len(groups)):
        top, row = largest[end], []
        for start in range(end, -1, -1):
            top = _largest([top, largest[start]])
            row.append((before[end + 1] - before[start]) * volume(top))
        padded.append(row[::-1])
    return padded


def _advice(requests: Requests, shapes: Sequence[Shape]) -> Advice:
    low, high = _smallest(shapes), _largest(shapes)
    count = sum(requests.counts[shape] for shape in shapes)
    asked = sum(requests.counts[shape] * volume(shape) for shape in shapes)
    seen = 0
    best = shapes[-1]
    for shape in shapes:
        seen += requests.counts[shape]
        if 2 * seen >= count:
            best = shape
            break
    profile = Profile(
        shapes=tuple(
            ProfileShape(input=name, min=low[i], opt=best[i], max=high[i])
            for i, name in enumerate(requests.inputs)
        )
    )
    return Advice(profile, count, 1 - asked / (count * volume(high)))


def _sizes(text: str, name: str, row: int) -> tuple[int, ...]:
    parts = text.strip().split("x")
    if not all(part.isascii() and part.isdigit() for part in parts) or len(parts) > RANK_MAX:
        raise ProfileInvalid(
            f"row {row}: {text[:100]!r} for {name!r} is not sizes joined by `x`, such as 8x3x224x224"
        )
    sizes = tuple(int(part[:20]) for part in parts)
    if not all(1 <= size <= DIM_MAX for size in sizes):
        raise ProfileInvalid(f"row {row}: a size of {name!r} is not 1 to {DIM_MAX}")
    return sizes


def _count(text: str, row: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise ProfileInvalid(
            f"row {row}: count {text[:100]!r} is not a whole number of requests"
        )
    return int(text)
