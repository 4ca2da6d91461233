"""A picture is kept small without losing what it shows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.chaos.drawing import bands_that_fit, compact, merged, thinned

MOMENTS = st.lists(st.floats(0, 1_000, allow_nan=False), max_size=80).map(sorted)


def value_at(moment: float, times: Sequence[float], values: Sequence[float]) -> float:
    return [value for at, value in zip(times, values, strict=True) if at <= moment][-1]


def test_a_line_of_few_points_keeps_every_step() -> None:
    times, values = [0.0, 1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 7.0, 7.0, 7.0]
    assert thinned(times, values, columns=100) == ([0.0, 2.0, 4.0], [5.0, 7.0, 7.0])
    assert thinned([], [], columns=100) == ([], [])
    assert thinned([3.0], [1.0], columns=100) == ([3.0], [1.0])


def test_a_peak_of_one_sample_among_thousands_is_kept() -> None:
    times = [each / 4 for each in range(20_000)]
    values = [100.0 if each == 7_777 else float(each % 3) for each in range(20_000)]
    across, up = thinned(times, values, columns=50)
    assert max(up) == 100.0
    assert across[up.index(100.0)] == 7_777 / 4
    assert len(across) <= 102


@given(MOMENTS, st.integers(1, 40))
def test_a_thinned_line_has_the_ends_the_extremes_and_only_points_that_were(
    times: list[float], columns: int
) -> None:
    values = [float(hash((at, number)) % 9) for number, at in enumerate(times)]
    across, up = thinned(times, values, columns=columns)
    assert len(across) <= 2 * columns + 4
    assert set(zip(across, up, strict=True)) <= set(zip(times, values, strict=True))
    if times:
        assert (across[0], across[-1]) == (times[0], times[-1])
        assert (min(up), max(up)) == (min(values), max(values))


def test_bands_that_touch_are_one_and_others_are_not() -> None:
    assert merged([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0)], apart=0.0) == [(0.0, 3.0), (5.0, 6.0)]
    assert merged([(0.0, 3.0), (5.0, 6.0)], apart=2.5) == [(0.0, 6.0)]
    assert merged([], apart=1.0) == []


def test_bands_are_wide_enough_to_be_seen_and_stay_apart_while_there_is_room() -> None:
    kinds = {"Kill": [(1.0, 1.0), (9.0, 9.5)], "Freeze": [(2.0, 4.0)]}
    assert bands_that_fit(kinds, narrowest=0.5, most=10) == {
        "Kill": [(1.0, 1.5), (9.0, 9.5)],
        "Freeze": [(2.0, 4.0)],
    }


def test_of_too_many_bands_neighbours_become_one_and_no_kind_is_lost() -> None:
    kinds = {
        f"Kind{kind}": [(each + kind / 10, each + kind / 10 + 0.1) for each in range(500)]
        for kind in range(8)
    }
    fitting = bands_that_fit(kinds, narrowest=0.01, most=100)
    assert list(fitting) == list(kinds)
    assert 8 <= sum(map(len, fitting.values())) <= 100
    for kind, bands in fitting.items():
        assert bands[0][0] == kinds[kind][0][0]
        assert bands[-1][1] == kinds[kind][-1][1]
    # More kinds than bands: each keeps one.
    assert [len(each) for each in bands_that_fit(kinds, narrowest=0.01, most=3).values()] == [
        *[1] * 8
    ]


def test_a_compact_path_leads_along_the_same_points() -> None:
    svg = '<path d="M 1.04 2.0 \nL 5.26 2.0 \nL 5.26 9.96 \nL 5.26 9.96 \nL 1 1 \nz\n"/>'
    assert compact(svg) == '<path d="M1 2H5.3V10L1 1z"/>'


def test_what_is_compacted_keeps_curves_colours_and_text() -> None:
    curve = '<path d="M 0 1.5 \nC 0.40 1.5 0.77 1.34 1.06 1.06 \nz\n" style="opacity: 0.45"/>'
    assert compact(curve) == (
        '<path d="M 0 1.5 C 0.40 1.5 0.77 1.34 1.06 1.06 z" style="opacity: 0.45"/>'
    )
    text = '<g>\n    <text x="12.345678">seed 1.23456 L 2 d=" "</text>\n   </g>'
    assert compact(text) == '<g>\n<text x="12.3">seed 1.23456 L 2 d=" "</text>\n</g>'
    assert not re.search(r"-0\b(?!\.)", compact('<text x="-0.0012"/>'))
