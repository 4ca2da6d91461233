"""Seats that machines borrow: what is lent, what is refused, and when it is free again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, changed, release, uuid7

from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.core.pool_rules import HolderGroup, Who
from seatkeeper.core.stay import StayRule
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.decide.borrowing import next_due
from seatkeeper.server.domain import (
    BorrowGrant,
    Command,
    Denied,
    ForcedEnd,
    Grant,
    HoldRule,
    Instant,
    Limits,
    Noted,
    PoolPolicy,
    PoolRules,
    PoolSpec,
    PoolState,
    Reclaim,
    Reclaims,
    Refusal,
    Released,
    ReturnGrant,
    Stay,
)
from seatkeeper.server.domain.borrow import Borrow
from seatkeeper.server.domain.gang import GangMember

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
SKEW = timedelta(minutes=10)
KEY, OTHER = b"k" * 32, b"o" * 32
RULE = BorrowRule(longest=30 * DAY, seats=2, skew=SKEW)


def millis(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def pool(
    *grants: Grant, seats: int = 3, rule: BorrowRule | None = RULE, tickets: int = 0
) -> PoolState:
    state = PoolState(PoolSpec(POOL, seats, policy=PoolPolicy(borrow=rule)))
    for grant in grants:
        state.put_grant(grant)
    for number in range(tickets):
        state.put_ticket(a_ticket(50 + number, session=f"w{number}"))
    fence = max((grant.fence for grant in grants), default=0)
    state.guard = replace(state.guard, fence=fence, ticket_number=tickets)
    return state


def held(number: int = 1, seats: int = 1) -> Grant:
    return a_grant(number, fence=number, session=f"s{number}", seats=seats)


def lent(number: int = 1, *, until: timedelta = DAY, seats: int = 1, key: bytes = KEY) -> Grant:
    ends = NOW + millis(until)
    borrow = Borrow(key, "thumb", Instant(ends), Instant(ends + millis(SKEW)), NOW)
    return replace(held(number, seats), session_id="", lease_id=0, borrow=borrow)


def borrow(
    number: int = 1,
    length: timedelta = DAY,
    *,
    key: bytes = KEY,
    fence: int = 0,
    session: str = "",
) -> BorrowGrant:
    session = session or f"s{number}"
    return BorrowGrant(uuid7(number), session, fence or number, length, key, "thumb")


def give_back(number: int = 1, fence: int = 0) -> ReturnGrant:
    return ReturnGrant(uuid7(number), "", fence or number)


def decided(state: PoolState, *commands: Command, after: timedelta = timedelta(0)) -> Decision:
    return decide(state, commands, Instant(NOW + millis(after)), Limits())


def refusal(state: PoolState, command: Command) -> str:
    """Return why it was refused; nothing was written then."""
    decision = decided(state, command)
    ((_, outcome),) = decision.outcomes
    assert isinstance(outcome, Denied)
    assert not decision.changes
    return f"{outcome.reason.name} {outcome.message}"


def test_a_session_gives_its_grant_to_a_machine_which_has_it_until_its_day() -> None:
    decision = decided(pool(held()), borrow(length=3 * DAY))
    (grant,) = decision.lent.values()
    assert (grant.session_id, grant.lease_id, grant.fence, grant.seats) == ("", 0, 1, 1)
    assert grant.borrow is not None
    until = NOW + millis(3 * DAY)
    assert until - 1000 < grant.borrow.until <= until
    assert grant.borrow.until % 1000 == 0
    assert grant.borrow.free_at - grant.borrow.until == millis(SKEW)
    assert decision.outcomes[0][1] == Noted(grant)
    assert decision.marks["s1"].unrecorded == [uuid7(1)], "its session has completed it"
    assert (decision.grants, decision.grants_ended) == ([], [])


@pytest.mark.parametrize(
    ("state", "command", "why"),
    [
        (pool(held(), rule=None), borrow(), "BORROW_REFUSED borrow.off"),
        (pool(held()), borrow(length=31 * DAY), "BORROW_REFUSED borrow.longest"),
        (pool(held(), lent(2), lent(3)), borrow(), "BORROW_REFUSED borrow.seats"),
        (pool(held(seats=3)), borrow(), "BORROW_REFUSED borrow.seats"),
        (
            pool(held(), lent(2), rule=replace(RULE, low_water=2)),
            borrow(),
            "BORROW_REFUSED borrow.low_water",
        ),
        (
            pool(held(), rule=replace(RULE, exclude=Who(holders=("s*@host",)))),
            borrow(),
            "BORROW_REFUSED borrow.exclude: holder s*@host may borrow no seat",
        ),
        (
            pool(held(), rule=replace(RULE, include=Who(projects=("nlp",)))),
            borrow(),
            "BORROW_REFUSED borrow.include: holder s1@host of project cv is not among",
        ),
        (
            pool(held(), rule=replace(RULE, include=Who(hosts=("ws1",)))),
            borrow(),
            "BORROW_REFUSED borrow.include: holder s1@host of project cv is not among those who may "
            "borrow, and its host is not known",
        ),
        (
            pool(held(), lent(2), rule=replace(RULE, per_project=1)),
            borrow(),
            "BORROW_REFUSED borrow.per_project: project cv has borrowed 1 of at most 1",
        ),
        (pool(held()), borrow(fence=7), "OTHER_TERMS"),
        (pool(held()), borrow(session="thief"), "FINISHED"),
        (pool(), borrow(), "FINISHED"),
        (pool(tickets=1, seats=0), borrow(50, session="w0"), "OTHER_TERMS"),
        (pool(lent()), borrow(key=OTHER), "OTHER_TERMS"),
        (pool(replace(held(), agent_id="agent-1")), borrow(), "BORROW_REFUSED borrow.in_use"),
        (pool(held()), give_back(), "OTHER_TERMS"),
    ],
)
def test_what_is_refused_changes_nothing_and_names_the_rule(
    state: PoolState, command: Command, why: str
) -> None:
    assert refusal(state, command).startswith(why)


def test_others_are_lent_what_some_are_not() -> None:
    groups = (HolderGroup("field", ("s1@*",)),)
    rule = replace(RULE, include=Who(groups=("field",)), exclude=Who(hosts=("ws1",)))
    state = pool(held(), held(2), changed(held(3), host="WS1"), rule=rule)
    assert state.spec is not None
    policy = replace(state.spec.policy, rules=PoolRules(groups))
    state.spec = replace(state.spec, policy=policy)
    assert policy.looks_at_hosts
    assert decided(state, borrow()).lent
    assert refusal(state, borrow(2)).startswith("BORROW_REFUSED borrow.include")
    assert refusal(state, borrow(3)).startswith("BORROW_REFUSED borrow.exclude: host ws1")


def test_a_project_has_no_more_than_it_may_by_one_decision() -> None:
    state = pool(held(), held(2), changed(held(3), project="nlp"), seats=5)
    assert state.spec is not None
    rule = replace(RULE, seats=5, per_project=1)
    state.spec = replace(state.spec, policy=PoolPolicy(borrow=rule))
    decision = decided(state, borrow(1), borrow(2), borrow(3))
    assert sorted(decision.lent) == [uuid7(1), uuid7(3)]
    returned = decided(pool(lent(), held(2), seats=5, rule=rule), give_back(), borrow(2))
    assert list(returned.lent) == [uuid7(2)]


def test_what_is_called_back_is_not_lent() -> None:
    state = pool(replace(held(), heeds_within=MINUTE))
    running = {uuid7(1): Reclaim(1, NOW, MINUTE, "cv")}
    state.guard = replace(state.guard, reclaims=Reclaims(running, (), 1))
    ((_, outcome),) = decided(state, borrow()).outcomes
    assert isinstance(outcome, Denied)
    assert outcome.message.startswith("borrow.called_back")


def test_what_is_lent_is_not_called_back_by_the_same_decision() -> None:
    """The plan is made on what was stored: there it is a session's still, and held for too long."""
    hold = HoldRule(warning=MINUTE, longest=2 * MINUTE)
    state = pool(replace(held(), heeds_within=MINUTE))
    state.spec = PoolSpec(POOL, 3, policy=PoolPolicy(borrow=RULE, hold=hold))
    assert decided(state, after=2 * MINUTE).guard.reclaims.running, "it would be"
    decision = decided(state, borrow(), after=2 * MINUTE)
    assert decision.lent
    assert not decision.guard.reclaims.running


