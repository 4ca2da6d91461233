"""The checker is checked: good histories pass, and every kind of bad one is caught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from tests.unit.kit import (
    KEYS,
    NOW,
    POOL,
    a_grant,
    a_ticket,
    changed,
    history,
    in_revisions,
    uuid7,
)

from seatkeeper.oracle.history import FAULTS_MAX, FaultKind, PoolHistory, replay
from seatkeeper.server.domain import (
    Drain,
    Grant,
    Guard,
    Instant,
    Move,
    Overtaking,
    PoolPolicy,
    PoolSpec,
    ProjectShare,
    Ticket,
    Watermark,
)
from seatkeeper.server.events.facts import encode_facts
from seatkeeper.server.store import Change, Delete, Entry, MemoryStore, Put, records


def put(key: str, value: bytes) -> Change:
    return Change(key, Entry(key, value, 0), 0)


def spec(seats: int, pool: str = POOL) -> Change:
    return put(KEYS.pool(pool), records.encode_spec(PoolSpec(pool, seats)))


def granted(grant: Grant, pool: str = POOL) -> Change:
    return put(KEYS.grant(pool, grant.grant_id), records.encode_grant(grant))


def queued(ticket: Ticket) -> Change:
    return put(KEYS.ticket(POOL, ticket.grant_id), records.encode_ticket(ticket))


def grant_gone(number: int) -> Change:
    return Change(KEYS.grant(POOL, uuid7(number)), None, 0)


def ticket_gone(number: int) -> Change:
    return Change(KEYS.ticket(POOL, uuid7(number)), None, 0)


def mark(session_id: str, number: int) -> Change:
    return put(
        KEYS.mark(POOL, session_id), records.encode_watermark(Watermark(1, uuid7(number)))
    )


def guard() -> Change:
    return put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9)))


def checked(*revisions: Sequence[Change]) -> PoolHistory:
    return replay(in_revisions(revisions), KEYS.prefix)[POOL]


def kinds(judgement: PoolHistory) -> list[FaultKind]:
    return [fault.kind for fault in judgement.faults]


def test_a_history_in_which_seats_go_from_one_to_the_next_is_correct() -> None:
    judgement = checked(
        [spec(2)],
        [granted(a_grant(1, fence=1)), granted(a_grant(2, fence=2)), queued(a_ticket(3))],
        [queued(a_ticket(4))],
        [grant_gone(1), ticket_gone(3), granted(a_grant(3, fence=3))],
        [grant_gone(2), ticket_gone(4), granted(a_grant(4, fence=4))],
        [grant_gone(3)],
    )

    assert judgement.is_correct, judgement.faults
    assert judgement == PoolHistory(
        pool=POOL,
        capacity=2,
        max_out=2,
        out=1,
        waiting=0,
        grants=4,
        tickets=2,
        decisions=3,
        fence=4,
    )


def test_one_seat_too_many_is_seen_though_it_lasted_one_revision() -> None:
    judgement = checked(
        [spec(1)],
        [granted(a_grant(1, fence=1))],
        [granted(a_grant(2, fence=2))],
        [grant_gone(1)],
        [grant_gone(2)],
    )

    assert kinds(judgement) == [FaultKind.OVER_GRANT]
    assert judgement.faults[0].revision == 4
    assert (judgement.max_out, judgement.out) == (2, 0)


def test_a_grant_of_several_seats_counts_as_several() -> None:
    assert kinds(checked([spec(2)], [granted(a_grant(1, seats=3))])) == [FaultKind.OVER_GRANT]


def test_a_lowered_capacity_may_be_exceeded_by_old_grants_but_not_by_new_ones() -> None:
    before = [[spec(3)], [granted(a_grant(n, fence=n)) for n in (1, 2, 3)], [spec(1)]]

    drained = checked(*before, [grant_gone(1)], [grant_gone(2)])
    assert drained.is_correct
    assert drained.max_out == 3

    too_early = checked(*before, [grant_gone(1), granted(a_grant(4, fence=4))])
    assert kinds(too_early) == [FaultKind.OVER_GRANT]


def test_a_grant_in_a_pool_that_does_not_exist_is_one_too_many() -> None:
    assert kinds(checked([granted(a_grant(1))])) == [FaultKind.OVER_GRANT]


@pytest.mark.parametrize("second", [6, 5], ids=["the same", "a lower one"])
def test_a_fence_that_does_not_rise_is_seen(second: int) -> None:
    judgement = checked(
        [spec(5)], [granted(a_grant(1, fence=6))], [granted(a_grant(2, fence=second))]
    )
    assert kinds(judgement) == [FaultKind.FENCE]


def test_one_fence_for_two_grants_of_one_revision_is_seen() -> None:
    judgement = checked([spec(5)], [granted(a_grant(n, fence=7)) for n in (1, 2)])
    assert kinds(judgement) == [FaultKind.FENCE]


def test_a_fence_that_starts_again_with_a_new_pool_of_the_name_is_seen() -> None:
    judgement = checked(
        [spec(5)],
        [granted(a_grant(1, fence=9))],
        [grant_gone(1)],
        [Change(KEYS.pool(POOL), None, 0)],
        [spec(5)],
        [granted(a_grant(2, fence=1))],
    )
    assert kinds(judgement) == [FaultKind.FENCE]


def test_a_claim_rewrites_a_grant_and_is_no_new_grant() -> None:
    grant = a_grant(1, fence=1)
    claimed = replace(grant, agent_id="agent-1", claim_id=uuid7(9))
    judgement = checked([spec(1)], [granted(grant)], [granted(claimed)], [grant_gone(1)])

    assert judgement.is_correct
    assert (judgement.grants, judgement.max_out, judgement.out) == (1, 1, 0)


@pytest.mark.parametrize(
    "change",
    [{"seats": 2}, {"fence": 2}, {"session_id": uuid7(77)}],
    ids=lambda c: next(iter(c)),
)
def test_a_grant_that_is_rewritten_otherwise_is_seen(change: dict[str, Any]) -> None:
    grant = a_grant(1, fence=1)
    judgement = checked([spec(2)], [granted(grant)], [granted(changed(grant, **change))])
    assert kinds(judgement) == [FaultKind.REWRITTEN]


@pytest.mark.parametrize(
    "change", [{"number": 9}, {"priority": 1}], ids=lambda c: next(iter(c))
)
def test_a_ticket_that_is_given_another_place_is_seen(change: dict[str, Any]) -> None:
    ticket = a_ticket(2)
    judgement = checked([spec(1)], [queued(ticket)], [queued(changed(ticket, **change))])
    assert kinds(judgement) == [FaultKind.REWRITTEN]


def test_a_ticket_that_is_written_again_as_it_was_is_no_second_one() -> None:
    judgement = checked([spec(1)], [queued(a_ticket(2))], [queued(a_ticket(2))])
    assert judgement.is_correct
    assert (judgement.tickets, judgement.waiting) == (1, 1)


def test_a_ticket_that_overtakes_an_earlier_one_is_seen() -> None:
    judgement = checked(
        [spec(1)],
        [queued(a_ticket(1))],
        [queued(a_ticket(2))],
        [ticket_gone(2), granted(a_grant(2))],
    )
    assert kinds(judgement) == [FaultKind.ORDER]
    assert uuid7(1) in judgement.faults[0].message


def test_a_request_that_never_waited_may_not_overtake_a_ticket_of_its_priority() -> None:
    waiting = [[spec(2)], [queued(a_ticket(1, seats=2))]]
    assert kinds(checked(*waiting, [granted(a_grant(2))])) == [FaultKind.ORDER]
    assert checked(*waiting, [granted(a_grant(2, priority=1))]).is_correct


def test_a_higher_priority_goes_first_and_a_lower_one_does_not() -> None:
    waiting = [[spec(1)], [queued(a_ticket(1)), queued(a_ticket(2, priority=5))]]
    high_first = [ticket_gone(2), granted(a_grant(2, priority=5))]
    low_first = [ticket_gone(1), granted(a_grant(1))]
    assert checked(*waiting, high_first).is_correct
    assert kinds(checked(*waiting, low_first)) == [FaultKind.ORDER]


def test_requests_of_one_revision_may_be_granted_while_later_ones_are_queued() -> None:
    assert checked([spec(1)], [queued(a_ticket(5)), granted(a_grant(4))]).is_correct


def test_a_grant_whose_ticket_was_left_behind_is_seen() -> None:
    judgement = checked([spec(1)], [queued(a_ticket(1))], [granted(a_grant(1))])
    assert kinds(judgement) == [FaultKind.ORDER]


def test_an_id_that_is_granted_again_after_its_end_is_seen() -> None:
    judgement = checked(
        [spec(1)],
        [granted(a_grant(1, fence=1))],
        [grant_gone(1)],
        [granted(a_grant(1, fence=2))],
    )
    assert kinds(judgement) == [FaultKind.GRANTED_TWICE]


def test_the_order_of_changes_within_a_revision_means_nothing() -> None:
    together = [
        grant_gone(1),
        ticket_gone(2),
        granted(a_grant(2, fence=2)),
        queued(a_ticket(3)),
    ]
    before = [[spec(1)], [granted(a_grant(1, fence=1)), queued(a_ticket(2))]]
    assert checked(*before, together) == checked(*before, together[::-1])
    assert checked(*before, together[::-1]).is_correct


BUSY: list[list[Change]] = [
    [spec(1)],
    [guard(), granted(a_grant(1, fence=1)), queued(a_ticket(2)), queued(a_ticket(3))],
]


def test_a_decision_that_takes_a_place_away_is_seen() -> None:
    assert kinds(checked(*BUSY, [guard(), ticket_gone(3)])) == [FaultKind.TAKEN_AWAY]


def test_a_decision_that_takes_a_seat_away_is_seen() -> None:
    judgement = checked(
        *BUSY, [guard(), grant_gone(1), ticket_gone(2), granted(a_grant(2, fence=2))]
    )
    assert kinds(judgement) == [FaultKind.TAKEN_AWAY]
    assert uuid7(1) in judgement.faults[0].message


def test_completing_an_earlier_request_does_not_complete_a_later_one() -> None:
    session = a_ticket(3).session_id
    judgement = checked(*BUSY, [guard(), mark(session, 2), ticket_gone(3)])
    assert kinds(judgement) == [FaultKind.TAKEN_AWAY]


@pytest.mark.parametrize(
    "end",
    [
        [guard(), mark(a_ticket(3).session_id, 3), ticket_gone(3)],
        [guard(), mark(a_grant(1).session_id, 1), grant_gone(1)],
        [ticket_gone(3)],
        [grant_gone(1)],
    ],
    ids=["gave up", "gave back", "its lease ended", "the holder's lease ended"],
)
def test_who_is_finished_or_gone_has_lost_nothing(end: list[Change]) -> None:
    assert kinds(checked(*BUSY, end)) == []


def test_pools_are_checked_apart_and_other_keys_are_skipped() -> None:
    other = [
        put(KEYS.session("s"), b"?"),
        put(KEYS.node("n"), b"?"),
        put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9))),
        mark("s", 9),
        put("sk2/pools/tensorrt", b"?"),
    ]
    histories = replay(
        in_revisions(
            [
                [spec(1), spec(1, "rtx"), *other],
                [granted(a_grant(1)), granted(a_grant(2), "rtx"), granted(a_grant(3), "rtx")],
            ]
        ),
        KEYS.prefix,
    )
    assert list(histories) == ["rtx", POOL]
    assert histories[POOL].is_correct
    assert kinds(histories["rtx"]) == [FaultKind.OVER_GRANT, FaultKind.FENCE]


def test_a_history_full_of_faults_keeps_the_first_and_counts_the_rest() -> None:
    judgement = checked(*([granted(a_grant(n, fence=n))] for n in range(1, FAULTS_MAX + 51)))
    assert judgement.count(FaultKind.OVER_GRANT) == FAULTS_MAX + 50
    assert len(judgement.faults) == FAULTS_MAX
    assert not judgement.is_correct


async def test_the_history_of_a_store_is_read_from_its_first_revision() -> None:
    store = MemoryStore()
    grant = a_grant(1)
    await store.commit([Put(KEYS.pool(POOL), records.encode_spec(PoolSpec(POOL, 1)))])
    await store.commit([Put(KEYS.grant(POOL, grant.grant_id), records.encode_grant(grant))])
    await store.commit([Delete(KEYS.grant(POOL, grant.grant_id))])
    await store.commit([Put("elsewhere", b"")])

    judgement = await history(store)

    assert judgement.is_correct
    assert (judgement.max_out, judgement.out, judgement.grants) == (1, 0, 1)


WORK: dict[str, Any] = {"work_key": "w"}
GUARD = put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9), 1))


def test_one_work_has_one_holder_at_a_time() -> None:
    first, second = changed(a_grant(1), **WORK), changed(a_grant(2, fence=2), **WORK)
    twice = checked([spec(5)], [GUARD, granted(first)], [GUARD, granted(second)])
    assert kinds(twice) == [FaultKind.SAME_WORK]
    at_once = checked([spec(5)], [GUARD, granted(first), granted(second)])
    assert kinds(at_once) == [FaultKind.SAME_WORK]
    after = checked(
        [spec(5)],
        [GUARD, granted(first)],
        [GUARD, grant_gone(1), mark("anna", 1), granted(second)],
    )
    assert kinds(after) == []


def test_a_ticket_whose_work_another_does_may_be_passed_over() -> None:
    held, waits = changed(a_grant(1), **WORK), changed(a_ticket(2, order=1), **WORK)
    other, later = a_grant(3, fence=2), a_ticket(3, order=2)
    before = ([spec(5)], [GUARD, granted(held), queued(waits), queued(later)])
    served = [GUARD, granted(other), ticket_gone(3)]
    assert kinds(checked(*before, served)) == []
    released = [GUARD, grant_gone(1), mark("anna", 1)]
    assert kinds(checked(*before, released, served)) == [FaultKind.ORDER]


def test_a_decision_may_not_know_that_the_session_of_a_work_has_ended() -> None:
    """The end of a lease moves no guard; after the next decision it is known."""
    held, waits = changed(a_grant(1), **WORK), changed(a_ticket(2, order=1), **WORK)
    other, later = a_grant(3, fence=2), a_ticket(3, order=2)
    before = ([spec(5)], [GUARD, granted(held), queued(waits), queued(later)], [grant_gone(1)])
    served = [GUARD, granted(other), ticket_gone(3)]
    assert kinds(checked(*before, served)) == []
    assert kinds(checked(*before, [GUARD], served)) == [FaultKind.ORDER]

    def knowing(revision: int) -> list[Change]:
        facts = encode_facts(1, Instant(1), (), (), view_revision=revision)
        return [put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9), 1, facts)), *served[1:]]

    own = knowing(3)[:1]  # a node may decide on its own commits before its watch shows the end
    assert kinds(checked(*before, own, own, knowing(3))) == []
    assert kinds(checked(*before, own, own, knowing(4))) == [FaultKind.ORDER]


LAB = PoolPolicy(
    (ProjectShare(project="lab", limit=2), ProjectShare(project="cv", parent="lab"))
)


def of(project: str, number: int, seats: int = 1) -> Grant:
    grant = a_grant(number, seats=seats, fence=number)
    return replace(grant, attribution=replace(grant.attribution, project=project))


def shared(policy: PoolPolicy = LAB) -> Change:
    return put(KEYS.pool(POOL), records.encode_spec(PoolSpec(POOL, 9, policy=policy)))


def test_a_project_over_its_limit_by_a_grant_is_seen_and_one_under_a_lowered_limit_is_not() -> (
    None
):
    over = checked([shared()], [granted(of("cv", 1))], [granted(of("lab", 2, seats=2))])
    assert kinds(over) == [FaultKind.OVER_LIMIT]
    assert "project lab holds 3 seats, and may 2" in over.faults[0].message
    others = [granted(of("asr", 3, seats=5))]
    assert not checked([shared()], [granted(of("cv", 1, seats=2))], others).faults
    lowered = shared(PoolPolicy((ProjectShare(project="cv", limit=0),)))
    assert not checked([granted(of("cv", 1)), shared()], [lowered], others).faults


def test_in_a_shared_pool_tickets_keep_their_order_within_their_projects() -> None:
    waiting = a_ticket(1)
    waiting = replace(waiting, attribution=replace(waiting.attribution, project="cv"))
    assert not checked([shared()], [queued(waiting)], [granted(of("asr", 2))]).faults
    passed = checked([shared()], [queued(waiting)], [granted(of("cv", 2))])
    assert kinds(passed) == [FaultKind.ORDER]


def overtaking(*grants: Grant, within: float = 60) -> PoolHistory:
    """One ticket for 4 seats, of a pool that lets 3 seats go before it; then these grants."""
    rule = Overtaking(seats=3, within=timedelta(seconds=within))
    waiting = replace(a_ticket(1, seats=4), queued_at=Instant(NOW - 10_000))
    made = [[granted(replace(each, granted_at=NOW))] for each in grants]
    return checked([shared(PoolPolicy(overtaking=rule))], [queued(waiting)], *made)


def test_a_ticket_may_be_overtaken_as_far_as_its_pool_says() -> None:
    two, one, four = (a_grant(n + 2, seats=n, fence=n + 2) for n in (2, 1, 4))
    later = replace(two, grant_id=uuid7(9), fence=9)
    assert not overtaking(one, two).faults
    assert kinds(overtaking(one, two, later)) == [FaultKind.ORDER]
    assert not overtaking(one, within=10.001).faults
    assert kinds(overtaking(one, within=10)) == [FaultKind.ORDER]
    assert kinds(overtaking(four)) == [FaultKind.ORDER]


def moved(ticket: Ticket, place: Fraction, move: int = 1) -> Ticket:
    return replace(ticket, move=Move(place, uuid7(500 + move), "why", NOW))


WAITING = (
    [spec(1), guard(), granted(a_grant(9, fence=1))],
    [guard(), queued(a_ticket(1)), queued(a_ticket(2))],
)


def next_one(number: int) -> list[Change]:
    """The seat goes from its holder to a ticket."""
    grant = granted(a_grant(number, fence=2))
    return [guard(), mark("anna", 9), grant_gone(9), grant, ticket_gone(number)]


def test_a_request_that_an_administrator_moved_is_served_at_its_new_place() -> None:
    move = [guard(), queued(moved(a_ticket(2), Fraction(1, 2)))]
    assert checked(*WAITING, move, next_one(2)).is_correct
    assert kinds(checked(*WAITING, move, next_one(1))) == [FaultKind.ORDER]


def test_a_move_takes_effect_after_the_grants_of_its_own_revision() -> None:
    both = [*next_one(1), queued(moved(a_ticket(2), Fraction(1, 2)))]
    assert checked(*WAITING, both).is_correct


@pytest.mark.parametrize(
    "written",
    [
        replace(moved(a_ticket(2), Fraction(1, 2)), seats=2),
        moved(a_ticket(2, order=7), Fraction(1, 2)),
        moved(a_ticket(2, priority=3), Fraction(1, 2)),
        moved(a_ticket(2, session="bert"), Fraction(1, 2)),
        moved(a_ticket(2), Fraction(1)),
    ],
    ids=["seats", "number", "priority", "session", "another's place"],
)
def test_a_move_that_changes_more_than_a_place_is_caught(written: Ticket) -> None:
    assert kinds(checked(*WAITING, [guard(), queued(written)])) == [FaultKind.REWRITTEN]


def test_a_place_that_changes_without_a_new_move_is_caught() -> None:
    first = [guard(), queued(moved(a_ticket(2), Fraction(1, 2)))]
    again = [guard(), queued(moved(a_ticket(2), Fraction(1, 4)))]
    assert kinds(checked(*WAITING, first, again)) == [FaultKind.REWRITTEN]
    other = [guard(), queued(moved(a_ticket(2), Fraction(1, 4), move=2))]
    assert checked(*WAITING, first, other).is_correct
    forgotten = [guard(), queued(a_ticket(2))]
    assert kinds(checked(*WAITING, first, forgotten)) == [FaultKind.REWRITTEN]


def test_a_grant_of_a_drained_pool_is_caught() -> None:
    drained = PoolSpec(POOL, 1, drain=Drain("moving", "anna", NOW))
    spec_change = put(KEYS.pool(POOL), records.encode_spec(drained))
    grant = [guard(), granted(a_grant(1, fence=1))]
    assert kinds(checked([spec(1)], [spec_change], grant)) == [FaultKind.DRAINED]
    assert checked([spec(1)], grant, [spec_change]).is_correct, "a holder keeps its seats"
    assert checked([spec_change], [spec(1)], grant).is_correct
