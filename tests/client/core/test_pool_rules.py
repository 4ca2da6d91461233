"""Who may use a pool, in tables; and what may be said of it."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.core.pool_rule_faults import GROUPS_MAX, NAMES_MAX, rule_faults
from seatkeeper.core.pool_rules import AtMost, HolderGroup, PoolRules, Who

GROUPS = (HolderGroup("students", ("alice@lab", "s-*")), HolderGroup("staff", ("*@office",)))


@pytest.mark.parametrize(
    ("include", "exclude", "holder", "project", "broken"),
    [
        (Who(), Who(), "alice", "cv", None),
        (Who(projects=("cv",)), Who(), "alice", "cv", None),
        (Who(projects=("cv",)), Who(), "alice", "nlp", "include"),
        (Who(projects=("cv", "n*")), Who(), "alice", "nlp", None),
        (Who(projects=("cv",), holders=("alice",)), Who(), "alice", "nlp", None),
        (Who(groups=("students",)), Who(), "alice@lab", "cv", None),
        (Who(groups=("students",)), Who(), "s-", "cv", None),
        (Who(groups=("students",)), Who(), "bert@office", "cv", "include"),
        (Who(groups=("students", "staff")), Who(), "bert@office", "cv", None),
        (Who(), Who(holders=("mal*",)), "mallory", "cv", "exclude"),
        (Who(), Who(holders=("mal*",)), "Mallory", "cv", None),
        (Who(), Who(holders=("*@build-7",)), "alice@build-7", "cv", "exclude"),
        (Who(), Who(holders=("*@build-7",)), "alice@build-77", "cv", None),
        (Who(), Who(holders=("a*a",)), "a", "cv", None),  # the two ends must not overlap
        (Who(), Who(holders=("a*a",)), "aa", "cv", "exclude"),
        (Who(), Who(holders=("a.c", "[x]")), "abc", "cv", None),  # no other pattern
        (Who(), Who(projects=("*",)), "alice", "cv", "exclude"),
        # What is excluded is excluded, also where it is included by another name of it.
        (Who(holders=("alice",)), Who(projects=("cv",)), "alice", "cv", "exclude"),
        (Who(holders=("alice",)), Who(groups=("staff",)), "bert@office", "cv", "exclude"),
    ],
)
def test_who_is_let_in(
    include: Who, exclude: Who, holder: str, project: str, broken: str | None
) -> None:
    assert PoolRules(GROUPS, include, exclude).broken_by(holder, project, 1) == broken


@pytest.mark.parametrize(
    ("per_holder", "per_project", "seats", "broken"),
    [
        (AtMost(seats=2), AtMost(), 2, None),
        (AtMost(seats=2), AtMost(), 3, "per_holder"),
        (AtMost(seats=9), AtMost(seats=2), 3, "per_project"),
        (AtMost(tickets=0), AtMost(tickets=0), 99, None),
    ],
)
def test_what_one_request_may_ask_for(
    per_holder: AtMost, per_project: AtMost, seats: int, broken: str | None
) -> None:
    rules = PoolRules(per_holder=per_holder, per_project=per_project)
    assert rules.broken_by("alice", "cv", seats) == broken


@given(st.text("ab*?[]", min_size=1, max_size=6), st.text("ab", max_size=6))
def test_a_pattern_means_what_a_shell_means_by_its_star(pattern: str, name: str) -> None:
    if pattern.count("*") > 1:
        return
    rules = PoolRules(exclude=Who(holders=(pattern,)))
    plain = pattern.replace("[", "[[]").replace("?", "[?]")
    assert (rules.broken_by(name, "cv", 1) is not None) == fnmatch.fnmatchcase(name, plain)


MANY = tuple(f"h{n}" for n in range(NAMES_MAX))


@pytest.mark.parametrize(
    ("rules", "way", "said"),
    [
        (PoolRules((HolderGroup("Not", ("a",)),)), ("groups", 0, "name"), "not a name"),
        (PoolRules((*GROUPS, GROUPS[0])), ("groups", 2, "name"), "twice"),
        (PoolRules((HolderGroup("a", ()),)), ("groups", 0, "holders"), "no holder"),
        (PoolRules((HolderGroup("a", ("b", "b")),)), ("groups", 0, "holders", 1), "twice"),
        (PoolRules((HolderGroup("a", ("",)),)), ("groups", 0, "holders", 0), "1 to 253"),
        (PoolRules(include=Who(holders=("a\n",))), ("include", "holders", 0), "be shown"),
        (PoolRules(include=Who(holders=("*a*",))), ("include", "holders", 0), "more than one"),
        (PoolRules(include=Who(holders=("a" * 254,))), ("include", "holders", 0), "1 to 253"),
        (PoolRules(exclude=Who(projects=("A",))), ("exclude", "projects", 0), "not a project"),
        (PoolRules(exclude=Who(projects=("-a",))), ("exclude", "projects", 0), "not a project"),
        (PoolRules(exclude=Who(projects=("a**",))), ("exclude", "projects", 0), "one `*`"),
        (PoolRules(exclude=Who(groups=("nope",))), ("exclude", "groups", 0), "no group nope"),
        (PoolRules(GROUPS, Who(groups=("staff",) * 2)), ("include", "groups", 1), "twice"),
        (PoolRules(per_holder=AtMost(seats=0)), ("per_holder", "seats"), "from 1 to"),
        (PoolRules(per_project=AtMost(tickets=-1)), ("per_project", "tickets"), "from 0 to"),
        (PoolRules(include=Who(holders=(*MANY, "x"))), ("include",), "1001 names"),
        (PoolRules((HolderGroup("a", (*MANY, "x")),)), ("groups",), "1001 names"),
        (
            PoolRules(tuple(HolderGroup(f"g{n}", ("a",)) for n in range(GROUPS_MAX + 1))),
            ("groups",),
            "101 groups",
        ),
    ],
)
def test_what_is_refused(rules: PoolRules, way: tuple[str | int, ...], said: str) -> None:
    ((found, reason),) = rule_faults(rules)
    assert found == way
    assert said in reason


def test_what_is_allowed_at_the_bounds() -> None:
    rules = PoolRules(
        include=Who(holders=MANY[:-2], projects=("*", "*-x")),
        per_holder=AtMost(1, 0),
        per_project=AtMost(100_000, 100_000),
    )
    assert list(rule_faults(rules)) == []
