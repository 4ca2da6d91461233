"""Which profiles fit the requests that a model gets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatkeeper.artifacts.errors import ProfileInvalid
from seatkeeper.artifacts.plan import format_profile
from seatkeeper.artifacts.profile_advice import (
    Requests,
    Shape,
    read_requests,
    suggest_profiles,
    volume,
)

LOG = ["x,count", "1x8,90", "2x8,10", "30x8,5", "32x8,45"]


def test_two_sizes_that_come_often_get_a_profile_each() -> None:
    advice = suggest_profiles(read_requests(LOG), 2)
    assert [format_profile(each.profile) for each in advice] == [
        "x=1x8:1x8:2x8",
        "x=30x8:32x8:32x8",
    ]
    assert [each.requests for each in advice] == [100, 50]
    assert [each.waste for each in advice] == pytest.approx([0.45, 0.00625])


def test_one_profile_serves_everything() -> None:
    (only,) = suggest_profiles(read_requests(LOG), 1)
    assert format_profile(only.profile) == "x=1x8:1x8:32x8"
    assert only.requests == 150


def test_no_more_profiles_than_are_of_use() -> None:
    assert len(suggest_profiles(read_requests(LOG), 16)) == 4
    assert len(suggest_profiles(read_requests(["x", "4x4", "4x4"]), 16)) == 1


def test_several_inputs_are_sized_together() -> None:
    requests = read_requests(["ids,mask", "1x5,1x5", "1x9,1x9", "4x5,4x5"])
    (only,) = suggest_profiles(requests, 1)
    assert format_profile(only.profile) == "ids=1x5:1x9:4x9,mask=1x5:1x9:4x9"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "first row names"),
        (["count"], "first row names"),
        (["x,x"], "each once"),
        (["x,"], "first row names"),
        (["x"], "lists no requests"),
        (["x,count", "1x2,0"], "lists no requests"),
        (["x", "1x2", "1x2x3"], "row 3 has other numbers of dimensions"),
        (["x", "1x2,7"], "row 2 has 2 fields"),
        (["x", "1xtwo"], "row 2: '1xtwo'"),
        (["x", "1x-2"], "row 2"),
        (["x", "0x2"], "not 1 to"),
        (["x", "9999999999x2"], "not 1 to"),
        (["x", "\N{ARABIC-INDIC DIGIT ONE}x2"], "row 2"),
        (["x,count", "1x2,some"], "count 'some'"),
        (["x,count", "1x2,-3"], "count '-3'"),
    ],
)
def test_what_is_no_list_of_requests_is_refused_by_row(lines: list[str], said: str) -> None:
    with pytest.raises(ProfileInvalid, match=said):
        read_requests(lines)


@pytest.mark.parametrize("count", [0, 17, -1])
def test_profiles_are_one_to_sixteen(count: int) -> None:
    with pytest.raises(ProfileInvalid, match="not 1 to 16"):
        suggest_profiles(read_requests(LOG), count)


shapes: st.SearchStrategy[Shape] = st.tuples(st.tuples(st.integers(1, 12), st.integers(1, 3)))
histograms = st.dictionaries(
    shapes,
    st.integers(1, 50),
    min_size=1,
    max_size=6,
).map(lambda counts: Requests(("x",), counts))


@settings(deadline=None)
@given(histograms, st.integers(1, 4))
def test_every_request_is_served_once_and_fits(requests: Requests, count: int) -> None:
    advice = suggest_profiles(requests, count)
    assert len(advice) <= count
    assert sum(each.requests for each in advice) == requests.total
    for shape in requests.counts:
        assert any(
            all(
                low <= size <= high for low, size, high in zip(p.min, sizes, p.max, strict=True)
            )
            for each in advice
            for p, sizes in zip(each.profile.shapes, shape, strict=True)
        )
    assert all(0 <= each.waste < 1 for each in advice)


@settings(deadline=None)
@given(histograms, st.integers(1, 3))
def test_no_other_cuts_waste_less(requests: Requests, count: int) -> None:
    def padded(groups: list[list[tuple[tuple[int, ...], ...]]]) -> int:
        return sum(
            sum(requests.counts[s] for s in group)
            * volume(
                tuple(
                    tuple(map(max, zip(*sizes, strict=True)))
                    for sizes in zip(*group, strict=True)
                )
            )
            for group in groups
        )

    shapes = sorted(requests.counts, key=lambda shape: (volume(shape), shape))
    places = range(1, len(shapes))
    least = min(
        padded([shapes[a:b] for a, b in itertools.pairwise([0, *cuts, len(shapes)])])
        for many in range(min(count, len(shapes)))
        for cuts in itertools.combinations(places, many)
    )
    advice = suggest_profiles(requests, count)
    reached = sum(
        each.requests * volume(tuple(s.max for s in each.profile.shapes)) for each in advice
    )
    assert reached == least


def test_a_log_of_many_sizes_is_read_in_groups() -> None:
    many: list[Shape] = [((size, 2),) for size in range(1, 2_501)]
    requests = Requests(("x",), dict.fromkeys(many, 1))
    advice = suggest_profiles(requests, 3)
    assert sum(each.requests for each in advice) == 2_500
