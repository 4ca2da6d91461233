"""Which names of sizes a profile contradicts."""

from __future__ import annotations

import pytest

from seatkeeper.artifacts.plan import parse_profile
from seatkeeper.builder.backends._dimensions import Place, contradicted

NAMES: dict[Place, str] = {
    ("x", 0): "batch",
    ("x", 1): "",
    ("x", 2): "?",
    ("x", 3): "?",
    ("m", 0): "batch",
}


@pytest.mark.parametrize(
    ("profiles", "found"),
    [
        ([], []),
        (["x=1x3x8x8,m=1"], []),
        (["x=1x3x48x192,m=1"], ["?"]),
        (["x=1x3x8x8,m=1", "x=1x3x8x8:1x3x8x8:1x3x8x9,m=1"], ["?"]),
        (["x=1x3x8x8,m=2"], ["batch"]),
        (["x=1x3x8x9,m=1:1:2"], ["batch", "?"]),
        (["x=1x3x8x8"], []),
        (["other=1x3x8x8"], []),
    ],
)
def test_a_name_that_stands_for_two_sizes_is_found(
    profiles: list[str], found: list[str]
) -> None:
    said = contradicted(NAMES, [parse_profile(text) for text in profiles])
    assert list(said) == found
    assert all(NAMES[place] == name for name, places in said.items() for place in places)
