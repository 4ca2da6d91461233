"""Tickets of gangs: no decision of one pool grants them; the gang's own serves them in their turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, changed, uuid7

from seatkeeper.core.pool_rules import AtMost
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Instant,
    Limits,
    PoolPolicy,
    PoolRules,
    PoolSpec,
    PoolState,
    ProjectShare,
    Ticket,
)
from seatkeeper.server.domain.gang import GangMember
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.joined import Joined
from seatkeeper.server.policy.rules import Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import why_waiting

SHARED = PoolPolicy(projects=(ProjectShare(project="cv"), ProjectShare(project="nlp")))
EACH = PoolPolicy(rules=PoolRules(per_holder=AtMost(seats=9)))
POLICIES = {"fifo": PoolPolicy(), "shared": SHARED, "each": EACH}
LIMITS = Limits()


def of_gang(number: int, seats: int = 1, priority: int = 0) -> Ticket:
    """A ticket of this pool's, with a mate in another pool."""
    mates = GangMember("zoo", uuid7(900 + number), 1)
    gang = (GangMember(POOL, uuid7(number), seats), mates)
    return changed(a_ticket(number, seats=seats, priority=priority), gang=gang)


def a_pool(
    *tickets: Ticket, seats: int = 4, held: int = 0, policy: PoolPolicy | None = None
) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, seats, policy=policy or PoolPolicy()))
    for number in range(held):
        state.put_grant(a_grant(500 + number, fence=number + 1))
    for ticket in tickets:
        state.put_ticket(ticket)
    return state


def alone(state: PoolState) -> Decision:
    return decide(state, (), NOW, LIMITS)


def together(state: PoolState, number: int) -> Decision:
    return decide(state, (), NOW, LIMITS, policy=Joined(BY_POOL, uuid7(number)))


def granted(decision: Decision) -> list[str]:
    return [grant.grant_id for grant in decision.grants]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_pool_alone_grants_none_and_those_behind_it_are_served(policy: PoolPolicy) -> None:
    state = a_pool(of_gang(1), a_ticket(2), of_gang(3), policy=policy)
    assert granted(alone(state)) == [uuid7(2)]
    plan = BY_POOL.plan(PoolSnapshot.of(state), NOW)
    assert [ticket.grant_id for ticket in plan.order] == [uuid7(2), uuid7(1), uuid7(3)]
    assert [plan.hold_back(ticket) for ticket in plan.order] == [False, True, True]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_with_its_gang_it_is_served_in_its_turn_and_its_mates_are_not(
    policy: PoolPolicy,
) -> None:
    state = a_pool(a_ticket(1), of_gang(2), of_gang(3), a_ticket(4), policy=policy)
    assert granted(together(state, 2)) == [uuid7(1), uuid7(2), uuid7(4)]
    full = a_pool(a_ticket(1), of_gang(2), seats=1, policy=policy)
    assert granted(together(full, 2)) == [uuid7(1)]
    behind = a_pool(a_ticket(1, seats=3), of_gang(2), seats=4, held=2, policy=policy)
    assert granted(together(behind, 2)) == []


def test_no_decision_goes_on_for_it_and_it_says_why_it_waits() -> None:
    state = a_pool(of_gang(1, seats=2))
    assert not alone(state).changes
    plan = BY_POOL.plan(PoolSnapshot.of(state), NOW)
    waiting = why_waiting(PoolSnapshot.of(state), plan, state.tickets[uuid7(1)])
    assert waiting.reason.rule is Rule.GANG
    assert "2 seats of " in waiting.reason.text
    assert "1 seat of zoo" in waiting.reason.text
    # What only the pool knows comes first.
    closed = a_pool(of_gang(1), seats=0)
    plan = BY_POOL.plan(PoolSnapshot.of(closed), NOW)
    said = why_waiting(PoolSnapshot.of(closed), plan, closed.tickets[uuid7(1)])
    assert said.reason.rule is Rule.CLOSED


def test_it_gives_up_and_is_denied_as_any_other() -> None:
    state = a_pool(of_gang(1), of_gang(2, seats=9))
    over = decide(state, (), NOW, LIMITS, due=[state.tickets[uuid7(1)]])
    assert over.tickets_ended == [uuid7(1), uuid7(2)]
    assert over.grants == []


tickets = st.lists(
    st.tuples(st.booleans(), st.integers(1, 3), st.integers(-1, 1)), min_size=1, max_size=8
)


@given(tickets, st.integers(0, 6), st.integers(0, 3), st.sampled_from(sorted(POLICIES)))
def test_whatever_waits_none_is_granted_alone_and_one_at_most_with_its_gang(
    drawn: list[tuple[bool, int, int]], seats: int, held: int, policy: str
) -> None:
    waiting = [
        of_gang(number, wanted, priority=priority)
        if is_of_gang
        else a_ticket(number, seats=wanted, priority=priority)
        for number, (is_of_gang, wanted, priority) in enumerate(drawn, start=1)
    ]
    gangs = {ticket.grant_id for ticket in waiting if ticket.gang}

    def state() -> PoolState:
        return a_pool(*waiting, seats=seats, held=held, policy=POLICIES[policy])

    assert not gangs & set(granted(alone(state())))
    for number, (is_of_gang, wanted, priority) in enumerate(drawn, start=1):
        if not is_of_gang:
            continue
        # As if it were no gang's, and the others of gangs were not there.
        plain = [each for each in waiting if not each.gang]
        plain.append(a_ticket(number, seats=wanted, priority=priority))
        expected = a_pool(*plain, seats=seats, held=held, policy=POLICIES[policy])
        made = granted(together(state(), number))
        assert made == granted(decide(expected, (), Instant(NOW), LIMITS))
        assert gangs & set(made) <= {uuid7(number)}
