"""Seats that a holder takes over in another session, as the checker reads them in the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.unit.kit import KEYS, NOW, POOL, a_grant, in_revisions, uuid7
from tests.unit.oracle.test_chaos_history import (
    checked,
    grant_gone,
    granted,
    kinds,
    mark,
    put,
    spec,
)

from seatkeeper.oracle.history import FaultKind
from seatkeeper.oracle.taken_over import count_taken_over
from seatkeeper.server.domain import Grant, Guard, Instant
from seatkeeper.server.events.facts import encode_facts
from seatkeeper.server.store import Change, records

STAY = FaultKind.STAY
OLD = a_grant(1, fence=1)
NEW = replace(
    a_grant(2, fence=2),
    session_id="anna2",
    granted_at=Instant(NOW + 1000),
    continues=1,
    taken_from=NOW,
)


def decided(*taken_over: int) -> Change:
    facts = encode_facts(7, NOW, (), (), reclaimed=taken_over, taken_over=taken_over)
    return put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9), 7, facts))


def history(
    *made: Grant, taken_over: Sequence[int] = (1,), ended: Sequence[int] = (1,)
) -> list[list[Change]]:
    last = [*map(granted, made), *map(grant_gone, ended), mark("anna", 1), decided(*taken_over)]
    return [[spec(3)], [granted(OLD), decided()], last]


def test_what_is_taken_over_is_as_it_was() -> None:
    assert checked(*history(NEW)).is_correct


@pytest.mark.parametrize(
    "other",
    [
        replace(NEW, seats=2),
        replace(NEW, attribution=replace(OLD.attribution, holder="bert@host")),
        replace(NEW, attribution=replace(OLD.attribution, project="nlp")),
        replace(NEW, taken_from=Instant(0)),
        replace(NEW, session_id="anna"),
    ],
)
def test_and_nothing_else_is(other: Grant) -> None:
    assert kinds(checked(*history(other))) == [STAY]


def test_it_is_one_grant_that_is_made_and_the_other_ends() -> None:
    third = replace(NEW, grant_id=uuid7(3), fence=3)
    assert STAY in kinds(checked(*history(NEW, third)))
    assert STAY in kinds(checked(*history(NEW, replace(third, continues=0))))
    assert STAY in kinds(checked(*history(NEW, ended=())))
    assert STAY in kinds(checked(*history()))


def test_a_grant_that_no_decision_says_was_taken_over_was_not() -> None:
    assert kinds(checked(*history(NEW, taken_over=()))) == [STAY]


def test_they_are_counted() -> None:
    assert count_taken_over(in_revisions(history(NEW)), KEYS.prefix) == 1
