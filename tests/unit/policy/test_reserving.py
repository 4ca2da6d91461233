"""What open windows keep: tables, and what is true of every plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policies.windows_kept import KeptNow
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, changed, uuid7

from seatkeeper.core.pool_rules import AtMost, HolderGroup, PoolRules, Who
from seatkeeper.core.reservations import (
    PoolWindows,
    Reservation,
    Schedule,
    Window,
    WindowState,
)
from seatkeeper.server.domain import (
    Grant,
    Instant,
    Overtaking,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    ReclaimRule,
    Ticket,
)
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.rules import Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import Waiting, why_waiting

DAILY = Schedule("FREQ=DAILY", opens=0, closes=60)
CI = Reservation("ci", 2, Who(projects=("ci",)), DAILY)
BOB = Reservation("bob", 1, Who(holders=("bob",)), DAILY)
LAB = Reservation("lab", 2, Who(groups=("lab",)), DAILY)
RULES = PoolRules((HolderGroup("lab", ("lab-*",)),))
X = ProjectShare(project="x")


def t(
    number: int, holder: str = "a", seats: int = 1, *, project: str = "cv", work: str = ""
) -> Ticket:
    ticket = a_ticket(number, seats=seats, session=f"s{number}")
    return changed(ticket, holder=holder, project=project, work_key=work)


def g(number: int, holder: str = "a", seats: int = 1, project: str = "cv") -> Grant:
    grant = a_grant(900 + number, fence=number, seats=seats, session=f"g{number}")
    return changed(grant, holder=holder, project=project)


def ci(number: int, seats: int = 1, work: str = "") -> Ticket:
    return t(number, "c", seats, project="ci", work=work)


def a_pool(
    reservations: Sequence[Reservation],
    held: Sequence[Grant],
    waiting: Sequence[Ticket],
    seats: int = 4,
    *,
    policy: PoolPolicy = PoolPolicy(rules=RULES),  # noqa: B008  # never changed
    is_open: Sequence[str] | None = None,
) -> PoolState:
    windows = tuple(
        Window(
            each.name,
            NOW - 1000,
            NOW + 3_600_000,
            WindowState.OPEN
            if is_open is None or each.name in is_open
            else WindowState.PLANNED,
        )
        for each in reservations
    )
    shaped = PoolPolicy(
        policy.projects,
        policy.usage_half_life,
        policy.overtaking,
        policy.reclaim,
        policy.rules,
        reservations=tuple(reservations),
    )
    state = PoolState(spec=PoolSpec(POOL, seats, policy=shaped, windows=PoolWindows(windows)))
    for grant in held:
        state.put_grant(grant)
    for ticket in waiting:
        state.put_ticket(ticket)
    return state


def snapshot(state: PoolState, *new: Ticket, impatient: Sequence[int] = ()) -> PoolSnapshot:
    waits_not = frozenset(map(uuid7, impatient))
    return PoolSnapshot(state, state.free, 99, 99, new=new, impatient=waits_not)


def plan_of(pool: PoolSnapshot) -> Plan:
    return BY_POOL.plan(pool, Instant(NOW))


def served(pool: PoolSnapshot) -> list[int]:
    return [int(ticket.grant_id[-4:], 16) for ticket in plan_of(pool).serve]


@pytest.mark.parametrize(
    ("kept", "held", "waiting", "expected"),
    [
        # Four seats, two of which are kept for project ci.
        ([CI], [], [t(1), t(2), t(3)], [1, 2]),
        ([CI], [], [t(1), t(2), t(3), ci(4), ci(5), ci(6)], [1, 2, 4, 5]),
        ([CI], [g(1), g(2)], [t(1), ci(2)], [2]),
        # What those hold whom it is for is among what is kept.
        ([CI], [g(1, project="ci")], [t(1), t(2), t(3)], [1, 2]),
        ([CI], [g(1, "c", 2, "ci")], [t(1), t(2), t(3)], [1, 2]),
        # They may have more than is kept, in their turn.
        ([CI], [], [ci(1), ci(2), ci(3), t(4)], [1, 2, 3, 4]),
        ([CI], [], [t(1), ci(2, 3), t(3)], [1, 2]),
        # Too many are held when it opens: nothing is taken, and what is given back is kept.
        ([CI], [g(1, seats=3)], [t(1), ci(2), ci(3)], [2]),
        ([CI], [g(1, seats=4)], [ci(1), t(2)], []),
        # A large one is not starved by small ones of its own kind, and others are not by it.
        ([CI], [], [t(1, seats=3), t(2), ci(3)], [3]),
        ([CI], [g(1)], [ci(1, 4), ci(2), t(3)], []),
        ([CI], [g(1, project="nlp")], [t(1, seats=3), ci(2, 3)], []),
        ([CI], [g(1, project="ci")], [t(1, seats=3), ci(2), ci(3)], [2]),
        # One holder, and a group; who is among both takes of both.
        ([BOB], [], [t(1), t(2), t(3), t(4), t(5, "bob")], [1, 2, 3, 5]),
        ([LAB], [], [t(1), t(2), t(3), t(4, "lab-7"), t(5, "lab-8")], [1, 2, 4, 5]),
        ([CI, BOB], [], [t(1), t(2), ci(3), ci(4), t(5, "bob")], [1, 3, 4, 5]),
        ([CI, BOB], [], [t(1, "bob", project="ci"), t(2), t(3), t(4)], [1, 2, 3]),
        ([CI, BOB], [g(1)], [t(1, "bob"), t(2, "bob"), ci(3), ci(4)], [1, 3, 4]),
        # Work that one does for all.
        ([CI], [], [t(1, seats=3, work="w"), ci(2, 1, "w"), ci(3, 1, "w")], [2]),
    ],
)
@pytest.mark.parametrize("is_shared", [False, True])
def test_who_is_served(
    kept: list[Reservation],
    held: list[Grant],
    waiting: list[Ticket],
    expected: list[int],
    is_shared: bool,
) -> None:
    policy = PoolPolicy((X,) if is_shared else (), rules=RULES)
    found = served(snapshot(a_pool(kept, held, waiting, policy=policy)))
    assert (sorted(found) if is_shared else found) == expected
    # The same of requests that are not stored.
    new = snapshot(a_pool(kept, held, [], policy=policy), *waiting)
    assert sorted(served(new)) == expected


@pytest.mark.parametrize("is_shared", [False, True])
def test_nothing_is_kept_while_no_window_is_open(is_shared: bool) -> None:
    policy = PoolPolicy((X,) if is_shared else ())
    waiting = [t(1), t(2), t(3)]
    state = a_pool([CI], [g(1)], waiting, policy=policy, is_open=[])
    assert sorted(served(snapshot(state))) == [1, 2, 3]
    assert state.by_windows is None


def test_what_is_kept_follows_what_the_specification_says_now() -> None:
    state = a_pool([CI], [], [t(1), t(2), t(3), t(4)])
    assert served(snapshot(state)) == [1, 2]
    assert state.spec is not None
    closed = PoolWindows((Window("ci", NOW - 9, NOW - 1, WindowState.CLOSED),))
    state.spec = PoolSpec(POOL, 4, policy=state.spec.policy, windows=closed)
    assert served(snapshot(state)) == [1, 2, 3, 4]


def test_one_that_may_not_wait_holds_up_none_behind_it() -> None:
    state = a_pool([CI], [], [])
    assert served(snapshot(state, t(1, seats=3), t(2), impatient=[1])) == [2]


def test_what_the_decision_ends_is_kept_again() -> None:
    state = a_pool([CI], [g(1, "c", 2, "ci"), g(2, seats=2)], [t(1), ci(2)])
    assert served(PoolSnapshot(state, 2, 9, ended=[uuid7(901)])) == [2]
    assert served(PoolSnapshot(state, 2, 9, ended=[uuid7(902)])) == [1, 2]


def test_limits_of_each_hold_beside_it() -> None:
    policy = PoolPolicy(rules=PoolRules(per_holder=AtMost(seats=1)))
    waiting = [t(1), t(2), t(3, "b"), t(4, "d"), ci(5), ci(6)]
    assert served(snapshot(a_pool([CI], [], waiting, policy=policy))) == [1, 3, 5]


def test_overtaking_counts_only_those_whose_seats_are_taken() -> None:
    policy = PoolPolicy(overtaking=Overtaking(1, timedelta(minutes=1)))
    waiting = [t(1, seats=3), t(2), t(3, "b"), ci(4), ci(5)]
    plan = plan_of(snapshot(a_pool([CI], [], waiting, policy=policy)))
    assert [int(each.grant_id[-4:], 16) for each in plan.serve] == [2, 4, 5]
    assert plan.passed == {uuid7(2): (uuid7(1),)}, (
        "what is kept for ci was not for the large one"
    )


def test_guarantees_are_kept_of_what_is_left_and_limits_hold() -> None:
    shares = (
        ProjectShare(project="cv", guaranteed=2),
        ProjectShare(project="ci", limit=1),
        ProjectShare(project="nlp", weight=5),
    )
    waiting = [t(1, project="nlp"), t(2, project="nlp"), t(3), t(4), ci(5), ci(6)]
    state = a_pool([CI], [], waiting, policy=PoolPolicy(shares))
    assert sorted(served(snapshot(state))) == [3, 4, 5]


def test_what_is_kept_is_no_seat_that_a_reclaim_counts_on_and_theirs_is_not_called_back() -> (
    None
):
    shares = (ProjectShare(project="cv", guaranteed=2), ProjectShare(project="ci"), X)
    policy = PoolPolicy(
        shares, reclaim=ReclaimRule(timedelta(seconds=1), timedelta(0), 60), rules=RULES
    )
    lent = [
        changed(grant, heeds_within=timedelta(seconds=9))
        for grant in (g(1, project="x"), g(2, project="x"), g(3, project="ci"))
    ]
    # One is free, and kept: so one is called back, and not that of ci, though it is the youngest.
    state = a_pool([CI], lent, [t(1)], policy=policy)
    assert [each.grant.fence for each in plan_of(snapshot(state)).reclaim] == [2]
    open_to_all = a_pool([CI], lent, [t(1)], policy=policy, is_open=[])
    assert served(snapshot(open_to_all)) == [1]


# Why one waits -------------------------------------------------------------------------------


def why(state: PoolState, number: int) -> Waiting:
    pool = PoolSnapshot.of(state)
    return why_waiting(pool, plan_of(pool), state.tickets[uuid7(number)])


@pytest.mark.parametrize("shares", [(), (X,)], ids=["fifo", "shared"])
@pytest.mark.parametrize(
    ("held", "waiting", "of", "rule", "said"),
    [
        (
            [g(1, seats=2)],
            [t(1)],
            1,
            "reservation ci",
            "2 of the 2 free seats are kept for project ci",
        ),
        ([], [t(1, seats=2), t(2)], 2, "reservation ci", "for another 1 h 0 min"),
        ([], [t(1, seats=3), ci(2)], 1, "reservation ci", "1 of the 3 free seats"),
        ([g(1, seats=4)], [t(1)], 1, "seats", "it is next"),
        ([g(1, seats=3)], [ci(1, 2), ci(2)], 2, "large", "is next"),
        ([g(1, seats=4)], [t(1), t(2)], 2, "arrival", "that came before it"),
        ([], [ci(1)], 1, "next", "the next decision grants it"),
    ],
)
def test_the_rule_that_decides(
    held: list[Grant],
    waiting: list[Ticket],
    of: int,
    rule: str,
    said: str,
    shares: tuple[ProjectShare, ...],
) -> None:
    reason = why(a_pool([CI], held, waiting, policy=PoolPolicy(shares)), of).reason
    assert reason.name == rule
    assert said in reason.text
    assert f"(rule `{rule}`)" in str(reason)


# What is true of every plan ------------------------------------------------------------------

HOLDERS = st.sampled_from(["a", "b", "bob", "lab-1"])
PROJECTS = st.sampled_from(["cv", "ci"])


@st.composite
def pools(draw: st.DrawFn) -> PoolState:
    """A pool of which some seats are kept, some of it held, and some waiting."""
    kept = draw(st.lists(st.sampled_from([CI, BOB, LAB]), unique=True, min_size=1))
    held = [
        g(n, draw(HOLDERS), draw(st.integers(1, 2)), draw(PROJECTS))
        for n in range(draw(st.integers(0, 3)))
    ]
    waiting = [
        t(n, draw(HOLDERS), draw(st.integers(1, 3)), project=draw(PROJECTS))
        for n in range(1, draw(st.integers(1, 8)))
    ]
    most = draw(st.sampled_from([None, 1, 3]))
    rules = PoolRules(RULES.groups, per_holder=AtMost(seats=most))
    overtaking = draw(
        st.none() | st.builds(Overtaking, st.integers(1, 3), st.just(timedelta(1)))
    )
    shares = (ProjectShare(project="cv", guaranteed=1),) if draw(st.booleans()) else ()
    policy = PoolPolicy(shares, overtaking=overtaking, rules=rules)
    if most is not None:
        waiting = [each for each in waiting if each.seats <= most]
    return a_pool(kept, held, waiting, draw(st.integers(1, 9)), policy=policy)


@settings(max_examples=500, deadline=None)
@given(pools())
def test_no_plan_takes_what_is_kept_for_others_and_none_of_it_stays_where_it_is_asked_for(
    state: PoolState,
) -> None:
    assert state.spec is not None
    pool = PoolSnapshot.of(state)
    plan = plan_of(pool)
    kept, free = KeptNow(state.spec, state.grants.values()), state.free
    for number, ticket in enumerate(plan.serve, start=50):
        grant = g(number, ticket.holder, ticket.seats, ticket.project)
        assert kept.breach(grant, free) == ""
        kept.take(grant)
        free -= ticket.seats
    assert free >= 0
    # All that wait are in the order, each once; and each is said why it does.
    assert sorted(ticket.grant_id for ticket in plan.order) == sorted(state.tickets)
    ids = {each.grant_id for each in plan.serve}
    waiting = [each for each in plan.order if each.grant_id not in ids]
    for ticket in state.tickets.values():
        reason = why_waiting(pool, plan, ticket).reason
        assert reason.rule is not Rule.POLICY
        assert (reason.rule is Rule.NEXT) == (ticket.grant_id in ids)
        if reason.rule is Rule.RESERVATION:
            assert ticket.seats > free - kept.for_others(ticket)
    # None waits for what is free, and kept for it: but behind a limit, or for its turn.
    most = state.spec.policy.rules.per_holder.seats
    # A seat of one whom two reservations are for counts for both, and so may make room for one that was
    # looked at before: the next plan serves that.
    for_two = any(
        sum(kept.is_for(each, ticket) for each in state.spec.policy.reservations) > 1
        for ticket in plan.serve
    )
    if most is None and waiting and not for_two:
        first = min(waiting, key=lambda each: each.number)
        if not state.spec.policy.projects:
            assert first.seats > free - kept.for_others(first)
