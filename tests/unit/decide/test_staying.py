"""Seats that are kept after a release or a loss: counted as held, for one holder, and for a while."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.decide.decided_pool import DecidedPool
from tests.unit.kit import KEYS, NOW, POOL, a_grant, acquire, changed, release, uuid7

from seatkeeper.core.pool_rules import AtMost
from seatkeeper.server.decide import Decision
from seatkeeper.server.decide.counting import keeps_any
from seatkeeper.server.decide.staying import KeptEnds
from seatkeeper.server.domain import (
    Acquire,
    Denied,
    Drain,
    ForcedEnd,
    Instant,
    Limits,
    PoolPolicy,
    PoolRules,
    PoolSpec,
    Queued,
    Reclaim,
    Reclaims,
    Refusal,
    Stay,
    StayRule,
)
from seatkeeper.server.domain.gang import GangMember
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.rules import Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import why_waiting
from seatkeeper.server.store import Delete, Put, records
from seatkeeper.server.store.stays import encode_stay

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
LINGER = StayRule(linger=MINUTE)
DELAY = StayRule(lock_delay=MINUTE)
RETURNS = StayRule(resurrection=MINUTE)


class APool(DecidedPool):
    """A pool that keeps seats, decided on decision by decision."""

    def __init__(self, rule: StayRule | None, seats: int = 1) -> None:
        super().__init__(PoolSpec(POOL, seats, policy=PoolPolicy(stay=rule)))

    def take(self, number: int, session: str = "anna", **more: Any) -> Decision:
        return self.decide(asked(number, session, **more))


def asked(number: int, session: str = "anna", **more: Any) -> Acquire:
    return changed(acquire(number, session, may_wait=False), **more)


def granted(decision: Decision) -> list[tuple[str, int]]:
    return [(grant.grant_id, grant.continues) for grant in decision.grants]


def refused(decision: Decision) -> Refusal:
    (_, outcome), *_ = decision.outcomes
    assert isinstance(outcome, Denied)
    return outcome.reason


def test_a_released_seat_is_kept_for_its_holder_and_for_no_other() -> None:
    pool = APool(LINGER)
    pool.take(1)
    decision = pool.decide(release(1), acquire(2, "bert"))

    assert isinstance(decision.outcomes[1][1], Queued)
    assert decision.released_fences == [1]
    (stay,) = decision.kept
    assert (stay.since, stay.until) == (NOW, NOW + 60_000)
    assert pool.mirror.state.held == 1
    assert refused(pool.take(3, "cora")) is Refusal.NO_SEAT_FREE

    back = pool.take(4)
    assert granted(back) == [(uuid7(4), 1)]
    assert pool.mirror.state.held == 1, "one seat, not two"
    assert not pool.mirror.state.stays


def test_when_the_time_is_over_it_goes_to_the_next() -> None:
    pool = APool(LINGER)
    pool.take(1)
    pool.decide(release(1), acquire(2, "bert"))
    assert not pool.decide(kept=KeptEnds(over={uuid7(7)})).grants

    decision = pool.decide(kept=KeptEnds(over={uuid7(1)}))
    assert granted(decision) == [(uuid7(2), 0)]
    assert [kept.grant_id for kept in decision.kept_freed] == [uuid7(1)]


@pytest.mark.parametrize("change", [{"project": "nlp"}, {"holder": "anna@elsewhere"}])
def test_it_is_for_the_same_holder_and_the_same_project(change: dict[str, str]) -> None:
    pool = APool(LINGER)
    pool.take(1)
    pool.decide(release(1))
    assert refused(pool.decide(asked(2, **change))) is Refusal.NO_SEAT_FREE


def test_one_who_waits_takes_it_as_one_who_asks_anew_would() -> None:
    pool = APool(LINGER)
    pool.take(1)
    pool.decide(acquire(2, "bert"), acquire(3))
    pool.decide(release(1))
    assert granted(pool.decide()) == [(uuid7(3), 1)]


def test_seats_are_taken_as_many_as_are_wanted_and_the_rest_is_free() -> None:
    pool = APool(LINGER, seats=4)
    for number, seats in ((1, 1), (2, 3)):
        pool.decide(acquire(number, seats=seats))
    pool.decide(release(1), release(2))
    assert granted(pool.decide(acquire(3, seats=1))) == [(uuid7(3), 1)], "the one that fits"
    assert granted(pool.decide(acquire(4, seats=2))) == [(uuid7(4), 2)]
    assert pool.mirror.state.held == 3


def test_several_kept_grants_make_one() -> None:
    pool = APool(LINGER, seats=2)
    pool.decide(acquire(1), acquire(2))
    pool.decide(release(1), release(2))
    assert granted(pool.decide(acquire(3, seats=2))) == [(uuid7(3), 1)]
    assert pool.mirror.state.held == 2


def test_seats_that_were_called_back_do_not_linger() -> None:
    pool = APool(LINGER)
    pool.take(1)
    guard = pool.mirror.state.guard
    called = Reclaims({uuid7(1): Reclaim(1, NOW, SECOND, "nlp")}, (NOW,), 1)
    pool.mirror.state.guard = replace(guard, reclaims=called)
    decision = pool.decide(release(1), acquire(2, "bert"))
    assert granted(decision) == [(uuid7(2), 0)]


@pytest.mark.parametrize("rule", [DELAY, RETURNS])
def test_the_seats_of_the_lost_are_taken_before_any_node_has_written_it(rule: StayRule) -> None:
    pool = APool(rule)
    pool.take(1)
    assert not pool.mirror.state.stays[uuid7(1)].until
    pool.lose(1)
    assert pool.mirror.state.held == 1
    assert not pool.mirror.state.grants
    decision = pool.decide(acquire(2, "bert"))
    assert not decision.grants
    (stay,) = decision.kept
    assert stay.until == NOW + 60_000
    assert stay.may_return is (rule is RETURNS)

    pool.now = Instant(NOW + 5_000)
    assert not pool.decide(release(9)).kept, "it is written once"
    assert pool.mirror.state.stays[uuid7(1)].until == NOW + 60_000
    assert granted(pool.decide(kept=KeptEnds(over={uuid7(1)}))) == [(uuid7(2), 0)]
    assert not pool.mirror.state.kept


def test_after_a_lock_delay_alone_not_even_its_holder_has_them_before() -> None:
    pool = APool(DELAY)
    pool.take(1)
    pool.lose(1)
    again = asked(1, "bert", holder="anna@host")
    assert refused(pool.decide(again)) is Refusal.FINISHED
    assert refused(pool.take(2, "bert", holder="anna@host")) is Refusal.NO_SEAT_FREE


def test_the_longer_of_both_windows_counts() -> None:
    pool = APool(StayRule(resurrection=SECOND, lock_delay=MINUTE))
    pool.take(1)
    pool.lose(1)
    (stay,) = pool.decide().kept
    assert stay.until == NOW + 60_000
    assert stay.may_return


@pytest.mark.parametrize("is_written", [False, True])
def test_a_lost_grant_comes_back_with_a_new_fence(is_written: bool) -> None:
    pool = APool(RETURNS)
    pool.take(1)
    pool.lose(1)
    pool.decide(acquire(2, "bert"))
    if not is_written:
        pool = APool(RETURNS)
        pool.take(1)
        pool.lose(1)
    decision = pool.decide(asked(1, "new", holder="anna@host"))
    assert granted(decision) == [(uuid7(1), 1)]
    (grant,) = decision.grants
    assert (grant.fence, grant.session_id) == (2, "new")
    assert pool.mirror.state.held == 1
    # The old process: its release is another's by now, and so is its request.
    assert refused(pool.decide(release(1))) is Refusal.NOT_YOURS
    assert refused(pool.decide(asked(1))) is Refusal.NOT_YOURS
    assert [g.session_id for g in pool.mirror.state.grants.values()] == ["new"]

    pool.lose(1)
    assert pool.mirror.state.held == 1, "it outlives the second session as well"


def test_only_its_holder_gets_it_and_only_as_it_was() -> None:
    pool = APool(RETURNS, seats=2)
    pool.take(1)
    pool.lose(1)
    assert refused(pool.decide(asked(1, "bert"))) is Refusal.NOT_YOURS
    more = asked(1, "new", holder="anna@host", seats=2)
    assert refused(pool.decide(more)) is Refusal.OTHER_TERMS
    assert granted(pool.decide(asked(1, "new", holder="anna@host"))) == [(uuid7(1), 1)]


def test_what_was_called_back_when_it_was_lost_does_not_come_back() -> None:
    pool = APool(RETURNS)
    pool.take(1)
    called = Reclaims({uuid7(1): Reclaim(1, NOW, SECOND, "nlp")}, (NOW,), 1)
    pool.mirror.state.guard = replace(pool.mirror.state.guard, reclaims=called)
    pool.lose(1)
    assert granted(pool.decide(acquire(2, "bert"))) == [(uuid7(2), 0)]


def test_seats_of_a_gang_are_kept_for_no_one_but_a_lock_delay() -> None:
    gang = (GangMember(POOL, uuid7(1), 1), GangMember("other", uuid7(1), 1))
    for rule, is_kept in ((LINGER, False), (RETURNS, False), (DELAY, True)):
        pool = APool(rule)
        grant = changed(a_grant(1), gang=gang)
        writes = [Put(KEYS.grant(POOL, uuid7(1)), records.encode_grant(grant))]
        if rule.outlives:
            value = encode_stay(Stay(grant))
            writes.append(Put(KEYS.stay(POOL, uuid7(1)), value))
        pool.mirror.committed(writes, pool.revision)
        if rule is LINGER:
            decision = pool.decide(release(1), acquire(2, "bert"))
        else:
            pool.lose(1)
            decision = pool.decide(acquire(2, "bert"))
        assert bool(decision.kept) is is_kept
        assert bool(decision.grants) is not is_kept


def test_a_session_that_was_closed_is_not_lost() -> None:
    pool = APool(DELAY)
    pool.take(1)
    pool.lose(1)
    assert granted(pool.decide(acquire(2, "bert"), kept=KeptEnds(closed={"anna"}))) == [
        (uuid7(2), 0)
    ]

    pool = APool(StayRule(linger=MINUTE, lock_delay=SECOND))
    pool.take(1)
    pool.lose(1)
    (stay,) = pool.decide(kept=KeptEnds(closed={"anna"})).kept
    assert stay.was_released
    assert granted(pool.take(2)) == [(uuid7(2), 1)]


def test_nothing_is_written_of_a_session_of_which_it_is_not_known_whether_it_was_closed() -> (
    None
):
    pool = APool(DELAY)
    pool.take(1)
    pool.lose(1)
    decision = pool.decide(acquire(2, "bert"), kept=KeptEnds(unknown={"anna"}))
    assert not decision.stays
    assert not decision.grants
    assert pool.decide().kept


def test_a_release_leaves_nothing_where_released_seats_are_not_kept() -> None:
    pool = APool(DELAY)
    pool.take(1)
    decision = pool.decide(release(1), acquire(2, "bert"))
    assert granted(decision) == [(uuid7(2), 0)]
    assert pool.mirror.state.stays.keys() == {uuid7(2)}


def test_none_comes_back_into_a_pool_that_grants_nothing() -> None:
    pool = APool(LINGER, seats=2)
    pool.decide(acquire(1), acquire(2, "bert"))
    pool.decide(release(1))
    spec = pool.mirror.state.spec
    assert spec is not None
    for change in (replace(spec, seats=1), replace(spec, drain=Drain("no", "ada", NOW))):
        pool.specify(change)
        assert not pool.take(3).grants
    pool.specify(spec)
    assert granted(pool.take(4)) == [(uuid7(4), 1)]


@pytest.mark.parametrize("is_stored", [False, True])
def test_what_comes_back_counts_for_those_who_are_served_after_it(is_stored: bool) -> None:
    pool = APool(RETURNS, seats=4)
    spec = pool.mirror.state.spec
    assert spec is not None
    most = PoolRules(per_project=AtMost(seats=2))
    pool.specify(replace(spec, policy=replace(spec.policy, rules=most)))
    pool.decide(acquire(1), acquire(2, "bert"))
    pool.lose(1)
    again = changed(acquire(1, "new"), holder="anna@host")
    others = acquire(3, "cora"), changed(acquire(4, "dave"), project="nlp")
    if is_stored:  # as a pool that is drained, and then opened, leaves them
        pool.specify(replace(spec, drain=Drain("no", "ada", NOW)))
        pool.decide(again, *others)
        pool.specify(replace(spec, policy=replace(spec.policy, rules=most)))
        decision = pool.decide()
    else:
        decision = pool.decide(again, *others)
    assert granted(decision) == [(uuid7(1), 1), (uuid7(4), 0)]


def test_who_is_next_is_answered_by_the_rule_that_keeps_the_seat() -> None:
    pool = APool(LINGER)
    pool.take(1)
    pool.decide(release(1), acquire(2, "bert"), acquire(3, "cora"))
    state = pool.mirror.state
    snapshot = PoolSnapshot.of(state)
    plan = BY_POOL.plan(snapshot, NOW)
    first, second = (why_waiting(snapshot, plan, state.tickets[uuid7(n)]) for n in (2, 3))
    assert first.reason.rule is Rule.STAY
    assert first.reason.text == "1 seat is kept after a release, for its holder or for no one"
    assert second.reason.rule is Rule.ARRIVAL
    (_, outcome), *_ = pool.take(4, "dave").outcomes
    assert isinstance(outcome, Denied)
    assert "(rule `stay`)" in outcome.message


def test_an_administrator_frees_kept_seats() -> None:
    pool = APool(LINGER)
    pool.take(1)
    pool.decide(release(1), acquire(2, "bert"))
    assert not pool.decide(ForcedEnd(uuid7(1), "anna", 9, "why")).grants, "another fence"
    assert granted(pool.decide(ForcedEnd(uuid7(1), "anna", 1, "why"))) == [(uuid7(2), 0)]


def test_a_pool_that_has_no_rule_any_more_frees_what_is_lost_at_once() -> None:
    pool = APool(DELAY)
    pool.take(1)
    pool.specify(PoolSpec(POOL, 1))
    pool.lose(1)
    assert granted(pool.decide(acquire(2, "bert"))) == [(uuid7(2), 0)]


def test_a_pool_without_a_rule_writes_nothing_of_it() -> None:
    pool = APool(None)
    assert not pool.take(1).stays
    assert not pool.decide(release(1)).stays


def test_work_of_the_lost_is_done_by_another() -> None:
    pool = APool(RETURNS, seats=2)
    pool.decide(changed(acquire(1), work_key="w"), changed(acquire(2, "bert"), work_key="w"))
    pool.lose(1)
    assert granted(pool.decide()) == [(uuid7(2), 0)]
    again = changed(acquire(1, "new"), holder="anna@host", work_key="w")
    assert isinstance(pool.decide(again).outcomes[0][1], Queued), "bert works"


def test_a_transaction_is_never_larger_than_it_may_be() -> None:
    pool = APool(StayRule(linger=MINUTE, lock_delay=MINUTE), seats=300)
    number, limits = 0, Limits()
    for _ in range(4):
        commands = [acquire(number + each) for each in range(1, 200)]
        number += 200
        decision = pool.decide(*commands)
        assert decision.writes <= limits.writes_max
        assert decision.deferred
    decision = pool.decide(*(release(each) for each in range(1, 200)))
    assert decision.writes <= limits.writes_max


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["ask", "again", "release", "lose", "over"]), st.integers(0, 9)
        ),
        max_size=40,
    ),
    rule=st.sampled_from(
        [
            *(LINGER, DELAY, RETURNS, StayRule(MINUTE, MINUTE), StayRule(MINUTE, None, SECOND)),
            *(StayRule(None, SECOND, MINUTE), StayRule(SECOND, MINUTE, SECOND)),
        ]
    ),
)
def test_never_more_seats_than_there_are_and_nothing_kept_is_anothers(
    steps: list[tuple[str, int]], rule: StayRule
) -> None:
    pool, number = APool(rule, seats=3), 0
    state = pool.mirror.state
    for what, which in steps:
        kept = {each: grant.holder for each, grant in state.kept.items()}
        live = sorted(state.grants)
        sessions = ("anna", "bert", f"s{number}")
        if what == "ask":
            number += 1
            decision = pool.decide(acquire(number, sessions[which % 2], seats=1 + which % 3))
        elif what == "again" and kept:
            number += 1
            grant_id = sorted(kept)[which % len(kept)]
            old = state.stays[grant_id].grant
            again = replace(acquire(1, sessions[2], seats=old.seats), grant_id=grant_id)
            decision = pool.decide(replace(again, attribution=old.attribution))
        elif what == "release" and live:
            grant = state.grants[live[which % len(live)]]
            decision = pool.decide(
                replace(release(1, grant.session_id), grant_id=grant.grant_id)
            )
        elif what == "lose" and live:
            grant_id = live[which % len(live)]
            pool.revision += 1
            pool.mirror.committed([Delete(KEYS.grant(POOL, grant_id))], pool.revision)
            decision = pool.decide()
        else:
            decision = pool.decide(kept=KeptEnds(over=set(kept)))
        assert state.held == sum(
            grant.seats for grant in (*state.grants.values(), *state.kept.values())
        )
        assert state.held <= 3
        for grant in decision.grants:
            if grant.continues:
                taken = [k for k in decision.kept_freed if k.fence == grant.continues]
                assert [k.holder for k in taken] == [grant.holder]
        assert not state.kept or rule.linger or rule.outlives
        assert PoolSnapshot.of(state).free == 3 - state.held


@pytest.mark.parametrize("seats", [0, 3], ids=["closed", "open"])
def test_an_advisory_pool_keeps_nothing(seats: int) -> None:
    """Also while it is closed, and grants nothing."""
    binding = PoolSpec(POOL, seats, policy=PoolPolicy(stay=LINGER))
    assert keeps_any(binding)
    counting = replace(binding.policy.counting, is_advisory=True)
    assert not keeps_any(replace(binding, policy=replace(binding.policy, counting=counting)))
