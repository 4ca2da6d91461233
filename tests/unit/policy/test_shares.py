"""Guarantees, limits and fair shares of projects, in tables and properties."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, uuid7

from seatkeeper.server.domain import (
    Attribution,
    Grant,
    Instant,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    Ticket,
)
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot


def t(number: int, project: str, seats: int = 1, priority: int = 0) -> Ticket:
    ticket = a_ticket(number, seats=seats, priority=priority)
    return replace(ticket, attribution=Attribution("anna", project, priority))


def held(number: int, project: str, seats: int) -> Grant:
    return replace(
        a_grant(900 + number, seats=seats), attribution=Attribution("anna", project, 0)
    )


def share(project: str, text: str = "", parent: str = "") -> ProjectShare:
    """Such as ``g2 l4 w3``."""
    given = {part[0]: int(part[1:]) for part in text.split()}
    return ProjectShare(
        project=project,
        guaranteed=given.get("g", 0),
        limit=given.get("l"),
        weight=given.get("w", 1),
        parent=parent,
    )


def a_pool(
    *tickets: Ticket,
    shares: list[ProjectShare],
    seats: int,
    holds: dict[str, int] | None = None,
) -> PoolState:
    state = PoolState(spec=PoolSpec(POOL, seats, policy=PoolPolicy(tuple(shares))))
    for number, (project, count) in enumerate((holds or {}).items()):
        state.put_grant(held(number, project, count))
    for ticket in tickets:
        state.put_ticket(ticket)
    return state


def plan(state: PoolState, *new: Ticket, impatient: frozenset[str] = frozenset()) -> Plan:
    snapshot = PoolSnapshot(state, state.free, 99, 99, new=new, impatient=impatient)
    return BY_POOL.plan(snapshot, Instant(NOW))


def numbers(tickets: list[Ticket]) -> list[int]:
    return [ticket.number for ticket in tickets]


TWO = [share("cv", "g2"), share("nlp", "g2")]


@pytest.mark.parametrize(
    ("shares", "holds", "tickets", "seats", "expected"),
    [
        # The next seat goes to a project under its guarantee, in whatever order they came.
        (TWO, {"cv": 2}, [t(1, "cv"), t(2, "nlp")], 3, [2]),
        # An idle guarantee is lent.
        (TWO, {"cv": 2}, [t(1, "cv"), t(2, "cv")], 4, [1, 2]),
        # What is lent is not taken back, and the next seat is theirs.
        (TWO, {"cv": 4}, [t(1, "cv"), t(2, "nlp")], 4, []),
        # A request that does not fit into the guarantee has its share, and no more.
        ([share("cv", "g1"), share("nlp", "w9")], {}, [t(1, "cv", 2), t(2, "nlp")], 2, [2]),
        # Among those under their guarantees: the fewest seats for what is guaranteed.
        (
            [share("cv", "g4"), share("nlp", "g2")],
            {"cv": 1, "nlp": 1},
            [t(1, "nlp"), t(2, "cv")],
            3,
            [2],
        ),
        # By weight: two seats for one.
        (
            [share("cv", "w2")],
            {},
            [t(n, "cv" if n % 2 else "nlp") for n in range(1, 9)],
            6,
            [1, 2, 3, 5, 4, 7],
        ),
        # With equal shares, the one that waits longest.
        ([share("cv"), share("nlp")], {}, [t(1, "nlp"), t(2, "cv"), t(3, "nlp")], 2, [1, 2]),
        # A project that is not listed has a weight of 1.
        ([share("cv")], {"cv": 1}, [t(1, "cv"), t(2, "asr")], 2, [2]),
        # At its limit a project is passed over.
        ([share("cv", "l1")], {"cv": 1}, [t(1, "cv"), t(2, "asr")], 4, [2]),
        # Its smaller requests do not pass its next one.
        ([share("cv", "l2")], {"cv": 1}, [t(1, "cv", 2), t(2, "cv"), t(3, "asr")], 4, [3]),
        # Within a project: priority, then arrival.
        ([share("cv")], {}, [t(1, "cv"), t(2, "cv", priority=1)], 1, [2]),
        # Across projects priorities say nothing.
        (
            [share("cv"), share("nlp")],
            {"nlp": 1},
            [t(1, "cv"), t(2, "nlp", priority=9)],
            2,
            [1],
        ),
        # A large request that is next is not passed over.
        ([share("cv"), share("nlp")], {"nlp": 1}, [t(1, "cv", 3), t(2, "nlp")], 3, []),
    ],
)
def test_whose_turn_it_is(
    shares: list[ProjectShare],
    holds: dict[str, int],
    tickets: list[Ticket],
    seats: int,
    expected: list[int],
) -> None:
    state = a_pool(*tickets, shares=shares, seats=seats, holds=holds)
    assert numbers([*plan(state).serve]) == expected


LAB = [
    share("lab", "g2 l3"),
    share("cv", "w3", parent="lab"),
    share("nlp", "g1", parent="lab"),
]


@pytest.mark.parametrize(
    ("holds", "tickets", "seats", "expected"),
    [
        # A part is served under the guarantee of its parent.
        ({"asr": 1}, [t(1, "asr"), t(2, "cv")], 2, [2]),
        # A part's own guarantee counts in the whole pool, also when its parent has more than its own.
        ({"cv": 2}, [t(1, "asr"), t(2, "cv"), t(3, "nlp")], 3, [3]),
        # The parent's limit holds for all parts together, and for what it asks itself.
        ({"cv": 3}, [t(1, "nlp"), t(2, "lab"), t(3, "asr")], 9, [3]),
        # One part that wants too much for it does not keep the others from its seats.
        ({"cv": 2}, [t(1, "cv", 2), t(2, "nlp")], 9, [2]),
    ],
)
def test_parts_of_projects(
    holds: dict[str, int], tickets: list[Ticket], seats: int, expected: list[int]
) -> None:
    state = a_pool(*tickets, shares=LAB, seats=seats, holds=holds)
    assert numbers([*plan(state).serve]) == expected


def test_one_that_may_not_wait_holds_up_none() -> None:
    state = a_pool(shares=TWO, seats=2)
    new = [t(1, "cv", 3), t(2, "cv"), t(3, "nlp")]
    found = plan(state, *new, impatient=frozenset([uuid7(1)]))
    assert numbers([*found.serve]) == [2, 3]


def test_what_limits_hold_back_is_said_and_comes_last() -> None:
    waiting = [t(1, "cv"), t(2, "nlp"), t(3, "nlp")]
    state = a_pool(*waiting, shares=[share("cv", "l1")], seats=1, holds={"cv": 1})
    found = plan(state)
    assert [found.hold_back(ticket) for ticket in waiting] == [True, False, False]
    assert numbers([*found.order]) == [2, 3, 1]
    assert [found.order.position(ticket) for ticket in waiting] == [3, 1, 2]


def test_identical_work_is_served_once() -> None:
    same = [
        replace(ticket, attribution=replace(ticket.attribution, work_key="w"))
        for ticket in (t(1, "cv"), t(2, "nlp"))
    ]
    state = a_pool(*same, t(3, "nlp"), shares=TWO, seats=4)
    found = plan(state)
    assert numbers([*found.serve]) == [1, 3]
    assert numbers([*found.order]) == [1, 3, 2]


def test_work_is_done_when_it_is_the_turn_of_any_who_wants_it() -> None:
    """Not only of the one that asked for it first, whose project is not next."""
    first, second = (
        replace(ticket, attribution=replace(ticket.attribution, work_key="w"))
        for ticket in (t(1, "cv"), t(2, "nlp"))
    )
    shares = [share("cv", "l1"), share("nlp")]
    state = a_pool(first, second, t(3, "nlp"), shares=shares, seats=2, holds={"cv": 1})
    found = plan(state)
    assert numbers([*found.serve]) == [2]
    assert numbers([*found.order]) == [2, 3, 1]
    state.put_grant(replace(held(3, "asr", 1), attribution=second.attribution))
    state.spec = replace(state.spec, seats=4) if state.spec else None
    assert numbers([*plan(state).serve]) == [3]


def test_a_pool_without_projects_is_served_as_ever() -> None:
    state = a_pool(t(1, "cv"), t(2, "nlp", priority=1), shares=[], seats=1)
    snapshot = PoolSnapshot.of(state)
    assert numbers([*BY_POOL.plan(snapshot, Instant(NOW)).serve]) == [2]
    assert [*FIFO.plan(snapshot, Instant(NOW)).serve] == [*plan(state).serve]
    assert state._projects is None, "it pays for no index"


def test_sessions_that_ended_and_what_a_decision_ends_do_not_count() -> None:
    state = a_pool(t(1, "cv"), t(2, "nlp"), shares=[share("cv"), share("nlp")], seats=2)
    state.put_grant(held(1, "cv", 1))
    ended = PoolSnapshot(state, 1, 99, 99, ended={held(1, "cv", 1).grant_id, uuid7(2)})
    assert numbers([*BY_POOL.plan(ended, Instant(NOW)).serve]) == [1]
    state.dead_sessions.add(t(1, "cv").session_id)
    assert not BY_POOL.plan(PoolSnapshot.of(state), Instant(NOW)).serve


projects = st.sampled_from(["lab", "cv", "nlp", "asr"])
tickets = st.lists(st.tuples(projects, st.integers(1, 3), st.integers(0, 1)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    waiting=tickets,
    fresh=tickets,
    holds=st.dictionaries(projects, st.integers(1, 3)),
    free=st.integers(0, 6),
)
def test_what_every_plan_keeps(
    waiting: list[tuple[str, int, int]],
    fresh: list[tuple[str, int, int]],
    holds: dict[str, int],
    free: int,
) -> None:
    stored = [t(n, p, s, r) for n, (p, s, r) in enumerate(waiting, start=1)]
    new = [t(n, p, s, r) for n, (p, s, r) in enumerate(fresh, start=50)]
    state = a_pool(*stored, shares=LAB, seats=sum(holds.values()) + free, holds=holds)
    found = plan(state, *new)
    served = [*found.serve]
    assert sum(ticket.seats for ticket in served) <= free
    assert len({ticket.grant_id for ticket in served}) == len(served)
    after = Counter(holds)
    for ticket in served:
        after[ticket.project] += ticket.seats
    lab = after["lab"] + after["cv"] + after["nlp"]
    before = sum(holds.get(each, 0) for each in ("lab", "cv", "nlp"))
    assert lab <= 3 or lab == before, "the limit of the lab"
    order = [*found.order]
    assert order[: len(served)] == served
    assert sorted(each.grant_id for each in order) == sorted(x.grant_id for x in stored + new)
    assert plan(state, *new).serve == found.serve


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 9), projects, st.integers(1, 3), st.booleans()), max_size=30
    )
)
def test_the_index_says_what_the_pool_holds(
    steps: list[tuple[int, str, int, bool]],
) -> None:
    """However it came to be: made first, or when all is there."""
    state, late = PoolState(), PoolState()
    assert not state.projects.held
    for number, project, seats, is_ticket in steps:
        for each in (state, late):
            if is_ticket and number in {6, 7}:
                each.remove_ticket(uuid7(number))
            elif is_ticket:
                each.put_ticket(t(number, project, seats))
            elif number > 6:
                each.remove_grant(held(number, project, seats).grant_id)
            else:
                each.put_grant(held(number, project, seats))
    for found, expected in ((state.projects, late.projects),):
        assert found.held == expected.held
        assert found.queues == expected.queues
        for project in ("lab", "cv", "nlp", "asr"):
            assert found.seats_wanted_max(project) == expected.seats_wanted_max(project)
    assert sum(state.projects.held.values()) == state.held
