"""How seats are borrowed, in a file of pools: what is read, refused with its place, and planned."""

from __future__ import annotations

import pytest
from tests.client.pools_file.test_reader import HEAD, faults

from seatkeeper.client.pools_file import read_pools, write_pools
from seatkeeper.client.pools_file.plan import _values
from seatkeeper.client.pools_file.rules import rule_values

RULE = (
    HEAD + "  p:\n    seats: 5\n    borrow: {longest: 30d, seats: 3, low_water: 1, skew: 5m}\n"
)


def test_a_rule_is_read_and_written_as_it_was() -> None:
    (spec,) = read_pools(RULE.encode()).pools.values()
    rule = spec.policy.borrow
    assert (rule.longest.ToSeconds(), rule.skew.ToSeconds()) == (30 * 86_400, 300)
    assert (rule.seats, rule.low_water) == (3, 1)
    text = write_pools([spec])
    assert "borrow: {longest: 2592000, seats: 3, low_water: 1, skew: 300}" in text
    assert list(read_pools(text.encode()).pools.values()) == [spec]
    assert _values(spec)["borrow.longest"] == 30 * 86_400


def test_what_is_left_out_is_as_nodes_have_it() -> None:
    (spec,) = read_pools(
        (HEAD + "  p:\n    seats: 5\n    borrow: {longest: 1d}\n").encode()
    ).pools.values()
    assert not spec.policy.borrow.HasField("seats")
    assert spec.policy.borrow.skew.ToSeconds() == 600


LISTS = (
    HEAD
    + "  p:\n    seats: 5\n    groups: {field: {holders: [ada]}}\n"
    + "    borrow: {longest: 1d, per_project: 2, include: {groups: [field]}, exclude: {hosts: [b]}}\n"
)


def test_who_may_borrow_is_read_and_written_as_it_was() -> None:
    (spec,) = read_pools(LISTS.encode()).pools.values()
    rule = spec.policy.borrow
    assert (rule.per_project, list(rule.include.groups), list(rule.exclude.hosts)) == (
        *(2, ["field"], ["b"]),
    )
    text = write_pools([spec])
    assert (
        "per_project: 2, skew: 600, include: {groups: [field]}, exclude: {hosts: [b]}}" in text
    )
    assert list(read_pools(text.encode()).pools.values()) == [spec]
    assert rule_values(spec)["borrow.include.groups"] == "field"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("30d", "5:13: pools.p.borrow: '30d', where borrow is a mapping with the keys"),
        ("{seats: 3}", "5:13: pools.p.borrow: borrow needs `longest`"),
        ("{longest: 1s}", "5:23: pools.p.borrow.longest: '1s' is not from 2 s to"),
        ("{longest: 367d}", "5:23: pools.p.borrow.longest: '367d' is not from 2 s to"),
        ("{longest: 1d, skew: 2d}", "5:33: pools.p.borrow.skew: '2d' is not from 0 s to"),
        ("{longest: 1d, seats: -1}", "5:34: pools.p.borrow.seats: "),
        ("{longest: 1d, include: {groups: [x]}}", "5:46: pools.p.borrow.include.groups[0]: "),
        (
            "{longest: 1d, exclude: {holders: ['**']}}",
            "5:47: pools.p.borrow.exclude.holders[0]: ",
        ),
        ("{longest: 1d, per_project: -1}", "5:40: pools.p.borrow.per_project: "),
        ("{longest: 1d, hours: 3}", "5:27: pools.p.borrow.hours: "),
    ],
)
def test_a_rule_that_cannot_be(rule: str, expected: str) -> None:
    found = faults(HEAD + f"  p:\n    seats: 1\n    borrow: {rule}\n")
    assert any(str(fault).startswith(expected.partition(": ")[0]) for fault in found), found
