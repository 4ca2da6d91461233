"""The checker's own reading of grants that count once: what it must report, and what it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.kit import KEYS, POOL, a_grant, a_ticket, changed, in_revisions, uuid7
from tests.unit.oracle.test_chaos_history import (
    checked,
    grant_gone,
    granted,
    guard,
    kinds,
    put,
    queued,
    spec,
)

from seatkeeper.oracle.checker import Invariant, Life, check_beliefs, check_history
from seatkeeper.oracle.history import FaultKind
from seatkeeper.oracle.record import Believed
from seatkeeper.server.domain import Grant, PoolPolicy, PoolSpec
from seatkeeper.server.store import Change, records

ANNA = (("project", "cv"), ("holder", "anna"))
COUNTED, OVER, ORDER = FaultKind.COUNTED, FaultKind.OVER_GRANT, FaultKind.ORDER


def of(*named: str, seats: int = 1) -> Change:
    policy = PoolPolicy(count_once=named)
    return put(spec(1).key, records.encode_spec(PoolSpec(POOL, seats, policy=policy)))


def held(number: int, seats: int = 1, group: tuple[tuple[str, str], ...] = ANNA) -> Grant:
    grant = a_grant(number, fence=number, session=f"s{number}", seats=seats)
    return replace(changed(grant, holder="anna"), group=group)


def waits(number: int, holder: str, order: int) -> Change:
    return queued(changed(a_ticket(number, order=order, session=f"s{number}"), holder=holder))


@pytest.mark.parametrize(
    ("revisions", "expected"),
    [
        ([[of("holder")], [granted(held(1)), guard()], [granted(held(2)), guard()]], []),
        ([[of("holder")], [granted(held(1)), granted(held(2)), guard()]], []),
        ([[of("holder")], [granted(held(1, 2)), guard()]], [OVER]),
        ([[of("holder")], [granted(held(1)), guard()], [granted(held(2, 2)), guard()]], [OVER]),
        ([[of("holder", seats=2)], [granted(held(1, group=())), guard()]], [COUNTED]),
        ([[of()], [granted(held(1)), guard()]], [COUNTED]),
        ([[of("host")], [granted(held(1)), guard()]], [COUNTED]),
        (
            [
                *([of("holder")], [granted(held(1)), guard()], [granted(held(2)), guard()]),
                *([grant_gone(1)], [granted(held(3, 1, ANNA)), guard()]),
            ],
            [],
        ),
        (
            [
                *([of("holder", seats=2)], [granted(held(1)), guard()]),
                [granted(replace(held(1), group=())), guard()],
            ],
            [FaultKind.REWRITTEN],
        ),
    ],
    ids=range(9),
)
def test_what_is_counted(revisions: list[list[Change]], expected: list[FaultKind]) -> None:
    assert kinds(checked(*revisions)) == expected


def test_who_takes_no_seat_passes_those_who_wait_and_no_other_does() -> None:
    before = [[of("holder")], [granted(held(1)), guard()], [waits(7, "bert", 1), guard()]]
    joined = [*before, [granted(held(2)), guard()]]
    assert kinds(checked(*joined)) == []
    larger = [[of("holder", seats=2)], *before[1:], [granted(held(2, 2)), guard()]]
    assert kinds(checked(*larger)) == [ORDER]


def test_what_is_passed_waits_for_a_seat() -> None:
    """One that would take none is served in its own time, whatever is granted meanwhile."""
    other = changed(a_grant(2, fence=2, session="s2"), holder="bert")
    bert = replace(other, group=(("project", "cv"), ("holder", "bert")))
    revisions = [
        *([of("holder", seats=2)], [granted(held(1)), guard()], [waits(7, "anna", 1), guard()]),
        [granted(bert), guard()],
    ]
    assert kinds(checked(*revisions)) == []


def test_beliefs_in_shared_seats_count_once() -> None:
    beliefs = [Believed(f"u{n}", POOL, 1, 1.0, 2.0, uuid7(n)) for n in (1, 2)]
    alone = Life({}, None, "anna")
    shared = replace(alone, counts_once=ANNA)
    found = {(POOL, uuid7(n)): shared for n in (1, 2)}
    assert list(check_beliefs(beliefs, {POOL: 1}, found)) == []
    found[POOL, uuid7(2)] = alone
    (violation,) = check_beliefs(beliefs, {POOL: 1}, found)
    assert violation.invariant is Invariant.I5


def test_all_is_gone_in_the_end() -> None:
    revisions = [
        *([of("holder")], [granted(held(1)), guard()], [granted(held(2)), guard()]),
        *([grant_gone(1)], [grant_gone(2)]),
    ]
    assert list(check_history(in_revisions(revisions), KEYS.prefix)) == []
