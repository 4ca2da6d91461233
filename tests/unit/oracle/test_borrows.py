"""The checker's own reading of borrowed seats: what it must report, and what it must not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.kit import KEYS, NOW, POOL, a_grant, in_revisions, uuid7
from tests.unit.oracle.test_chaos_history import (
    checked,
    grant_gone,
    granted,
    guard,
    kinds,
    put,
    spec,
)

from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.core.pool_rules import Who
from seatkeeper.oracle.checker import Invariant, check_history
from seatkeeper.oracle.history import FaultKind
from seatkeeper.server.domain import Borrow, Grant, Guard, Instant, PoolPolicy, PoolSpec
from seatkeeper.server.events.facts import encode_facts
from seatkeeper.server.store import Change, records

DAY, SKEW = timedelta(days=1), timedelta(minutes=10)
RULE = BorrowRule(longest=DAY, seats=1, skew=SKEW)
BORROWED, REWRITTEN = FaultKind.BORROWED, FaultKind.REWRITTEN


def millis(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def of(rule: BorrowRule | None = RULE, seats: int = 2) -> Change:
    policy = PoolPolicy(borrow=rule)
    return put(spec(1).key, records.encode_spec(PoolSpec(POOL, seats, policy=policy)))


def held(number: int = 1) -> Grant:
    return a_grant(number, fence=number, session=f"s{number}")


def lent(
    number: int = 1, *, length: timedelta = DAY, skew: timedelta = SKEW, **other: object
) -> Change:
    until = NOW + millis(length)
    borrow = Borrow(b"k" * 32, "thumb", Instant(until), Instant(until + millis(skew)), NOW)
    grant = replace(held(number), session_id="", lease_id=0, borrow=borrow)
    return granted(replace(grant, **other))  # type: ignore[arg-type]  # any of its fields


def decided(
    after: timedelta,
    *,
    released: Sequence[int] = (),
    returned: Sequence[int] = (),
    reclaimed: Sequence[int] = (),
) -> Change:
    """Return the guard of a decision, which says what it ended, and when."""
    at = Instant(NOW + millis(after))
    facts = encode_facts(7, at, released, (), returned=returned, reclaimed=reclaimed)
    return put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9), 7, facts))


BEFORE: list[list[Change]] = [[of()], [granted(held()), guard()]]


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ([lent(), guard()], []),
        ([lent(length=DAY + SKEW), guard()], [BORROWED]),
        ([lent(skew=timedelta(0)), guard()], [BORROWED]),
        ([lent()], [BORROWED]),
        ([lent(fence=2), guard()], [REWRITTEN]),
        ([lent(seats=2), guard()], [REWRITTEN, BORROWED]),
        ([granted(replace(held(), session_id="thief")), guard()], [REWRITTEN]),
        ([granted(replace(held(), session_id="")), guard()], [REWRITTEN]),
        ([lent(2), guard()], [BORROWED]),
    ],
)
def test_what_may_become_of_a_grant(revision: list[Change], expected: list[FaultKind]) -> None:
    assert set(kinds(checked(*BEFORE, revision))) == set(expected)


@pytest.mark.parametrize(
    ("rule", "is_right"),
    [
        (RULE, False),
        (replace(RULE, seats=2), True),
        (replace(RULE, seats=None), True),
        (replace(RULE, seats=None, low_water=1), False),
        (None, False),
        (replace(RULE, seats=None, per_project=2), True),
        (replace(RULE, seats=None, per_project=1), False),
        (replace(RULE, seats=None, exclude=Who(holders=("s2@host",))), False),
        (replace(RULE, seats=None, include=Who(holders=("s1@host",))), False),
        (replace(RULE, seats=None, include=Who(projects=("c*",))), True),
    ],
)
def test_how_many_may_be_borrowed(rule: BorrowRule | None, is_right: bool) -> None:
    history = [[of(rule)], [granted(held(1)), granted(held(2)), guard()], [lent(1), guard()]]
    assert checked(*history, [lent(2), guard()]).is_correct is is_right


@pytest.mark.parametrize(
    ("revision", "is_right"),
    [
        ([decided(DAY + SKEW, released=[1])], True),
        ([decided(2 * DAY, released=[1])], True),
        ([decided(DAY, released=[1])], False),
        ([decided(timedelta(0), released=[1])], False),
        ([decided(timedelta(0), released=[1], returned=[1])], True),
        ([decided(timedelta(0), released=[1], returned=[2])], False),
        ([decided(timedelta(0), reclaimed=[1])], True),
        ([], False),
    ],
)
def test_how_it_may_end(revision: list[Change], is_right: bool) -> None:
    history = checked(*BEFORE, [lent(), guard()], [*revision, grant_gone(1)])
    assert history.is_correct is is_right
    if not is_right:
        assert kinds(history) == [BORROWED]


def test_what_is_borrowed_never_changes_and_is_no_rest() -> None:
    before = [*BEFORE, [lent(), guard()]]
    other = checked(*before, [lent(length=2 * DAY), guard()])
    assert REWRITTEN in kinds(other)
    back = checked(*before, [granted(held()), guard()])
    assert REWRITTEN in kinds(back)
    assert checked(*before).borrowed == 1
    assert list(check_history(in_revisions(before), KEYS.prefix)) == []
    left = [*before, [granted(held(2)), guard()]]
    (violation,) = check_history(in_revisions(left), KEYS.prefix)
    assert violation.invariant is Invariant.I8
    assert "1 seats out" in violation.message


def test_the_next_holder_has_it_when_it_is_freed() -> None:
    before = [[of(seats=1)], [granted(held()), guard()], [lent(), guard()]]
    freed = [decided(DAY + SKEW, released=[1]), grant_gone(1), granted(held(2))]
    assert checked(*before, freed).is_correct
    assert kinds(checked(*before, [granted(held(2)), guard()])) == [FaultKind.OVER_GRANT]
    assert uuid7(1) < uuid7(2)
