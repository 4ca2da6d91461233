"""Rules by host in decisions: who is let in, how much each host may have, and what is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, changed, release, uuid7

from seatkeeper.core.pool_rule_faults import rule_faults
from seatkeeper.core.pool_rules import AtMost, PoolRules, Who
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Acquire,
    Command,
    Denied,
    Grant,
    Instant,
    Limits,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    Queued,
    Refusal,
)
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.rules import Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import why_waiting

INCLUDE = PoolRules(include=Who(hosts=("build-*",), holders=("root",)))
EXCLUDE = PoolRules(exclude=Who(hosts=("Kiosk",)))
ONE = PoolRules(per_host=AtMost(seats=1))
ONE_TICKET = PoolRules(per_host=AtMost(tickets=1))


def a_pool(rules: PoolRules, *grants: Grant, seats: int = 4) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, seats, policy=PoolPolicy(rules=rules)))
    for grant in grants:
        state.put_grant(grant)
    return state


def asks(number: int, host: str, seats: int = 1, **more: object) -> Acquire:
    command = acquire(number, session=f"s{number}", seats=seats)
    return changed(command, host=host, **{"holder": f"h{number}", **more})


def held(number: int, host: str, seats: int = 1) -> Grant:
    grant = a_grant(number, fence=number, seats=seats, session=f"s{number}")
    return changed(grant, host=host, holder=f"h{number}")


def decided(state: PoolState, *commands: Command) -> Decision:
    return decide(state, commands, Instant(NOW), Limits())


@pytest.mark.parametrize(
    ("rules", "host", "holder", "refused"),
    [
        (INCLUDE, "build-7", "ann", ""),
        (INCLUDE, "BUILD-7.example.com", "ann", ""),
        (INCLUDE, "desk-1", "ann", "nor host desk-1 (rule `include`)"),
        (INCLUDE, "", "ann", "and its host is not known (rule `include`)"),
        (INCLUDE, "", "root", ""),
        (EXCLUDE, "kiosk", "ann", "host kiosk is excluded (rule `exclude`)"),
        (EXCLUDE, "KIOSK", "ann", "(rule `exclude`)"),
        (EXCLUDE, "kiosk-2", "ann", ""),
        (EXCLUDE, "", "ann", ""),
        (PoolRules(exclude=Who(hosts=("*",))), "", "ann", ""),
        (PoolRules(exclude=Who(hosts=("*",))), "x", "ann", "(rule `exclude`)"),
    ],
)
def test_who_is_let_in_by_host(rules: PoolRules, host: str, holder: str, refused: str) -> None:
    decision = decided(a_pool(rules), asks(1, host, holder=holder))
    outcome = decision.outcomes[0][1]
    if not refused:
        assert [grant.grant_id for grant in decision.grants] == [uuid7(1)]
        return
    assert isinstance(outcome, Denied)
    assert outcome.reason is Refusal.NOT_ALLOWED
    assert refused in outcome.message


def test_a_host_has_at_most_its_seats_and_others_go_before_it() -> None:
    state = a_pool(ONE, held(900, "Build-7"))
    decision = decided(state, asks(1, "build-7"), asks(2, "BUILD-7"), asks(3, "other"))
    assert [grant.grant_id for grant in decision.grants] == [uuid7(3)]
    assert [ticket.grant_id for ticket in decision.tickets] == [uuid7(1), uuid7(2)]
    for ticket in decision.tickets:
        state.put_ticket(ticket)
    plan = BY_POOL.plan(PoolSnapshot.of(state), Instant(NOW))
    why = why_waiting(PoolSnapshot.of(state), plan, state.tickets[uuid7(1)])
    assert why.reason.rule is Rule.PER_HOST
    assert why.reason.text == "host build-7 has 1 of the 1 seats that each may hold"
    freed = decided(state, release(900, "s900"))
    assert [grant.grant_id for grant in freed.grants] == [uuid7(1)]


def test_of_a_host_that_is_not_known_nothing_is_counted() -> None:
    decision = decided(a_pool(ONE), asks(1, ""), asks(2, ""), asks(3, "", 2))
    assert len(decision.grants) == 3


def test_more_than_each_host_may_hold_is_refused() -> None:
    denied = decided(a_pool(ONE), asks(1, "build-7", 2)).outcomes[0][1]
    assert isinstance(denied, Denied)
    assert "each host may hold at most 1, not 2, seats" in denied.message
    assert "(rule `per_host`)" in denied.message


def test_as_many_requests_of_a_host_wait_as_each_may_have() -> None:
    state = a_pool(ONE_TICKET, held(900, "x", 4))
    decision = decided(
        state, asks(1, "build-7"), asks(2, "Build-7"), asks(3, "other"), asks(4, "")
    )
    outcomes = [outcome for _, outcome in decision.outcomes]
    assert [type(each) for each in outcomes] == [Queued, Denied, Queued, Queued]
    denied = outcomes[1]
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.TOO_MANY_TICKETS
    assert "host build-7 has 1 requests in the queue" in denied.message
    for ticket in decision.tickets:
        state.put_ticket(ticket)
    again = decided(state, asks(5, "BUILD-7")).outcomes[0][1]
    assert isinstance(again, Denied)
    state.remove_ticket(uuid7(1))
    assert isinstance(decided(state, asks(6, "build-7")).outcomes[0][1], Queued)


def test_rules_of_hosts_that_come_end_what_waits_and_is_not_let_in() -> None:
    state = a_pool(PoolRules(), held(900, "", 4))
    state.put_ticket(changed(a_ticket(1), host=""))
    state.put_ticket(changed(a_ticket(2, session="bo"), host="build-1"))
    assert state.spec is not None
    state.spec = replace(state.spec, policy=PoolPolicy(rules=INCLUDE))
    decision = decided(state)
    assert decision.tickets_ended == [uuid7(1)]


def test_in_a_pool_of_projects_those_of_one_project_keep_their_order() -> None:
    shares = (ProjectShare(project="cv"), ProjectShare(project="nlp"))
    state = a_pool(ONE, held(900, "a"))
    assert state.spec is not None
    state.spec = replace(state.spec, policy=PoolPolicy(shares, rules=ONE))
    decision = decided(state, asks(1, "a"), asks(2, "b"), asks(3, "a", project="nlp"))
    assert [grant.grant_id for grant in decision.grants] == [uuid7(2)]


HOSTS = st.sampled_from(["", "a", "A", "b"])
REQUESTS = st.lists(st.tuples(HOSTS, st.integers(1, 3)), max_size=8)


@settings(deadline=None)
@given(st.integers(1, 3), st.lists(HOSTS, max_size=4), REQUESTS)
def test_no_host_ever_holds_more_and_what_has_room_is_served(
    most: int, there: list[str], requests: list[tuple[str, int]]
) -> None:
    grants = [held(900 + n, host) for n, host in enumerate(there)]
    state = a_pool(PoolRules(per_host=AtMost(seats=most)), *grants, seats=9)
    commands = [asks(number, *each) for number, each in enumerate(requests, 1)]
    decision = decided(state, *commands)
    before: dict[str, int] = {}
    for grant in grants:
        before[grant.host.lower()] = before.get(grant.host.lower(), 0) + grant.seats
    after = dict(before)
    for grant in decision.grants:
        after[grant.host.lower()] = after.get(grant.host.lower(), 0) + grant.seats
    for host, seats in after.items():
        assert not host or seats <= max(most, before.get(host, 0))
    free = 9 - sum(after.values())
    first: dict[str, int] = {}
    for ticket in decision.tickets:
        first.setdefault(ticket.host.lower(), ticket.seats)
    for host, seats in first.items():
        has_room = not host or after.get(host, 0) + seats <= most
        assert not has_room or seats > free or max(first.values()) > free


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        (INCLUDE, ""),
        (PoolRules(include=Who(hosts=("a*b*",))), "more than one"),
        (PoolRules(exclude=Who(hosts=("x", "x"))), "there twice"),
        (PoolRules(exclude=Who(hosts=("",))), "it has 1 to"),
        (PoolRules(per_host=AtMost(seats=0)), "0 is not from 1"),
    ],
)
def test_what_may_be_said_of_hosts(rules: PoolRules, fault: str) -> None:
    found = [reason for _, reason in rule_faults(rules)]
    assert bool(found) == bool(fault)
    assert not fault or fault in found[0]
