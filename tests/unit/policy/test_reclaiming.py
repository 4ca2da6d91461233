"""Which lent seats are called back, for whom, and when not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, changed

from seatkeeper.server.domain import (
    Drain,
    Grant,
    Instant,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    Reclaim,
    ReclaimRule,
    Reclaims,
    Ticket,
)
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot

TTL = timedelta(seconds=10)
RULE = ReclaimRule(timedelta(seconds=20), timedelta(seconds=30), hourly=10)
LONG_AGO = timedelta(minutes=5)
PROJECTS = (
    ProjectShare(project="cv", guaranteed=2),
    ProjectShare(project="nlp", guaranteed=1),
)


def held(
    number: int,
    project: str,
    seats: int = 1,
    *,
    priority: int = 0,
    held_for: timedelta = LONG_AGO,
    heeds: timedelta | None = TTL,
) -> Grant:
    grant = changed(
        a_grant(number, fence=number, session=f"s{number}", seats=seats, priority=priority),
        project=project,
    )
    return replace(
        grant,
        granted_at=Instant(NOW - round(held_for.total_seconds() * 1000)),
        heeds_within=heeds,
    )


def wants(number: int, project: str, seats: int = 1, wait: timedelta | None = None) -> Ticket:
    return changed(
        a_ticket(number, session=f"s{number}", seats=seats, wait=wait), project=project
    )


def a_pool(
    *requests: Grant | Ticket,
    seats: int = 4,
    rule: ReclaimRule | None = RULE,
    projects: tuple[ProjectShare, ...] = PROJECTS,
    called: tuple[int, ...] = (),
    called_at: tuple[int, ...] = (),
) -> PoolState:
    """``called``: the grants that are called back already, by number."""
    state = PoolState(spec=PoolSpec(POOL, seats, policy=PoolPolicy(projects, reclaim=rule)))
    for each in requests:
        if isinstance(each, Grant):
            state.put_grant(each)
        else:
            state.put_ticket(each)
    running = {
        a_grant(number).grant_id: Reclaim(n, NOW, RULE.notice + TTL, "nlp")
        for n, number in enumerate(called, start=1)
    }
    reclaims = Reclaims(running, tuple(map(Instant, called_at)), len(running))
    state.guard = replace(state.guard, ticket_number=100, reclaims=reclaims)
    return state


def plan(state: PoolState) -> Plan:
    return BY_POOL.plan(PoolSnapshot.of(state), NOW)


def wanted(state: PoolState) -> list[int]:
    """Return the fences, which are the numbers, of what is called back."""
    return [each.grant.fence for each in plan(state).reclaim]


TWO_EACH = tuple(replace(each, guaranteed=2) for each in PROJECTS)
FULL = (held(1, "cv"), held(2, "cv"), held(3, "cv"), held(4, "cv"))


def test_nothing_is_called_back_while_the_pool_is_drained() -> None:
    """It could be granted to none, and a drained pool's holders keep their seats."""
    state = a_pool(*FULL, wants(9, "nlp"), called=(4,))
    assert state.spec is not None
    state.spec = replace(state.spec, drain=Drain("the licence server is moved", "anna", NOW))
    assert wanted(state) == []
    state.spec = replace(state.spec, drain=None)
    assert wanted(state) == [4]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(
            a_pool(*FULL, wants(9, "nlp")), [4], id="the youngest of who has too much"
        ),
        pytest.param(
            a_pool(
                *(held(1, "cv", 2), held(2, "cv", 2), held(3, "cv"), wants(9, "nlp", 2)),
                seats=5,
                projects=TWO_EACH,
                rule=replace(RULE, hourly=1),
            ),
            [2],
            id="not the small one that came first, where the large one is enough",
        ),
        pytest.param(a_pool(*FULL, wants(9, "nlp"), rule=None), [], id="no rule"),
        pytest.param(a_pool(*FULL, wants(9, "asr")), [], id="no guarantee of its own"),
        pytest.param(a_pool(*FULL), [], id="none waits"),
        pytest.param(a_pool(*FULL[:3], wants(9, "nlp")), [], id="a seat is free"),
        pytest.param(
            a_pool(*FULL[:3], held(4, "nlp"), wants(9, "nlp")), [], id="it has its guarantee"
        ),
        pytest.param(
            a_pool(*FULL[:2], held(3, "nlp"), held(4, "asr"), wants(9, "cv")),
            [],
            id="it would be over its own guarantee",
        ),
        pytest.param(
            a_pool(held(1, "asr"), held(2, "asr"), *FULL[2:], wants(9, "nlp")),
            [2],
            id="of who is beyond its guarantee",
        ),
        pytest.param(
            a_pool(*FULL[:3], held(4, "cv", priority=1), wants(9, "nlp")),
            [3],
            id="the lowest priority first",
        ),
        pytest.param(
            a_pool(*FULL[:3], held(4, "cv", held_for=timedelta(seconds=29)), wants(9, "nlp")),
            [3],
            id="not before it was held for the minimum",
        ),
        pytest.param(
            a_pool(*FULL[:3], held(4, "cv", heeds=None), wants(9, "nlp")),
            [3],
            id="not of a client that does not know reclaims",
        ),
        pytest.param(
            a_pool(*FULL, wants(9, "nlp", wait=timedelta(seconds=29))),
            [],
            id="not for one that would have given up",
        ),
        pytest.param(
            a_pool(*FULL, wants(9, "nlp", wait=timedelta(seconds=30))),
            [4],
            id="for one that waits just long enough",
        ),
        pytest.param(
            a_pool(*FULL, wants(9, "nlp", wait=timedelta(seconds=1)), called=(4,)),
            [4],
            id="a notice stands although its asker's time goes by",
        ),
        pytest.param(
            a_pool(*FULL, wants(9, "nlp"), called=(1,)),
            [1],
            id="what is called back already comes first",
        ),
        pytest.param(
            a_pool(*FULL[1:], wants(9, "nlp"), called=(4,)), [], id="not needed any more"
        ),
        pytest.param(
            a_pool(*FULL, wants(9, "nlp"), wants(10, "nlp")),
            [4],
            id="once for a guarantee of one",
        ),
        pytest.param(
            a_pool(*FULL, wants(9, "nlp"), called_at=(NOW - 1,) * 10),
            [],
            id="too many this hour",
        ),
        pytest.param(
            a_pool(*FULL, wants(9, "nlp"), called_at=(NOW - 3_600_000,) * 10),
            [4],
            id="those of an hour ago do not count",
        ),
        pytest.param(
            a_pool(held(1, "asr", 4), wants(9, "nlp")), [1], id="all of a large one, if need be"
        ),
        pytest.param(
            a_pool(
                *(held(1, "cv", 2), held(2, "asr"), held(3, "asr", 3)),
                wants(9, "nlp", 3),
                seats=6,
                projects=(ProjectShare(project="nlp", guaranteed=3), PROJECTS[0]),
            ),
            [3],
            id="none that could be left out",
        ),
        pytest.param(
            a_pool(
                *(held(1, "cv"), held(2, "cv"), held(3, "cv"), held(4, "cv", heeds=None)),
                wants(9, "nlp", 2),
                projects=(
                    ProjectShare(project="cv"),
                    ProjectShare(project="nlp", guaranteed=4),
                ),
            ),
            [3, 2],
            id="several for one that wants several",
        ),
        pytest.param(
            a_pool(
                held(1, "cv"),
                *(held(n, "cv", heeds=None) for n in (2, 3, 4)),
                wants(9, "nlp", 2),
                projects=(
                    ProjectShare(project="cv"),
                    ProjectShare(project="nlp", guaranteed=4),
                ),
            ),
            [],
            id="nothing for one that would not get enough",
        ),
        pytest.param(
            a_pool(
                *FULL,
                *(changed(wants(n, "nlp"), work_key="resnet") for n in (8, 9)),
                projects=TWO_EACH,
            ),
            [4],
            id="once for two that want the same work done",
        ),
        pytest.param(
            a_pool(
                *FULL,
                *(wants(8, "nlp"), wants(9, "nlp")),
                projects=TWO_EACH,
                rule=replace(RULE, hourly=1),
                called=(4, 3),
                called_at=(NOW - 1, NOW - 1),
            ),
            [4, 3],
            id="notices stand although fewer an hour are allowed by now",
        ),
    ],
)
def test_what_is_called_back(state: PoolState, expected: list[int]) -> None:
    assert wanted(state) == expected


