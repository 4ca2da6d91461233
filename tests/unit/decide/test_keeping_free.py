"""Seats that are kept free for a gang which has waited for long: those behind it wait alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.decide.test_gangs import LIMITS, POLICIES, a_pool, granted, of_gang, together
from tests.unit.kit import NOW, a_ticket, release, uuid7

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import Guard, Instant, PoolPolicy, PoolState, Ticket
from seatkeeper.server.domain.commands import Denied, KeepFree, Queued
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.joined import Joined
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import why_waiting
from seatkeeper.server.store import records

UNTIL = Instant(NOW + 60_000)
LATER = Instant(NOW + 30_000)


def keeping(state: PoolState, number: int, until: Instant = UNTIL) -> PoolState:
    kept = HoldBack(uuid7(number), NOW, until)
    state.guard = Guard(*(state.guard.fence, state.guard.ticket_number), hold_back=kept)
    return state


def at(state: PoolState, now: Instant = LATER) -> Decision:
    return decide(state, (), now, LIMITS)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_those_behind_it_wait_and_those_before_it_do_not(policy: PoolPolicy) -> None:
    tickets = [a_ticket(1), of_gang(2, seats=3), a_ticket(3), a_ticket(4)]
    state = a_pool(*tickets, seats=4, policy=policy)
    assert granted(at(state)) == [uuid7(1), uuid7(3), uuid7(4)]
    keeping(state, 2)
    assert granted(at(state)) == [uuid7(1)]
    assert granted(at(state, UNTIL)) == [uuid7(1), uuid7(3), uuid7(4)]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_until_its_seats_are_free_none_behind_it_is_served(policy: PoolPolicy) -> None:
    """And what it does not want goes to those behind it, once they are."""
    tickets = [of_gang(1, seats=3), a_ticket(2), a_ticket(3)]
    state = keeping(a_pool(*tickets, seats=4, held=2, policy=policy), 1)
    assert granted(at(state)) == []
    assert granted(together(state, 1)) == []
    state = keeping(a_pool(*tickets, seats=4, held=0, policy=policy), 1)
    assert granted(at(state)) == [uuid7(2)]
    assert granted(together(state, 1)) == [uuid7(1), uuid7(2)]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_plan_says_when_it_is_over(policy: PoolPolicy) -> None:
    state = keeping(a_pool(of_gang(1), a_ticket(2), seats=1, policy=policy), 1)
    plan = BY_POOL.plan(PoolSnapshot.of(state), LATER)
    assert (list(plan.serve), plan.next_wake) == ([], UNTIL)
    over = BY_POOL.plan(PoolSnapshot.of(state), UNTIL)
    assert [each.grant_id for each in over.serve] == [uuid7(2)]
    assert over.next_wake is None


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_it_is_over_when_the_gang_waits_no_more_and_that_is_written(policy: PoolPolicy) -> None:
    state = keeping(a_pool(of_gang(1), a_ticket(2), seats=1, policy=policy), 1)
    command = release(1, "anna")
    decision = decide(state, [command], LATER, LIMITS)
    assert granted(decision) == [uuid7(2)]
    assert decision.guard.hold_back == HoldBack(uuid7(1), NOW, LATER)
    served = decide(state, (), LATER, LIMITS, policy=Joined(BY_POOL, uuid7(1)))
    assert granted(served) == [uuid7(1)]
    assert served.guard.hold_back == HoldBack(uuid7(1), NOW, LATER)
    state.remove_ticket(uuid7(1))  # with its session
    assert granted(at(state)) == [uuid7(2)]


def test_another_gang_is_served_behind_it_alone() -> None:
    state = a_pool(of_gang(1, seats=2), of_gang(2, seats=2), seats=3)
    assert granted(together(state, 2)) == [uuid7(2)]
    keeping(state, 1)
    assert granted(together(state, 2)) == []
    assert granted(together(state, 1)) == [uuid7(1)]


def test_it_is_written_for_one_that_waits_and_for_no_other() -> None:
    state = a_pool(of_gang(1), seats=0)
    found = decide(state, [KeepFree(uuid7(1), "anna", UNTIL)], NOW, LIMITS)
    assert found.guard.hold_back == HoldBack(uuid7(1), NOW, UNTIL)
    assert found.changes
    assert isinstance(found.outcomes[0][1], Queued)
    for command in (KeepFree(uuid7(1), "bert", UNTIL), KeepFree(uuid7(9), "anna", UNTIL)):
        other = decide(state, [command], NOW, LIMITS)
        assert other.guard.hold_back is None
        assert not other.changes
        assert isinstance(other.outcomes[0][1], Denied)


def test_another_begins_when_others_were_served_for_as_long() -> None:
    kept = HoldBack(uuid7(1), NOW, UNTIL)
    assert kept.next_from == NOW + 2 * 60_000


def test_it_says_that_seats_are_kept_for_it() -> None:
    behind = a_ticket(2)
    state = keeping(a_pool(of_gang(1, seats=2), behind, seats=2, held=1), 1)
    pool = PoolSnapshot.of(state)
    plan = BY_POOL.plan(pool, LATER)
    (gang,) = (each for each in state.tickets.values() if each.gang)
    assert "seats are kept free for it" in why_waiting(pool, plan, gang).reason.text
    waiting = why_waiting(pool, plan, behind)
    assert sum(each.requests for each in waiting.ahead.values()) == 1


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 3), st.sampled_from([0, 0, 5])), max_size=7
    ),
    st.integers(0, 6),
    st.integers(0, 6),
    st.sampled_from(sorted(POLICIES)),
)
def test_whatever_waits_who_comes_before_it_is_served_as_without(
    drawn: list[tuple[bool, int, int]], seats: int, place: int, name: str
) -> None:
    tickets: list[Ticket] = []
    for number, (is_of_gang, wanted, priority) in enumerate(drawn, start=1):
        made = of_gang if is_of_gang else a_ticket
        tickets.append(made(number, seats=wanted, priority=priority))
    gangs = [each for each in tickets if each.gang]
    if not gangs:
        return
    gang = gangs[place % len(gangs)]
    number = tickets.index(gang) + 1
    state = a_pool(*tickets, seats=seats, policy=POLICIES[name])
    without = granted(at(state))
    keeping(state, number)
    served = granted(at(state))
    assert set(served) <= set(without)
    before = [
        each.grant_id
        for each in tickets
        if not each.gang and (-each.priority, each.number) < (-gang.priority, gang.number)
    ]
    assert [each for each in served if each in before] == [
        each for each in without if each in before
    ]
    free = seats - sum(each.seats for each in at(state).grants)
    # What it wants is free, or there are not so many: in its turn it is served.
    if [each for each in without if each not in served]:
        assert free >= min(gang.seats, 1)


def test_a_guards_record_keeps_what_is_kept() -> None:
    guard = Guard(3, 4, hold_back=HoldBack(uuid7(1), NOW, UNTIL))
    assert records.decode_guard(records.encode_guard(guard, 7)) == (guard, 7)
    ended = replace(guard, hold_back=HoldBack(uuid7(1), NOW, LATER))
    assert records.decode_guard(records.encode_guard(ended, 7)) == (ended, 7)
