"""A holder takes over its own seats in another session: at once, and never a second seat."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.decide.decided_pool import DecidedPool
from tests.unit.kit import POOL, acquire, changed, release, uuid7

from seatkeeper.core.counting import Counting
from seatkeeper.core.hold import HoldRule
from seatkeeper.core.pool_rules import AtMost, Who
from seatkeeper.server.decide import Decision
from seatkeeper.server.domain import (
    Command,
    Denied,
    Drain,
    ExtendGrant,
    ForcedEnd,
    Granted,
    Instant,
    PoolPolicy,
    PoolRules,
    PoolSpec,
    Queued,
    Reclaim,
    Reclaims,
    Refusal,
    StayRule,
    TakeOver,
)
from seatkeeper.server.domain.gang import GangMember

MINUTE = timedelta(minutes=1)


def take_over(
    number: int,
    taken: int,
    session: str = "anna2",
    *,
    holder: str = "anna@host",
    host: str = "",
) -> TakeOver:
    return TakeOver(uuid7(number), session, 77, holder, uuid7(taken), host)


def a_pool(seats: int = 1, **policy: Any) -> DecidedPool:
    return DecidedPool(PoolSpec(POOL, seats, policy=PoolPolicy(**policy)))


def outcome(decision: Decision, at: int = 0) -> object:
    return decision.outcomes[at][1]


def refused(decision: Decision) -> Refusal:
    found = outcome(decision)
    assert isinstance(found, Denied), found
    assert not decision.grants
    return found.reason


def test_the_seats_are_moved_whatever_waits() -> None:
    pool = a_pool()
    pool.decide(changed(acquire(1), labels=(("run", "7"),)))
    pool.decide(acquire(2, "bert"))
    pool.now = Instant(pool.now + 5_000)

    decision = pool.decide(take_over(3, 1))

    (grant,) = decision.grants
    assert outcome(decision) == Granted(grant)
    assert (grant.session_id, grant.lease_id, grant.fence) == ("anna2", 77, 2)
    assert (grant.continues, grant.attribution.labels, grant.holder) == (
        1,
        (("run", "7"),),
        "anna@host",
    )
    assert decision.reclaimed_fences == decision.taken_over_fences == [1]
    (lost,) = decision.marks["anna"].lost
    assert lost.grant_id == uuid7(1)
    assert "taken the seats over" in lost.message
    state = pool.mirror.state
    assert (state.held, list(state.grants), list(state.tickets)) == (1, [uuid7(3)], [uuid7(2)])
    assert state.grants[uuid7(3)].held_since == pool.now - 5_000, "the record says since when"


def test_the_same_again_finds_the_grant_and_one_after_its_release_does_not() -> None:
    pool = a_pool()
    pool.decide(acquire(1))
    pool.decide(take_over(3, 1))
    again = pool.decide(take_over(3, 1))
    assert isinstance(outcome(again), Granted)
    assert not again.grants
    pool.decide(replace(release(3, "anna2"), lease_id=77))
    assert refused(pool.decide(take_over(3, 1))) is Refusal.FINISHED


def test_a_late_copy_of_one_that_was_denied_takes_nothing() -> None:
    pool = a_pool(2)
    assert refused(pool.decide(take_over(3, 1))) is Refusal.NOT_TAKEN_OVER
    pool.decide(acquire(1))
    assert refused(pool.decide(take_over(3, 1))) is Refusal.FINISHED


def test_the_old_session_asks_in_vain() -> None:
    pool = a_pool(2)
    pool.decide(acquire(1))
    pool.decide(take_over(3, 1))
    assert refused(pool.decide(acquire(1))) is Refusal.REMOVED
    pool.decide(release(1))
    assert pool.mirror.state.held == 1


def test_who_comes_with_it_is_served_by_the_next_decision() -> None:
    pool = a_pool(2)
    pool.decide(acquire(1))
    decision = pool.decide(take_over(3, 1), acquire(4, "bert", may_wait=False))
    assert [each.grant_id for each in decision.grants] == [uuid7(3)]
    assert [each.grant_id for each in decision.deferred] == [uuid7(4)]
    assert decision.unserved
    assert isinstance(outcome(pool.decide(*decision.deferred)), Granted)


def test_it_waits_for_the_requests_before_it() -> None:
    pool = a_pool()
    pool.decide(acquire(1))
    decision = pool.decide(acquire(4, "bert"), take_over(3, 1), release(1))
    assert isinstance(outcome(decision), Queued)
    assert [each.grant_id for each in decision.deferred] == [uuid7(3), uuid7(1)]


def test_a_seat_that_is_released_before_it_is_not_there() -> None:
    pool = a_pool()
    pool.decide(acquire(1))
    pool.decide(acquire(2, "bert"))
    decision = pool.decide(release(1), take_over(3, 1))
    assert [each.grant_id for each in decision.grants] == [uuid7(2)]
    assert isinstance(outcome(decision, 1), Denied)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (take_over(3, 1, holder="bert@host"), "no live grant"),
        (take_over(3, 9), "no live grant"),
        (take_over(3, 2, holder="bert@host"), "waits"),
        (take_over(3, 1, "anna"), "already"),
    ],
)
def test_what_is_not_there_for_it_is_not_taken(command: TakeOver, said: str) -> None:
    pool = a_pool()
    pool.decide(acquire(1))
    pool.decide(acquire(2, "bert"))
    decision = pool.decide(command)
    assert refused(decision) is Refusal.NOT_TAKEN_OVER
    denied = outcome(decision)
    assert isinstance(denied, Denied)
    assert said in denied.message
    assert list(pool.mirror.state.grants) == [uuid7(1)]


@pytest.mark.parametrize(
    "change",
    [
        {"work_key": "engine/1"},
        {"gang": (GangMember(POOL, uuid7(1), 1), GangMember("other", uuid7(8), 1))},
        {"agent_id": "builder-1", "claim_id": "c"},
    ],
)
def test_seats_that_others_count_on_stay_where_they_are(change: dict[str, Any]) -> None:
    pool = a_pool()
    pool.decide(acquire(1))
    state = pool.mirror.state
    grant = state.remove_grant(uuid7(1))
    assert grant is not None
    state.put_grant(changed(grant, **change))
    assert refused(pool.decide(take_over(3, 1))) is Refusal.NOT_TAKEN_OVER


def test_seats_that_are_called_back_are_not_had_anew() -> None:
    pool = a_pool()
    pool.decide(acquire(1))
    state = pool.mirror.state
    called = Reclaim(1, pool.now, MINUTE, "nlp")
    state.guard = replace(state.guard, reclaims=Reclaims({uuid7(1): called}))
    decision = pool.decide(take_over(3, 1))
    assert refused(decision) is Refusal.NOT_TAKEN_OVER


def test_what_is_called_back_of_others_stays_so() -> None:
    pool = a_pool(2)
    pool.decide(acquire(1))
    pool.decide(acquire(2, "bert"))
    state = pool.mirror.state
    called = Reclaim(1, pool.now, MINUTE, "nlp")
    state.guard = replace(state.guard, reclaims=Reclaims({uuid7(2): called}))
    decision = pool.decide(take_over(3, 1))
    assert decision.guard.reclaims.running == {uuid7(2): called}


def test_more_seats_held_than_there_are_and_drained_pools_grant_nothing() -> None:
    pool = a_pool(2)
    pool.decide(acquire(1, seats=2))
    pool.specify(PoolSpec(POOL, 1))
    assert refused(pool.decide(take_over(3, 1))) is Refusal.NO_SEAT_FREE
    pool.specify(PoolSpec(POOL, 2, drain=Drain("moving", "ops", 1)))
    assert refused(pool.decide(take_over(4, 1))) is Refusal.POOL_DRAINED


def test_an_advisory_pool_marks_what_is_beyond_its_seats() -> None:
    pool = DecidedPool(PoolSpec(POOL, 9))
    pool.decide(acquire(1))
    pool.decide(acquire(2, "bert"))
    policy = PoolPolicy(counting=Counting(is_advisory=True))
    pool.specify(PoolSpec(POOL, 2, policy=policy))
    (one,) = pool.decide(take_over(3, 1)).grants
    assert one.mark is None
    pool.specify(PoolSpec(POOL, 1, policy=policy))
    (other,) = pool.decide(take_over(4, 3, "anna3")).grants
    assert other.mark is not None
    assert (other.mark.rule, other.mark.seats_beyond) == ("seats", 1)


def test_the_rules_of_the_pool_hold_for_the_new_host() -> None:
    rules = PoolRules(per_host=AtMost(seats=2), exclude=Who(hosts=("lab",)))
    pool = a_pool(9, rules=rules)
    pool.decide(changed(acquire(1, seats=2), host="one"))
    pool.decide(changed(acquire(2, "bert"), host="two"))
    assert refused(pool.decide(take_over(3, 1, host="lab"))) is Refusal.NOT_ALLOWED
    decision = pool.decide(take_over(4, 1, host="TWO"))
    assert refused(decision) is Refusal.NO_SEAT_FREE
    (grant,) = pool.decide(take_over(5, 1, host="three")).grants
    assert grant.host == "three"


def test_a_longest_hold_counts_from_the_first_grant_with_what_was_added() -> None:
    pool = a_pool(hold=HoldRule(longest=10 * MINUTE, warning=MINUTE))
    pool.decide(acquire(1))
    extend = ExtendGrant(uuid7(1), "anna", 1, 5 * MINUTE, timedelta(0))
    pool.decide(extend)
    pool.now = Instant(pool.now + 60_000)
    decision = pool.decide(take_over(3, 1))
    (grant,) = decision.grants
    assert grant.held_since == grant.granted_at - 60_000
    assert decision.guard.holds.extended == {uuid7(3): 5 * MINUTE}
    pool.now = Instant(pool.now + 60_000)
    (third,) = pool.decide(take_over(4, 3, "anna3")).grants
    assert third.held_since == third.granted_at - 120_000


def test_kept_seats_of_a_lost_session_are_taken_over_too() -> None:
    pool = a_pool(stay=StayRule(resurrection=MINUTE))
    pool.decide(acquire(1))
    pool.lose(1)
    assert pool.mirror.state.held == 1
    (grant,) = pool.decide(take_over(3, 1)).grants
    assert grant.continues == 1
    assert (pool.mirror.state.held, dict(pool.mirror.state.kept)) == (1, {})
    pool.lose(3)
    assert list(pool.mirror.state.kept) == [uuid7(3)]


COMMANDS = st.lists(
    st.one_of(
        st.builds(acquire, st.integers(1, 6), st.sampled_from(["anna", "bert"])),
        st.builds(release, st.integers(1, 9), st.sampled_from(["anna", "bert", "anna2"])),
        st.builds(
            take_over,
            st.integers(7, 9),
            st.integers(1, 9),
            st.sampled_from(["anna2", "bert2", "anna"]),
            holder=st.sampled_from(["anna@host", "bert@host"]),
        ),
        st.builds(
            lambda n, fence: ForcedEnd(uuid7(n), "anna", fence, "test"),
            st.integers(1, 9),
            st.integers(1, 9),
        ),
    ),
    max_size=4,
)


@given(st.integers(1, 3), st.lists(COMMANDS, max_size=8))
def test_no_seat_is_ever_held_twice(seats: int, rounds: list[list[Command]]) -> None:
    pool = a_pool(seats)
    holders: dict[int, str] = {}
    fences: set[int] = set()
    for commands in rounds:
        left = list(commands)
        for _ in range(len(commands) + 1):
            decision = pool.decide(*left)
            for grant in decision.grants:
                assert grant.fence not in fences
                fences.add(grant.fence)
                holders[grant.fence] = grant.holder
                assert not grant.continues or holders[grant.continues] == grant.holder
            left = list(decision.deferred)
        assert not left, "one is taken by each decision at least"