def test_a_part_asks_by_the_guarantee_of_what_it_is_in_and_not_of_its_own_kin() -> None:
    projects = (
        ProjectShare(project="lab", guaranteed=3),
        ProjectShare(project="cv", parent="lab"),
        ProjectShare(project="nlp", parent="lab"),
        ProjectShare(project="asr"),
    )
    state = a_pool(
        *(held(1, "cv"), held(2, "cv"), held(3, "asr"), held(4, "asr")),
        wants(9, "nlp"),
        projects=projects,
    )
    assert wanted(state) == [4]


def test_it_says_when_there_may_be_more() -> None:
    young = held(4, "cv", held_for=timedelta(seconds=10))
    state = a_pool(
        *(replace(each, granted_at=young.granted_at) for each in FULL), wants(9, "nlp")
    )
    assert plan(state).next_wake == NOW + 20_000
    state = a_pool(*FULL, wants(9, "nlp"), called_at=(NOW - 1_000,) * 10)
    assert plan(state).next_wake == NOW + 3_599_000
    two = wants(9, "nlp", 2)
    state = a_pool(*FULL, two, projects=TWO_EACH, called_at=(NOW - 2_000,) * 9)
    assert (wanted(state), plan(state).next_wake) == ([], NOW + 3_598_000), "one is not enough"


