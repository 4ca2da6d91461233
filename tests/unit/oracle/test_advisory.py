"""The checker's own reading of advisory pools: what it must report, and what it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.kit import POOL, a_grant, changed
from tests.unit.oracle.test_chaos_history import (
    checked,
    grant_gone,
    granted,
    guard,
    kinds,
    mark,
    put,
    spec,
)
from tests.unit.oracle.test_taken_over import decided

from seatkeeper.core.counting import Counting
from seatkeeper.core.pool_rules import PoolRules, Who
from seatkeeper.oracle.history import FaultKind
from seatkeeper.server.domain import Grant, PoolPolicy, PoolSpec, ProjectShare
from seatkeeper.server.domain.advisory import AdvisoryMark
from seatkeeper.server.store import Change, records

ADVISORY = Counting(is_advisory=True)
PLAIN = PoolPolicy(counting=ADVISORY)
NO_BOB = PoolPolicy(rules=PoolRules(exclude=Who(holders=("bob",))), counting=ADVISORY)
LIMITED = PoolPolicy((ProjectShare(project="cv", limit=1),), counting=ADVISORY)


def of(policy: PoolPolicy, seats: int = 2) -> Change:
    return put(spec(1).key, records.encode_spec(PoolSpec(POOL, seats, policy=policy)))


def g(
    number: int, seats: int = 1, beyond: int = -1, rule: str = "seats", holder: str = "a"
) -> Grant:
    grant = changed(
        a_grant(number, fence=number, seats=seats, session=f"s{number}"), holder=holder
    )
    if beyond < 0:
        return grant
    return replace(grant, mark=AdvisoryMark(rule, "said", beyond))


@pytest.mark.parametrize(
    ("policy", "revisions", "expected"),
    [
        (PLAIN, [[granted(g(1, 2))], [granted(g(2, 1, 1))]], []),
        (PLAIN, [[granted(g(1, 1)), granted(g(2, 3, 2))]], []),
        (PLAIN, [[granted(g(1, 2))], [granted(g(2))]], [FaultKind.MARK, FaultKind.MARK]),
        (PLAIN, [[granted(g(1, 2))], [granted(g(2, 2, 1))]], [FaultKind.MARK]),
        (PLAIN, [[granted(g(1, 1, 1))]], [FaultKind.MARK]),
        (PLAIN, [[granted(g(1, 1, 0, "per_holder"))]], []),
        (NO_BOB, [[granted(g(1, holder="bob"))]], [FaultKind.MARK]),
        (NO_BOB, [[granted(g(1, 1, 0, "exclude", "bob"))]], []),
        (LIMITED, [[granted(g(1))], [granted(g(2))]], [FaultKind.MARK]),
        (LIMITED, [[granted(g(1))], [granted(g(2, 1, 0, "limit"))]], []),
        # A pool that binds keeps to its capacity, and marks none.
        (PoolPolicy(), [[granted(g(1, 2))], [granted(g(2))]], [FaultKind.OVER_GRANT]),
        (PoolPolicy(), [[granted(g(1, 1, 0, "limit"))]], [FaultKind.MARK]),
    ],
)
def test_what_is_reported(
    policy: PoolPolicy, revisions: list[list[Change]], expected: list[FaultKind]
) -> None:
    assert kinds(checked([of(policy)], *([*each, guard()] for each in revisions))) == expected


def test_a_pool_that_binds_again_only_drains() -> None:
    before = [[of(PLAIN)], [granted(g(1, 2)), guard()], [granted(g(2, 1, 1)), guard()]]
    bound = [*before, [of(PoolPolicy())]]
    assert checked(*bound, [grant_gone(1)], [granted(g(3)), guard()]).is_correct
    wrong = checked(*bound, [granted(g(3)), guard()])
    assert kinds(wrong) == [FaultKind.OVER_GRANT]


def test_a_decision_may_not_know_yet_what_has_gone_with_its_session() -> None:
    before = [[of(PLAIN)], [granted(g(1, 2)), guard()]]
    assert checked(*before, [grant_gone(1)], [granted(g(2, 1, 1)), guard()]).is_correct
    assert checked(*before, [grant_gone(1)], [granted(g(2)), guard()]).is_correct
    known = checked(*before, [grant_gone(1)], [guard()], [granted(g(2, 1, 1)), guard()])
    assert kinds(known) == [FaultKind.MARK]


def test_what_is_taken_over_after_a_limit_was_lowered_needs_no_mark() -> None:
    """Its holder had the seats before, as in a pool that binds."""
    before = [[of(PLAIN)], [granted(g(1)), guard()], [granted(g(2)), guard()], [of(LIMITED)]]
    elsewhere = replace(g(3), session_id="elsewhere", continues=2, taken_from=g(2).granted_at)
    moved = [granted(elsewhere), grant_gone(2), mark("s2", 2), decided(2)]
    assert checked(*before, moved).is_correct
    fresh = [granted(g(3)), grant_gone(2), mark("s2", 2), decided()]
    assert kinds(checked(*before, fresh)) == [FaultKind.MARK]
