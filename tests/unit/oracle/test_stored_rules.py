"""The checker's own reading of a pool's rules: what it must report, and what it must not."""

from __future__ import annotations

import pytest
from tests.unit.kit import POOL, a_grant, a_ticket, changed
from tests.unit.oracle.test_chaos_history import (
    checked,
    grant_gone,
    granted,
    guard,
    kinds,
    mark,
    put,
    queued,
    spec,
    ticket_gone,
)

from seatkeeper.core.pool_rules import AtMost, HolderGroup, PoolRules, Who
from seatkeeper.oracle.history import FaultKind
from seatkeeper.server.domain import Grant, PoolPolicy, PoolSpec, Ticket
from seatkeeper.server.store import Change, records

EXCLUDE = PoolRules((HolderGroup("bad", ("mal*",)),), exclude=Who(groups=("bad",)))
INCLUDE = PoolRules(include=Who(projects=("nlp",), holders=("a*z",)))
SEATS = PoolRules(per_holder=AtMost(seats=1))
PROJECT = PoolRules(per_project=AtMost(seats=2))
TICKETS = PoolRules(per_holder=AtMost(tickets=1))
NO_KIOSK = PoolRules(exclude=Who(hosts=("Kiosk*",)))
FROM_BUILD = PoolRules(include=Who(hosts=("build-1",)))
ON_A_HOST = PoolRules(per_host=AtMost(seats=1))


def on(host: str, number: int, seats: int = 1) -> Grant:
    return changed(g(number, f"h{number}", seats), host=host)


def ruled(rules: PoolRules, seats: int = 9) -> Change:
    value = records.encode_spec(PoolSpec(POOL, seats, policy=PoolPolicy(rules=rules)))
    return put(spec(1).key, value)


def g(number: int, holder: str, seats: int = 1, project: str = "cv", fence: int = 0) -> Grant:
    grant = a_grant(number, fence=fence or number, seats=seats, session=f"s{number}")
    return changed(grant, holder=holder, project=project)


def t(number: int, holder: str, seats: int = 1, project: str = "cv") -> Ticket:
    ticket = a_ticket(number, seats=seats, session=f"s{number}")
    return changed(ticket, holder=holder, project=project)


@pytest.mark.parametrize(
    ("rules", "revisions", "expected"),
    [
        (EXCLUDE, [[granted(g(1, "alice"))]], []),
        (EXCLUDE, [[granted(g(1, "malice"))]], [FaultKind.NOT_ALLOWED]),
        (EXCLUDE, [[queued(t(1, "malice"))]], [FaultKind.NOT_ALLOWED]),
        (INCLUDE, [[granted(g(1, "abz"))], [granted(g(2, "x", project="nlp"))]], []),
        (INCLUDE, [[granted(g(1, "abzx"))]], [FaultKind.NOT_ALLOWED]),
        (SEATS, [[granted(g(1, "a")), granted(g(2, "b"))]], []),
        (SEATS, [[granted(g(1, "a"))], [granted(g(2, "a"))]], [FaultKind.OVER_LIMIT]),
        (
            SEATS,
            [[granted(g(1, "a"))], [grant_gone(1), mark("s1", 1)], [granted(g(2, "a"))]],
            [],
        ),
        (PROJECT, [[granted(g(1, "a", 2))], [granted(g(2, "b"))]], [FaultKind.OVER_LIMIT]),
        (TICKETS, [[queued(t(1, "a"))], [queued(t(2, "b"))]], []),
        (TICKETS, [[queued(t(1, "a"))], [queued(t(2, "a"))]], [FaultKind.OVER_LIMIT]),
        (NO_KIOSK, [[granted(on("kiosk-1", 1))]], [FaultKind.NOT_ALLOWED]),
        (NO_KIOSK, [[granted(on("", 1))], [granted(on("desk", 2))]], []),
        (FROM_BUILD, [[granted(on("BUILD-1", 1))]], []),
        (FROM_BUILD, [[granted(on("", 1))]], [FaultKind.NOT_ALLOWED]),
        (ON_A_HOST, [[granted(on("a", 1))], [granted(on("b", 2))]], []),
        (ON_A_HOST, [[granted(on("a", 1))], [granted(on("A", 2))]], [FaultKind.OVER_LIMIT]),
        (ON_A_HOST, [[granted(on("", 1))], [granted(on("", 2))]], []),
        # One that is held back may be passed, by others and not by its own.
        (SEATS, [[granted(g(1, "a"))], [queued(t(2, "a"))], [granted(g(3, "b"))]], []),
        (SEATS, [[queued(t(2, "a"))], [granted(g(3, "b"))]], [FaultKind.ORDER]),
        (
            PROJECT,
            [[granted(g(1, "a"))], [queued(t(2, "b", 2))], [granted(g(3, "c"))]],
            [FaultKind.ORDER],
        ),
        (
            PROJECT,
            [[granted(g(1, "a"))], [queued(t(2, "b", 2))], [granted(g(3, "c", 1, "nlp"))]],
            [],
        ),
    ],
)
def test_what_is_reported(
    rules: PoolRules, revisions: list[list[Change]], expected: list[FaultKind]
) -> None:
    assert kinds(checked([ruled(rules)], *([*each, guard()] for each in revisions))) == expected


def test_rules_count_from_the_revision_that_they_are_written_at() -> None:
    before = [[spec(9)], [granted(g(1, "mallory")), guard()]]
    assert checked(*before, [ruled(EXCLUDE)]).is_correct
    after = checked(*before, [ruled(EXCLUDE)], [granted(g(2, "mallory")), guard()])
    assert kinds(after) == [FaultKind.NOT_ALLOWED]
    assert checked(*before, [ruled(EXCLUDE)], [spec(9)], [granted(g(2, "mallory"))]).is_correct


def test_a_decision_may_not_know_yet_what_has_gone_with_its_session() -> None:
    """Its holder held the seat as far as the decision knew, so its ticket was held back."""
    before = [[ruled(SEATS)], [granted(g(1, "a")), guard()], [queued(t(2, "a")), guard()]]
    assert checked(*before, [grant_gone(1)], [granted(g(3, "b", fence=3)), guard()]).is_correct
    known = checked(*before, [grant_gone(1)], [guard()], [granted(g(3, "b", fence=3)), guard()])
    assert kinds(known) == [FaultKind.ORDER]


def test_one_that_was_behind_another_of_its_own_that_is_gone() -> None:
    two = PoolRules(per_holder=AtMost(seats=2))
    before = [
        [ruled(two)],
        [granted(g(1, "a")), guard()],
        [queued(t(2, "a", 2)), guard()],
        [queued(t(3, "a")), guard()],
    ]
    passed = [granted(g(4, "b", fence=4)), guard()]
    assert checked(*before, passed).is_correct
    assert checked(*before, [ticket_gone(2)], passed).is_correct
    assert kinds(checked(*before, [ticket_gone(2)], [guard()], passed)) == [FaultKind.ORDER]
