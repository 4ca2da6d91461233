"""Which grants count once, in a file of pools: what is read, refused with its place, and planned."""

from __future__ import annotations

import pytest
from tests.client.pools_file.test_reader import HEAD, faults

from seatkeeper.client.pools_file import read_pools, write_pools
from seatkeeper.client.pools_file.counting import counting_values

POOL = HEAD + "  p:\n    seats: 5\n    count_once: {}\n"


def test_it_is_read_and_written_as_it_was() -> None:
    (spec,) = read_pools(POOL.format("[holder, label:display]").encode()).pools.values()
    assert list(spec.policy.count_once) == ["holder", "label:display"]
    text = write_pools([spec])
    assert "    count_once: [holder, label:display]\n" in text
    assert list(read_pools(text.encode()).pools.values()) == [spec]
    assert counting_values(spec) == {"count_once": "holder, label:display"}


def test_an_empty_list_is_none() -> None:
    (spec,) = read_pools(POOL.format("[]").encode()).pools.values()
    assert not spec.policy.count_once
    assert "count_once" not in write_pools([spec])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("holder", "5:17: pools.p.count_once: "),
        ("[user]", "5:18: pools.p.count_once[0]: 'user' is none of `holder`, `host` and"),
        ("[host, host]", "5:24: pools.p.count_once[1]: host is there twice"),
        ("[label:A]", "5:18: pools.p.count_once[0]: "),
        (
            "[host]\n    per_holder: {seats: 1}",
            "5:18: pools.p.count_once[0]: the pool says how",
        ),
        (
            "[holder]\n    per_host: {seats: 1}",
            "5:18: pools.p.count_once[0]: the pool says how",
        ),
    ],
)
def test_what_cannot_be(said: str, expected: str) -> None:
    found = [str(each) for each in faults(POOL.format(said))]
    assert any(expected in each for each in found), found
