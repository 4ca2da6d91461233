"""Which policies a pool can have."""

from __future__ import annotations

import pytest

from seatkeeper.server.domain import PoolPolicy, ProjectShare, policy_fault


def p(project: str, **given: object) -> ProjectShare:
    return ProjectShare(project=project, **given)  # type: ignore[arg-type]  # of any type


@pytest.mark.parametrize(
    ("projects", "place", "field", "why"),
    [
        ([p("a"), p("a")], 1, "project", "listed twice"),
        ([p("a", weight=0)], 0, "weight", "0 is not from 1 to 1000"),
        ([p("a", weight=1001)], 0, "weight", "1001"),
        ([p("a", guaranteed=-1)], 0, "guaranteed", "under 0"),
        ([p("a", limit=-1)], 0, "limit", "under 0"),
        ([p("a", guaranteed=3, limit=2)], 0, "limit", "2 is under the 3 guaranteed"),
        ([p("a", guaranteed=11)], 0, "guaranteed", "11 is more than the pool has seats: 10"),
        ([p("a", guaranteed=6), p("b"), p("c", guaranteed=5)], 2, "guaranteed", "sum to 11"),
        ([p("a", parent="b")], 0, "parent", "no project b is listed"),
        ([p("a", parent="a")], 0, "parent", "a part of itself: a in a"),
        ([p("a", parent="b"), p("b", parent="a")], 0, "parent", "a in b in a"),
        (
            [p("a"), *(p(each, parent=up) for each, up in ("ba", "cb", "dc", "ed"))],
            4,
            "parent",
            "e is more than 4 levels deep",
        ),
        (
            [p("a", guaranteed=2), p("b", guaranteed=3, parent="a")],
            0,
            "guaranteed",
            "sum to 3, over its own 2",
        ),
        (
            [p("a", limit=2), p("b", guaranteed=3, parent="a")],
            0,
            "limit",
            "over its limit of 2",
        ),
        # Parts' guarantees count also where their parent has none.
        (
            [p("a"), p("b", guaranteed=6, parent="a"), p("c", guaranteed=5)],
            2,
            "guaranteed",
            "11",
        ),
    ],
)
def test_a_policy_that_cannot_be_kept(
    projects: list[ProjectShare], place: int, field: str, why: str
) -> None:
    fault = policy_fault(PoolPolicy(tuple(projects)), 10)
    assert fault is not None
    assert fault[:2] == (place, field)
    assert why in fault[2]


@pytest.mark.parametrize(
    "projects",
    [
        [],
        [p("a", guaranteed=10, limit=10, weight=1000)],
        [p("a", limit=0)],
        [p("a", guaranteed=4), p("b", guaranteed=4, parent="a"), p("c", guaranteed=6)],
        [p("a"), *(p(each, parent=up) for each, up in ("ba", "cb", "dc"))],
    ],
)
def test_a_policy_that_can_be_kept(projects: list[ProjectShare]) -> None:
    assert policy_fault(PoolPolicy(tuple(projects)), 10) is None


def test_a_closed_pool_keeps_its_guarantees() -> None:
    policy = PoolPolicy((p("a", guaranteed=10),))
    assert policy_fault(policy, 0) is None
    assert policy_fault(policy, 9) is not None


def test_what_holds_for_a_project() -> None:
    policy = PoolPolicy(
        (p("a", limit=5), p("b", parent="a", guaranteed=2), p("c", parent="b", limit=7))
    )
    assert policy.path("c") == ("c", "b", "a")
    assert policy.path("z") == ("z",)
    assert policy.guaranteed == {"a": 2, "b": 2, "c": 0}
    assert {name: each.limit for name, each in policy.tightest.items()} == dict.fromkeys(
        "abc", 5
    )
    assert policy.share("z") == p("z")
    assert str(policy.share("b")) == "b: guaranteed=2,parent=a"