def test_a_session_that_has_ended_lends_nothing() -> None:
    """The store's deletions are on their way: to write the grant anew would bring it back."""
    state = pool(held())
    state.dead_sessions.add("s1")
    assert refusal(state, borrow()).startswith("FINISHED")


def test_the_same_again_is_answered_as_the_first_time() -> None:
    decision = decided(pool(held()), borrow(), borrow())
    assert len(decision.lent) == 1
    assert len({outcome for _, outcome in decision.outcomes}) == 1
    again = decided(pool(lent()), borrow(length=5 * DAY))
    assert again.outcomes[0][1] == Noted(lent())
    assert not again.changes


def test_two_at_once_are_not_both_lent_beyond_the_bound() -> None:
    state = pool(held(1), held(2), held(3), rule=replace(RULE, seats=1))
    decision = decided(state, borrow(1), borrow(2))
    first, second = (outcome for _, outcome in decision.outcomes)
    assert isinstance(first, Noted)
    assert isinstance(second, Denied)
    assert second.reason is Refusal.BORROW_REFUSED


def test_neither_a_release_nor_a_copy_of_the_request_touches_what_is_borrowed() -> None:
    for state in (pool(lent()), pool(held())):
        before = [] if state.borrowed else [borrow()]
        decision = decided(state, *before, release(1, "s1"), acquire(1, "s1"))
        for _, outcome in decision.outcomes[-2:]:
            assert isinstance(outcome, Denied)
            assert outcome.reason is Refusal.NOT_YOURS
        assert decision.grants_ended == []


