"""The checker is checked: what agrees passes, and every kind of what does not is caught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.unit.kit import KEYS, POOL, a_grant, a_ticket, in_revisions, uuid7

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.checker import (
    _BY_FAULT,
    Given,
    Invariant,
    Life,
    Violation,
    check_answers,
    check_beliefs,
    check_history,
    check_published,
    check_punctuality,
    check_reclaim,
    check_waits,
    count_prevented,
    lives,
)
from seatkeeper.oracle.history import FaultKind
from seatkeeper.oracle.record import (
    Acquired,
    Attack,
    Believed,
    Denied,
    Prevented,
    Published,
    Record,
    Refused,
    Returned,
)
from seatkeeper.server.domain import Grant, PoolSpec, Ticket
from seatkeeper.server.store import Change, Entry, records
from seatkeeper.v1 import build_pb2

ENGINE = "e" * 64


def put(key: str, value: bytes) -> Change:
    return Change(key, Entry(key, value, 0), 0)


def spec(seats: int) -> Change:
    return put(KEYS.pool(POOL), records.encode_spec(PoolSpec(POOL, seats)))


def granted(grant: Grant) -> Change:
    return put(KEYS.grant(POOL, grant.grant_id), records.encode_grant(grant))


def queued(ticket: Ticket) -> Change:
    return put(KEYS.ticket(POOL, ticket.grant_id), records.encode_ticket(ticket))


def gone(number: int) -> Change:
    return Change(KEYS.grant(POOL, uuid7(number)), None, 0)


def published(number: int, fence: int, *, key: str = ENGINE) -> Change:
    manifest = build_pb2.EngineManifest(
        key=key, agent_id="agent", pool=POOL, grant_id=uuid7(number), fence=fence
    )
    signed = build_pb2.SignedManifest(manifest=manifest.SerializeToString())
    return put(KEYS.engine(key), state_pb2.EngineRecord(manifest=signed).SerializeToString())


def history(*revisions: Sequence[Change]) -> tuple[list[Change], dict[int, float]]:
    """Return changes, and when they came about: each revision a second after the one before."""
    changes = list(in_revisions(revisions))
    seen = sorted({change.revision for change in changes})
    return changes, {revision: float(at) for at, revision in enumerate(seen, start=1)}


def invariants(violations: Sequence[Violation]) -> list[Invariant]:
    return [violation.invariant for violation in violations]


# Second 1: the pool; 2: the first seat; 3: given back, and the next; 4: the end.
CHANGES, CHANGED_AT = history(
    [spec(1)],
    [granted(a_grant(1, fence=1))],
    [gone(1), granted(a_grant(2, fence=2, session="boris"))],
    [gone(2)],
)
LIVES = lives(CHANGES, CHANGED_AT, KEYS.prefix)


def acquired(number: int, fence: int, at: float = 2.5) -> Acquired:
    return Acquired("anna", POOL, uuid7(number), fence, 1, at)


def test_what_became_of_each_grant_is_known() -> None:
    first, second = LIVES[POOL, uuid7(1)], LIVES[POOL, uuid7(2)]
    assert first == Life({1: Given(2.0, 1)}, 3.0, "anna@host")
    assert second == Life({2: Given(3.0, 1)}, 4.0, "boris@host")


def test_a_history_that_is_right_and_ends_empty_passes() -> None:
    assert list(check_history(CHANGES, KEYS.prefix)) == []


@pytest.mark.parametrize(
    ("revisions", "invariant"),
    [
        (
            [
                [granted(a_grant(1, fence=1))],
                [granted(a_grant(2, fence=2))],
                [gone(1), gone(2)],
            ],
            Invariant.I1,
        ),
        (
            [
                [granted(a_grant(1, fence=1))],
                [gone(1)],
                [granted(a_grant(2, fence=1))],
                [gone(2)],
            ],
            Invariant.I2,
        ),
        (
            [
                [granted(a_grant(1, fence=1))],
                [gone(1)],
                [granted(a_grant(1, fence=2))],
                [gone(1)],
            ],
            Invariant.I4,
        ),
        ([[granted(a_grant(1, fence=1))]], Invariant.I8),
    ],
    ids=["over-grant", "fence", "twice", "left behind"],
)
def test_a_history_that_is_wrong_is_caught_by_its_invariant(
    revisions: list[list[Change]], invariant: Invariant
) -> None:
    changes, _ = history([spec(1)], *revisions)
    assert invariants(list(check_history(changes, KEYS.prefix))) == [invariant]


def test_who_is_served_before_his_turn_is_caught() -> None:
    changes, _ = history(
        [spec(1)],
        [queued(a_ticket(1)), queued(a_ticket(2))],
        [granted(a_grant(2, fence=1)), Change(KEYS.ticket(POOL, uuid7(2)), None, 0)],
        [gone(2)],
    )
    found = list(check_history(changes, KEYS.prefix, at_rest=False))
    assert invariants(found) == [Invariant.I6]


def test_while_sessions_live_something_may_be_left() -> None:
    changes, _ = history([spec(1)], [granted(a_grant(1, fence=1))])
    assert list(check_history(changes, KEYS.prefix, at_rest=False)) == []


def test_answers_that_agree_with_the_history_pass() -> None:
    record = Record(
        acquired=[acquired(1, 1), acquired(2, 2, at=3.0)],
        returned=[Returned("anna", POOL, uuid7(1), 3.1), Returned("anna", POOL, uuid7(7), 0.5)],
        refused=[Refused("anna", POOL, uuid7(9), 2.0), Refused("anna", POOL, uuid7(1), 3.5)],
    )
    assert list(check_answers(LIVES, record)) == []


@pytest.mark.parametrize(
    "record",
    [
        Record(acquired=[acquired(7, 1)]),
        Record(acquired=[acquired(1, 2)]),
        Record(acquired=[acquired(1, 1, at=1.9)]),
        Record(acquired=[replace(acquired(1, 1), seats=2)]),
        Record(returned=[Returned("anna", POOL, uuid7(1), 2.5)]),
        Record(refused=[Refused("anna", POOL, uuid7(1), 1.5)]),
    ],
    ids=[
        "never granted",
        "another fence",
        "reported too early",
        "other seats",
        "given back too early",
        "refused and granted",
    ],
)
def test_an_answer_that_was_not_so_is_caught(record: Record) -> None:
    assert invariants(list(check_answers(LIVES, record))) == [Invariant.I3]


def test_a_grant_that_is_still_there_was_not_given_back() -> None:
    changes, changed_at = history([spec(1)], [granted(a_grant(1, fence=1))])
    record = Record(returned=[Returned("anna", POOL, uuid7(1), 9.0)])
    found = list(check_answers(lives(changes, changed_at, KEYS.prefix), record))
    assert invariants(found) == [Invariant.I3]


def believed(user: str, since: float, until: float, seats: int = 1) -> Believed:
    return Believed(user, POOL, seats, since, until)


def test_beliefs_that_follow_each_other_pass() -> None:
    beliefs = [believed("anna", 1, 2), believed("boris", 2, 3), believed("clara", 3, 4)]
    assert list(check_beliefs(beliefs, {POOL: 1})) == []


def test_beliefs_side_by_side_pass_while_there_are_seats() -> None:
    beliefs = [believed("anna", 1, 5, seats=2), believed("boris", 2, 3)]
    assert list(check_beliefs(beliefs, {POOL: 3})) == []


@pytest.mark.parametrize(
    "beliefs",
    [
        [believed("anna", 1.0, 2.0), believed("boris", 1.9, 3.0)],
        [believed("anna", 1.0, 9.0), believed("boris", 2.0, 3.0)],
        [believed("anna", 1.0, 2.0, seats=2)],
    ],
)
def test_beliefs_in_one_seat_too_many_are_caught_once(beliefs: list[Believed]) -> None:
    assert invariants(list(check_beliefs(beliefs, {POOL: 1}))) == [Invariant.I5]


def test_who_believed_is_said() -> None:
    beliefs = [believed("anna", 1.0, 2.0), believed("boris", 1.9, 3.0), believed("c", 2.5, 9.0)]
    (violation,) = check_beliefs(beliefs, {POOL: 1})
    assert "anna in 1 from 1.000 to 2.000 s, boris in 1 from 1.900" in violation.message
    assert "c in" not in violation.message


def test_a_belief_that_was_gone_at_its_first_look_is_none() -> None:
    beliefs = [believed("anna", 1.0, 2.0), believed("boris", 1.5, 1.5)]
    assert list(check_beliefs(beliefs, {POOL: 1})) == []


@pytest.mark.parametrize(("deadline", "caught"), [(3.0, []), (2.9, [Invariant.I7])])
def test_seats_of_the_dead_are_free_in_time_or_it_is_said(
    deadline: float, caught: list[Invariant]
) -> None:
    record = Record(killed={"anna@host": 2.0})
    found = list(check_reclaim(LIVES, record, lambda user, killed_at: deadline))
    assert invariants(found) == caught


@pytest.mark.parametrize(("deadline", "caught"), [(3.0, []), (2.9, [Invariant.I7])])
def test_seats_of_the_dead_are_those_that_they_received(
    deadline: float, caught: list[Invariant]
) -> None:
    """Where clients have certificates, holders have other names than users."""
    (pool, grant_id), life = next(iter(LIVES.items()))
    reported = Acquired("zoe", pool, grant_id, min(life.given), 1, 1.0)
    record = Record(acquired=[reported], killed={"zoe": 2.0})
    found = list(check_reclaim(LIVES, record, lambda user, killed_at: deadline))
    assert invariants(found) == caught


def test_seats_of_the_dead_may_be_held_while_their_time_is_not_over() -> None:
    record = Record(killed={"anna@host": 2.0})
    assert list(check_reclaim(LIVES, record, lambda user, killed_at: 2.9, now=2.5)) == []


@pytest.mark.parametrize(
    ("waited", "caught"),
    [
        (5.0, []),
        (4.8, []),  # a call's deadline leaves time to answer
        (4.0, [Invariant.I8]),
        (0.0, [Invariant.I8]),
    ],
)
def test_who_is_turned_away_must_have_waited(waited: float, caught: list[Invariant]) -> None:
    denied = [Denied("anna", POOL, 10.0, 10.0 + waited, 5.0)]
    assert invariants(list(check_waits(denied))) == caught


def test_engines_of_other_pools_are_passed_over() -> None:
    changes, _ = history([published(1, 1)])
    assert list(check_published(changes, Record(), KEYS.prefix, pools={"another"})) == []
    assert invariants(list(check_published(changes, Record(), KEYS.prefix, pools={POOL}))) == [
        Invariant.I9
    ]


def test_an_engine_published_under_a_live_grant_passes() -> None:
    changes, _ = history(
        [spec(1)],
        [granted(a_grant(1, fence=1))],
        [published(1, 1)],
        [gone(1), granted(a_grant(2, fence=2))],
        [published(2, 2)],
    )
    record = Record(published=[Published("agent", POOL, uuid7(1), 1, 3.0)])
    assert list(check_published(changes, record, KEYS.prefix)) == []


def test_an_engine_published_under_a_grant_that_has_ended_is_caught() -> None:
    changes, _ = history(
        [spec(1)], [granted(a_grant(1, fence=1))], [gone(1)], [published(1, 1)]
    )
    assert invariants(list(check_published(changes, Record(), KEYS.prefix))) == [Invariant.I9]


def test_an_engine_published_under_an_older_fence_than_before_is_caught() -> None:
    changes, _ = history(
        [spec(2)],
        [granted(a_grant(1, fence=1)), granted(a_grant(2, fence=2))],
        [published(2, 2)],
        [published(1, 1)],
        [published(1, 1, key="f" * 64)],
    )
    assert invariants(list(check_published(changes, Record(), KEYS.prefix))) == [Invariant.I9]


def test_a_publication_that_is_in_no_revision_is_caught() -> None:
    record = Record(published=[Published("agent", POOL, uuid7(1), 1, 3.0)])
    assert invariants(list(check_published(CHANGES, record, KEYS.prefix))) == [Invariant.I3]


@pytest.mark.parametrize(
    ("waited", "caught"), [(5.0, []), (9.9, []), (10.1, [Invariant.I8]), (60.0, [Invariant.I8])]
)
def test_a_denial_must_arrive_in_time(waited: float, caught: list[Invariant]) -> None:
    denied = [Denied("anna", POOL, 10.0, 10.0 + waited, 5.0)]
    assert invariants(list(check_punctuality(denied))) == caught


def test_what_was_prevented_is_counted_but_for_copies_of_what_was_done() -> None:
    changes, _ = history([spec(1)], [granted(a_grant(1, fence=1))], [published(1, 1)])
    late, theft = Attack.LATE_PUBLICATION.value, Attack.THEFT.value
    prevented = [
        Prevented("agent", late, POOL, uuid7(1), 1, 3.0),  # a copy of the one that is there
        Prevented("agent", late, POOL, uuid7(1), 2, 3.0),
        Prevented("agent", late, POOL, uuid7(2), 1, 3.0),
        Prevented("anna", theft, POOL, uuid7(3), 1, 3.0),
    ]
    assert count_prevented(prevented, changes, KEYS.prefix) == {late: 2, theft: 1}


def test_a_claim_on_a_grant_is_no_new_grant() -> None:
    claimed = replace(a_grant(1, fence=1), agent_id="agent", claim_id=uuid7(99))
    changes, changed_at = history(
        [spec(1)], [granted(a_grant(1, fence=1))], [granted(claimed)], [gone(1)]
    )
    assert list(check_history(changes, KEYS.prefix)) == []
    assert lives(changes, changed_at, KEYS.prefix)[POOL, uuid7(1)].given == {1: Given(2.0, 1)}


def test_every_kind_of_fault_in_a_history_is_an_invariant_broken() -> None:
    assert set(_BY_FAULT) == set(FaultKind)