def test_in_a_drained_pool_nothing_is_called_back_for_those_who_are_not_served() -> None:
    state = a_pool(*FULL, wants(9, "nlp"), called=(4,))
    assert state.spec is not None
    assert wanted(state) == [4]
    state.spec = replace(state.spec, drain=Drain("new racks", "ops", NOW))
    assert wanted(state) == []


SHARES = st.tuples(
    st.integers(0, 3).map(lambda n: ProjectShare(project="cv", guaranteed=n, weight=2)),
    st.integers(0, 3).map(lambda n: ProjectShare(project="nlp", guaranteed=n)),
    st.integers(0, 2).map(lambda n: ProjectShare(project="asr", guaranteed=n, parent="lab")),
    st.just(ProjectShare(project="lab", guaranteed=2)),
)
PROJECT = st.sampled_from(["cv", "nlp", "asr", "lab", "other"])


@settings(max_examples=300, deadline=None)
@given(
    SHARES,
    st.lists(
        st.tuples(PROJECT, st.integers(1, 3), st.integers(0, 60), st.booleans()), max_size=9
    ),
    st.lists(st.tuples(PROJECT, st.integers(1, 3)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_what_every_plan_keeps(
    shares: tuple[ProjectShare, ...],
    holders: list[tuple[str, int, int, bool]],
    askers: list[tuple[str, int]],
    extra: int,
) -> None:
    """No guarantee is broken, nothing that is too young, or unknowing, and none too many."""
    grants = [
        held(n, project, seats, held_for=timedelta(seconds=age), heeds=TTL if heeds else None)
        for n, (project, seats, age, heeds) in enumerate(holders, start=1)
    ]
    tickets = [wants(100 + n, project, seats) for n, (project, seats) in enumerate(askers)]
    capacity = sum(grant.seats for grant in grants) + extra
    state = a_pool(*grants, *tickets, seats=capacity, projects=shares)
    found, policy = plan(state), state.spec.policy if state.spec else PoolPolicy()
    taken = [each.grant for each in found.reclaim]

    assert len({grant.grant_id for grant in taken}) == len(taken)
    left: Counter[str] = Counter()
    kept = [(each.project, each.seats) for each in grants if each not in taken]
    for name, seats in (*kept, *((each.project, each.seats) for each in found.serve)):
        left.update(dict.fromkeys(policy.path(name), seats))
    for grant, asker in ((each.grant, each.project) for each in found.reclaim):
        assert grant.heeds_within is not None
        assert NOW - grant.granted_at >= 30_000
        assert any(ticket.project == asker for ticket in tickets)
        for project in policy.path(grant.project):
            if project in policy.path(asker):
                break
            assert left[project] >= policy.guaranteed.get(project, 0)
    most = sum(ticket.seats for ticket in tickets if ticket not in found.serve)
    for grant in taken:  # without any of them, less than what is asked for
        assert sum(each.seats for each in taken if each is not grant) < most


def test_two_that_one_large_grant_does_for_call_back_no_other() -> None:
    """The first alone would have the small one called back; both have the large one."""
    lab = (
        ProjectShare(project="cv", weight=2),
        ProjectShare(project="asr", parent="lab"),
        ProjectShare(project="lab", guaranteed=2),
    )
    age = timedelta(seconds=30)
    small, large = held(1, "cv", 1, held_for=age), held(2, "cv", 2, held_for=age)
    one, two = wants(100, "asr", 1), wants(101, "asr", 1)
    alone = plan(a_pool(small, large, one, seats=3, projects=lab)).reclaim
    both = plan(a_pool(small, large, one, two, seats=3, projects=lab)).reclaim
    assert sum(each.grant.seats for each in both) == 2
    assert len(alone) == 1