@pytest.mark.parametrize(
    ("after", "is_free"),
    [
        (DAY, False),
        (DAY + SKEW - timedelta(milliseconds=1), False),
        (DAY + SKEW, True),
        (400 * DAY, True),
    ],
)
def test_it_is_free_at_its_day_and_skew_and_goes_to_the_next(
    after: timedelta, is_free: bool
) -> None:
    state = pool(lent(), seats=1, tickets=1)
    decision = decided(state, after=after)
    assert decision.grants_ended == ([uuid7(1)] if is_free else [])
    assert decision.released_fences == ([1] if is_free else [])
    assert [grant.grant_id for grant in decision.grants] == ([uuid7(50)] if is_free else [])
    assert set(decision.marks) <= {"w0"}, "no session has a watermark for it"


def test_a_machine_gives_it_back_once_and_the_next_has_it() -> None:
    state = pool(lent(), seats=1, tickets=1)
    decision = decided(state, give_back(), give_back())
    assert [outcome for _, outcome in decision.outcomes] == [Released(uuid7(1))] * 2
    assert decision.grants_ended == [uuid7(1)]
    assert decision.returned_fences == [1]
    assert [grant.grant_id for grant in decision.grants] == [uuid7(50)]


def test_an_old_return_gives_nothing_back_of_a_later_borrower() -> None:
    decision = decided(pool(replace(lent(), fence=9)), give_back(fence=1))
    assert decision.outcomes[0][1] == Released(uuid7(1))
    assert not decision.changes


def test_an_administrator_frees_it_knowingly() -> None:
    decision = decided(pool(lent()), ForcedEnd(uuid7(1), "", 1, "the machine is lost"))
    assert decision.reclaimed_fences == [1]
    assert decision.grants_ended == [uuid7(1)]
    assert decision.marks == {}


def test_of_more_than_one_transaction_holds_the_rest_is_freed_by_the_next() -> None:
    state = pool(*(lent(number) for number in range(1, 61)), seats=100)
    decision = decide(state, (), Instant(NOW + millis(2 * DAY)), Limits())
    assert decision.unserved
    assert 0 < len(decision.grants_ended) < 60


@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=6),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(1, 12),
)
def test_whatever_is_asked_no_more_is_lent_than_the_pool_allows(
    asked: list[tuple[int, bool]], most: int, low_water: int, seats: int
) -> None:
    there = [
        lent(number, seats=each) if is_lent else held(number, each)
        for number, (each, is_lent) in enumerate(asked, start=1)
    ]
    rule = BorrowRule(longest=DAY, seats=most, low_water=low_water)
    state = pool(*there, seats=seats, rule=rule)
    before = state.borrowed_seats
    decision = decided(state, *(borrow(number) for number in range(1, len(there) + 1)))
    after = before + sum(grant.seats for grant in decision.lent.values())
    if decision.lent:
        assert after <= most
        assert seats - after >= low_water
    for grant in decision.lent.values():
        assert grant.borrow is not None
        assert grant.borrow.until <= NOW + millis(DAY)


def test_the_loop_wakes_for_the_first_that_is_due() -> None:
    assert next_due(pool(held())) is None
    assert next_due(pool(lent(1, until=2 * DAY), lent(2))) == NOW + millis(DAY + SKEW)


@pytest.mark.parametrize(
    "stay",
    [
        StayRule(lock_delay=MINUTE),
        StayRule(resurrection=MINUTE),
        StayRule(linger=MINUTE, resurrection=MINUTE, lock_delay=MINUTE),
    ],
    ids=["lock delay", "resurrection", "all"],
)
@pytest.mark.parametrize("end", ["its day", "its machine", "an administrator"])
def test_nothing_is_kept_of_a_seat_that_left_with_a_machine(stay: StayRule, end: str) -> None:
    """Its session holds it no more, so neither its holder's return nor a delay is waited for."""
    state = pool(held(), seats=1, tickets=1)
    assert state.spec is not None
    policy = replace(state.spec.policy, stay=stay)
    state.spec = replace(state.spec, policy=policy)
    state.put_stay(Stay(held()))
    decision = decided(state, borrow())
    assert decision.stays == {uuid7(1): None}
    (grant,) = decision.lent.values()
    after = pool(grant, seats=1, tickets=1)
    after.spec = state.spec
    ends: dict[str, tuple[list[Command], timedelta]] = {
        "its day": ([], DAY + SKEW),
        "its machine": ([give_back()], MINUTE),
        "an administrator": ([ForcedEnd(uuid7(1), "", 1, "lost")], MINUTE),
    }
    commands, at = ends[end]
    freed = decided(after, *commands, after=at)
    assert freed.grants_ended == [uuid7(1)]
    assert [each.grant_id for each in freed.grants] == [uuid7(50)]
    assert uuid7(1) not in freed.stays
    assert not freed.kept


@pytest.mark.parametrize("after", [None, 0], ids=["a gang", "alternatives"])
def test_a_grant_of_several_pools_is_lent_as_any_other(after: int | None) -> None:
    others = (GangMember(POOL, uuid7(1), 1, after), GangMember("other", uuid7(2), 1, after))
    decision = decided(pool(changed(held(), gang=others)), borrow())
    assert decision.outcomes[0][1] == Noted(decision.lent[uuid7(1)])
