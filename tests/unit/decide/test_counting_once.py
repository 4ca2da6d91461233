"""Grants of one holder, host or display count once: the group takes as many seats as its largest."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.kit import KEYS, NOW, POOL, acquire, changed, release, uuid7

from seatkeeper.core.lot_use import LotMarks, LotSeats
from seatkeeper.core.lots import Lot, LotState, PoolLots
from seatkeeper.core.pool_rules import AtMost
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.decide.admission import will_wait
from seatkeeper.server.decide.staying import NOTHING_ENDS, KeptEnds
from seatkeeper.server.domain import (
    Acquire,
    BorrowGrant,
    Command,
    Denied,
    Drain,
    Grant,
    Granted,
    Instant,
    Limits,
    Noted,
    PoolPolicy,
    PoolRules,
    PoolSpec,
    Queued,
    Refusal,
    StayRule,
    TakeOver,
)
from seatkeeper.server.domain.borrow import BorrowRule
from seatkeeper.server.domain.gang import GangMember
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import why_waiting
from seatkeeper.server.pool.messages import grant_message
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.writes import writes_of
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Delete, records

MINUTE = timedelta(minutes=1)
BY_HOST = PoolPolicy(count_once=("holder", "host"))


class APool:
    """A pool that is decided on, decision by decision."""

    def __init__(self, policy: PoolPolicy = BY_HOST, seats: int = 1, **more: Any) -> None:
        self.mirror = PoolMirror(KEYS, POOL)
        self.revision = 1
        self.mirror.state.spec = PoolSpec(POOL, seats, policy=policy, **more)

    @property
    def state(self) -> Any:
        return self.mirror.state

    def decide(self, *commands: Command, kept: KeptEnds = NOTHING_ENDS) -> Decision:
        state = self.mirror.state
        before = copy.deepcopy(state)
        decision = decide(state, commands, NOW, Limits(), kept=kept)
        assert state == before, "a decision changes nothing"
        self.revision += 1
        has_guard = bool(self.mirror.guard_revision)
        writes = writes_of(KEYS, POOL, decision, self.revision, has_guard=has_guard)
        self.mirror.committed(writes, self.revision, is_whole=True)
        assert state.held == in_use([*state.grants.values(), *state.kept.values()])
        spec = state.spec
        assert not decision.grants or spec is None or state.held <= spec.open_seats
        return decision

    def settle(self, *commands: Command) -> list[Grant]:
        """Decide until nothing is left to do, as a loop does."""
        decision = self.decide(*commands)
        found = list(decision.grants)
        for _ in range(20):
            plan = BY_POOL.plan(PoolSnapshot.of(self.state), NOW)
            if not plan.serve and not decision.deferred:
                return found
            decision = self.decide(*decision.deferred)
            assert decision.grants or decision.outcomes, "work that no decision does"
            found += decision.grants
        raise AssertionError("it never comes to rest")

    def lose(self, number: int) -> None:
        """End the lease that a grant is under."""
        self.revision += 1
        self.mirror.committed([Delete(KEYS.grant(POOL, uuid7(number)))], self.revision)


def in_use(grants: list[Grant]) -> int:
    """The seats that grants take, counted another time."""
    alone = [grant.seats for grant in grants if not grant.group]
    groups: dict[object, int] = {}
    for grant in grants:
        if grant.group:
            groups[grant.group] = max(groups.get(grant.group, 0), grant.seats)
    return sum(alone) + sum(groups.values())


def asks(
    number: int, who: str = "anna", host: str = "ws1", seats: int = 1, **more: Any
) -> Acquire:
    """One process of a holder, with a session of its own."""
    asked = acquire(number, f"{who}-{number}", seats=seats)
    return changed(asked, **{"holder": who, "host": host, **more})


def ends(number: int, who: str = "anna") -> Command:
    return release(number, f"{who}-{number}")


def ids(grants: list[Grant]) -> list[int]:
    return sorted(n for n in range(1, 400) if uuid7(n) in {grant.grant_id for grant in grants})


def test_a_second_process_takes_no_seat_and_needs_none() -> None:
    pool = APool()
    assert ids(pool.settle(asks(1), asks(2, may_wait=False), asks(3, "bert"))) == [1, 2]
    assert pool.state.held == 1
    first, second = (pool.state.grants[uuid7(n)] for n in (1, 2))
    assert (
        first.group
        == second.group
        == (*(("project", "cv"), ("holder", "anna"), ("host", "ws1")),)
    )
    assert first.fence != second.fence
    assert first.session_id != second.session_id
    # It passes those who wait, as it takes nothing that they wait for.
    assert ids(pool.settle(asks(4, host="WS1"))) == [4]
    assert [each.holder for each in pool.state.tickets.values()] == ["bert"]


def test_the_seat_is_free_when_the_last_of_them_goes() -> None:
    pool = APool()
    pool.settle(asks(1), asks(2), asks(3, "bert"))
    pool.lose(1)  # the one that was first, with its lease: no decision is there
    assert pool.state.held == 1
    assert not pool.settle()
    assert ids(pool.settle(ends(2))) == [3]


def test_one_that_wants_more_needs_the_difference_and_the_group_has_its_largest() -> None:
    pool = APool(seats=3)
    pool.settle(asks(1, seats=1), asks(2, seats=2))
    assert pool.state.held == 2
    assert not pool.settle(asks(3, "bert", seats=2))
    assert ids(pool.settle(asks(4, seats=2), asks(5, seats=1))) == [4, 5]
    pool.settle(ends(2))
    assert pool.state.held == 2
    assert ids(pool.settle(ends(4))) == [3]
    assert pool.state.held == 3


@pytest.mark.parametrize(
    ("named", "second", "together"),
    [
        (("holder", "host"), {"host": ""}, False),
        (("holder", "host"), {"host": "ws2"}, False),
        (("holder",), {"host": "ws2"}, True),
        (("holder",), {"project": "nlp"}, False),
        (("host",), {"holder": "bert"}, True),
        (("label:display",), {"labels": (("display", "ws1:0"),)}, False),
        ((), {}, False),
        (
            ("holder",),
            {"gang": (GangMember("p", uuid7(2), 1), GangMember(POOL, "x", 1))},
            False,
        ),
    ],
)
def test_all_that_is_named_is_the_same_and_known(
    named: tuple[str, ...], second: dict[str, Any], together: bool
) -> None:
    pool = APool(PoolPolicy(count_once=named), seats=2)
    pool.settle(asks(1))
    if "gang" in second:
        ticket = asks(2, **second).ticket(1, NOW)
        assert PoolSnapshot.of(pool.state).charged(ticket).seats == 1
        return
    pool.settle(asks(2, **second))
    assert pool.state.held == (1 if together else 2)


def test_two_of_whose_host_nothing_is_known_are_two() -> None:
    pool = APool(PoolPolicy(count_once=("holder", "host")), seats=2)
    pool.settle(asks(1, host=""))
    pool.settle(asks(2, host=""))
    assert pool.state.held == 2


def test_displays_count_by_their_label() -> None:
    pool = APool(PoolPolicy(count_once=("label:display",)))
    labels = (("display", "ws1:0"), ("tool", "a"))
    pool.settle(asks(1, labels=labels), asks(2, "bert", "ws2", labels=labels[:1]))
    assert len(pool.state.grants) == 2


def test_it_stays_as_it_was_granted() -> None:
    pool = APool(seats=2)
    pool.settle(asks(1), asks(2))
    pool.state.spec = replace(pool.state.spec, policy=PoolPolicy(count_once=("holder",)))
    assert pool.state.held == 1
    pool.settle(asks(3))
    assert pool.state.held == 2, "those that were granted by another rule are other groups"
    pool.state.spec = replace(pool.state.spec, policy=PoolPolicy())
    pool.settle(ends(1), ends(2))
    assert pool.state.held == 1


def test_nothing_joins_while_the_pool_is_drained_closed_or_over_its_seats() -> None:
    for change in (
        {"drain": Drain("moved", "anna", NOW)},
        {"seats": 0},
    ):
        pool = APool()
        pool.settle(asks(1))
        pool.state.spec = replace(pool.state.spec, **change)
        assert not pool.settle(asks(2))
    pool = APool(seats=2)
    pool.settle(asks(1), asks(3, "bert"))
    pool.state.spec = replace(pool.state.spec, seats=1)
    assert not pool.settle(asks(2))
    assert ids(pool.settle(ends(3, "bert"))) == [2]


def test_one_that_does_not_wait_joins_what_is_granted_at_the_same_time() -> None:
    pool = APool()
    first, second = (replace(asks(n), may_wait=False) for n in (1, 2))
    assert ids(pool.settle(first, second)) == [1, 2]
    other = pool.decide(replace(asks(3, "bert"), may_wait=False))
    ((_, denied),) = other.outcomes
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.NO_SEAT_FREE


def test_a_node_knows_that_it_will_not_wait() -> None:
    pool = APool()
    pool.settle(asks(1))
    plan = BY_POOL.plan(PoolSnapshot.of(pool.state), NOW)
    assert not will_wait(pool.state, asks(2), plan, NOW)
    assert will_wait(pool.state, asks(3, "bert"), plan, NOW)
    assert will_wait(pool.state, asks(4, seats=2), plan, NOW)


def test_limits_count_the_group_once() -> None:
    rules = PoolRules(per_holder=AtMost(seats=1), per_host=AtMost(seats=1))
    pool = APool(replace(BY_HOST, rules=rules), seats=4)
    assert ids(pool.settle(asks(1), asks(2), asks(3, host="ws2"))) == [1, 2]
    assert ids(pool.settle(ends(1), ends(2))) == [3]


def test_why_it_waits() -> None:
    pool = APool(seats=3)
    pool.settle(asks(1), asks(2, "bert"), asks(3, "cora"), asks(4, seats=2))
    state = pool.state
    plan = BY_POOL.plan(PoolSnapshot.of(state), NOW)
    said = why_waiting(PoolSnapshot.of(state), plan, state.tickets[uuid7(4)], NOW).reason.text
    assert "it wants 1 seat, and 0 of 3 are free" in said
    assert "counts once with a grant of project cv, holder anna, host ws1" in said
    assert "takes 1 of 2 seats" in said


def test_what_is_shared_is_not_borrowed() -> None:
    pool = APool(replace(BY_HOST, borrow=BorrowRule(MINUTE)), seats=2)
    pool.settle(asks(1), asks(2))

    def borrow(number: int) -> Command:
        session = f"anna-{number}"
        fence = pool.state.grants[uuid7(number)].fence
        return BorrowGrant(uuid7(number), session, fence, MINUTE, b"k" * 32, "m")

    ((_, refused),) = pool.decide(borrow(1)).outcomes
    assert isinstance(refused, Denied)
    assert refused.message.startswith("borrow.count_once: ")
    pool.settle(ends(2))
    decision = pool.decide(borrow(1), asks(3))
    assert isinstance(decision.outcomes[0][1], Noted)
    assert pool.state.grants[uuid7(1)].group == ()
    assert not pool.settle()
    assert pool.state.held == 2, "the next process has a seat of its own"


def test_kept_seats_count_with_their_group() -> None:
    pool = APool(replace(BY_HOST, stay=StayRule(linger=MINUTE)), seats=2)
    pool.settle(asks(1), asks(2))
    pool.settle(ends(1))
    assert (pool.state.held, pool.state.kept_seats) == (1, 0)
    # On another host it would take over the kept one, which frees nothing.
    pool.settle(asks(3, "bert"))
    assert isinstance(pool.decide(asks(4, host="ws2")).outcomes[0][1], Queued)
    pool.settle(ends(2))
    assert pool.state.held == 2, "both linger, and the one that waits has taken them over"
    assert uuid7(4) in pool.state.grants
    assert not pool.state.kept


def test_who_needs_no_seat_takes_the_place_of_one_that_is_kept() -> None:
    """Or each job of a holder would leave a kept grant behind."""
    pool = APool(replace(BY_HOST, stay=StayRule(linger=MINUTE)), seats=2)
    for number in range(1, 9):
        assert ids(pool.settle(asks(number))) == [number]
        pool.settle(ends(number))
        assert [*pool.state.kept] == [uuid7(number)]
    assert pool.state.held == 1
    pool.settle(asks(9))
    assert not pool.state.kept


def test_what_is_kept_of_another_group_is_left_to_it() -> None:
    pool = APool(replace(BY_HOST, stay=StayRule(linger=MINUTE)), seats=2)
    pool.settle(asks(1, host="ws1"), asks(2, host="ws2"))
    pool.settle(ends(2))
    pool.settle(asks(3, host="ws1"))
    assert uuid7(3) in pool.state.grants
    assert [*pool.state.kept] == [uuid7(2)]


def test_a_grant_that_returns_is_of_the_group_that_it_had() -> None:
    pool = APool(replace(BY_HOST, stay=StayRule(resurrection=MINUTE)))
    pool.settle(asks(1), asks(2))
    pool.lose(1)
    pool.decide()
    back = replace(asks(1), session_id="new", lease_id=lease_id_of("new"))
    (grant,) = pool.settle(changed(back, host="ws9"))
    assert grant.continues
    assert dict(grant.group)["host"] == "ws1"
    assert pool.state.held == 1


LOTS = PoolLots(
    (
        Lot(name="acme", seats=2, state=LotState.IN_FORCE, began_at=1),
        Lot(name="zeta", seats=2, state=LotState.IN_FORCE, began_at=2),
    ),
    1,
)


def of(acme: int, zeta: int = 0) -> LotMarks | None:
    named = ((name, n, at) for name, n, at in (("acme", acme, 1), ("zeta", zeta, 2)) if n)
    found = tuple(LotSeats(*each) for each in named)
    return LotMarks(found) if found else None


def test_what_a_group_takes_of_lots_never_gets_more_when_one_of_it_ends() -> None:
    pool = APool()
    pool.state.spec = pool.state.spec.with_lots(LOTS)
    pool.settle(asks(1, seats=2))
    pool.settle(asks(2, seats=1), asks(3, seats=4), asks(4, seats=3))
    marks = {n: pool.state.grants[uuid7(n)].marks for n in (1, 2, 3, 4)}
    assert marks == {1: of(1), 2: None, 3: of(2, 1), 4: of(2)}
    assert pool.state.marked.by_lot == {("acme", 1): 2, ("zeta", 2): 1}
    pool.lose(3)
    assert pool.state.marked.by_lot == {("acme", 1): 2}
    pool.lose(4)
    assert pool.state.marked.by_lot == {("acme", 1): 1}
    pool.lose(1)
    assert not pool.state.marked.by_lot
    assert pool.state.held == 1


def test_a_record_says_with_which_it_counts_and_of_what_format_it_is() -> None:
    pool = APool()
    pool.settle(asks(1))
    grant = pool.state.grants[uuid7(1)]
    record = records.grant_record(grant)
    assert record.format == 6
    assert records.decode_grant(grant.grant_id, record.SerializeToString()).group == grant.group
    assert [each.attribute for each in grant_message(grant).counts_once] == [
        *("project", "holder", "host"),
    ]
    assert records.spec_message(pool.state.spec).format == 6
    alone = replace(grant, group=())
    assert records.grant_record(alone).format == 0
    assert not grant_message(alone).counts_once


steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "dash", "release", "lose", "over", "resize"]),
        st.integers(0, 9),
        st.integers(1, 3),
    ),
    max_size=40,
)
policies = st.sampled_from(
    [
        *(BY_HOST, PoolPolicy(count_once=("host",)), PoolPolicy(count_once=("holder",))),
        replace(BY_HOST, stay=StayRule(linger=MINUTE)),
        replace(BY_HOST, stay=StayRule(resurrection=MINUTE, lock_delay=MINUTE)),
        replace(BY_HOST, rules=PoolRules(per_holder=AtMost(seats=2))),
    ]
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(steps=steps, policy=policies, has_lots=st.booleans())
def test_what_is_in_use_is_what_the_live_grants_say(
    steps: list[tuple[str, int, int]], policy: PoolPolicy, has_lots: bool
) -> None:
    pool, number = APool(policy, seats=3), 0
    state = pool.state
    if has_lots:
        state.spec = state.spec.with_lots(replace(LOTS, seats=0))
    for what, which, seats in steps:
        live = sorted(state.grants)
        before = dict(state.marked.by_lot)
        if what in ("ask", "dash"):
            number += 1
            who, host = ("anna", "bert", "cora")[which % 3], f"ws{which % 2}"
            asked = asks(number, who, host, seats)
            group = PoolSnapshot.of(state).charged(asked.ticket(1, NOW))
            joins = not group.seats and 0 < state.held <= state.spec.open_seats
            made = pool.settle(replace(asked, may_wait=what == "ask"))
            assert not joins or asked.grant_id in {each.grant_id for each in made}
        elif what == "release" and live:
            grant = state.grants[live[which % len(live)]]
            pool.settle(replace(release(1, grant.session_id), grant_id=grant.grant_id))
        elif what == "lose" and live:
            pool.revision += 1
            key = KEYS.grant(POOL, live[which % len(live)])
            pool.mirror.committed([Delete(key)], pool.revision)
            assert all(n <= before[lot] for lot, n in state.marked.by_lot.items())
            pool.settle()
        elif what == "resize" and not has_lots:
            state.spec = replace(state.spec, seats=seats)
            pool.settle()
        else:
            pool.decide(kept=KeptEnds(over=set(state.kept)))
            pool.settle()
        for lot in state.spec.lots.lots:
            assert state.marked.by_lot[lot.name, lot.began_at] <= lot.seats
        if policy.rules.limits_seats:
            for name in ("anna", "bert", "cora"):
                own = [
                    g
                    for g in (*state.grants.values(), *state.kept.values())
                    if g.holder == name
                ]
                assert in_use(own) <= 2
        assert not will_be_idle(pool), "who could be served waits"


def will_be_idle(pool: APool) -> bool:
    return bool(BY_POOL.plan(PoolSnapshot.of(pool.state), Instant(NOW)).serve)


def takes_over(number: int, taken: int, host: str) -> TakeOver:
    session = f"anna-{number}"
    return TakeOver(
        grant_id=uuid7(number),
        session_id=session,
        lease_id=lease_id_of(session),
        taken_id=uuid7(taken),
        holder="anna",
        host=host,
    )


def test_a_holder_moves_what_it_shares_only_where_no_more_is_in_use_then() -> None:
    pool = APool(seats=2)
    pool.settle(asks(1), asks(2))
    (_, refused), *_ = pool.decide(takes_over(3, 1, "ws2")).outcomes
    assert isinstance(refused, Denied)
    assert refused.reason is Refusal.NO_SEAT_FREE
    assert "other grants count once with it" in refused.message
    (_, moved), *_ = pool.decide(takes_over(4, 1, "WS1")).outcomes
    assert isinstance(moved, Granted)
    assert dict(moved.grant.group)["host"] == "ws1"
    pool.settle(ends(2))
    (_, alone), *_ = pool.decide(takes_over(5, 4, "ws2")).outcomes
    assert isinstance(alone, Granted)
    assert dict(alone.grant.group)["host"] == "ws2"
    assert pool.state.held == 1
