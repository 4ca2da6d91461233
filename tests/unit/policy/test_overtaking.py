"""How far small requests go before one that wants more seats than are free."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, changed

from seatkeeper.server.decide.decision import decide
from seatkeeper.server.domain import (
    Grant,
    Instant,
    Limits,
    Overtaking,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    Queued,
    Ticket,
)
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.overtaking import AHEAD_MAX, OVERTAKEN_MAX
from seatkeeper.server.policy.snapshot import PoolSnapshot

LIMITS = Limits()
RULE = Overtaking(seats=3, within=timedelta(seconds=60))
PROJECTS = (ProjectShare(project="nlp", weight=2), ProjectShare(project="cv"))


def a_pool(
    *wanted: int,
    seats: int = 4,
    held: int = 2,
    rule: Overtaking | None = RULE,
    overtaken: dict[int, int] | None = None,
    waited: float = 0,
    projects: tuple[ProjectShare, ...] = (),
) -> PoolState:
    """A pool whose tickets 1, 2, ... want so many seats, and came ``waited`` seconds ago."""
    policy = PoolPolicy(projects, overtaking=rule)
    state = PoolState(spec=PoolSpec(POOL, seats, policy=policy))
    if held:
        state.put_grant(a_grant(900, seats=held))
    for number, each in enumerate(wanted, 1):
        ticket = a_ticket(number, seats=each)
        state.put_ticket(
            replace(
                ticket,
                attribution=replace(ticket.attribution, project="nlp"),
                queued_at=Instant(NOW - round(waited * 1000)),
            )
        )
    state.guard = replace(
        state.guard,
        ticket_number=len(wanted),
        overtaken={a_ticket(number).grant_id: n for number, n in (overtaken or {}).items()},
    )
    return state


def served(state: PoolState) -> list[int]:
    return [ticket.number for ticket in BY_POOL.plan(PoolSnapshot.of(state), NOW).serve]


@pytest.mark.parametrize("projects", [(), PROJECTS])
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param({"wanted": (3, 1, 1), "rule": None}, [], id="no rule, none overtaken"),
        pytest.param({"wanted": (3, 1, 1, 1)}, [2, 3], id="as far as seats are free"),
        pytest.param({"wanted": (3, 3, 1)}, [3], id="before several"),
        pytest.param({"wanted": (1, 2, 1)}, [1, 3], id="after one that is served in turn"),
        pytest.param(
            {"wanted": (3, 1, 1), "overtaken": {1: 2}}, [2], id="what was before counts"
        ),
        pytest.param({"wanted": (3, 1), "overtaken": {1: 3}}, [], id="its bound is reached"),
        pytest.param(
            {"wanted": (3, 2, 1), "overtaken": {1: 2}}, [], id="none passes the second"
        ),
        pytest.param({"wanted": (4, 3, 1), "overtaken": {2: 3}}, [], id="the bound of any"),
        pytest.param({"wanted": (3, 1), "waited": 59.9}, [2], id="until it has waited so long"),
        pytest.param({"wanted": (3, 1), "waited": 60}, [], id="and not from then on"),
        pytest.param(
            {"wanted": (3, 1), "held": 0}, [1, 2], id="nothing is overtaken that fits"
        ),
        pytest.param({"wanted": (*[3] * AHEAD_MAX, 1)}, [AHEAD_MAX + 1], id="at most so many"),
        pytest.param({"wanted": (*[3] * (AHEAD_MAX + 1), 1)}, [], id="and no more at once"),
    ],
)
def test_small_requests_go_first_as_far_as_the_pool_says(
    state: dict[str, object], expected: list[int], projects: tuple[ProjectShare, ...]
) -> None:
    wanted = state.pop("wanted")
    try:
        assert isinstance(wanted, tuple)
        pool = a_pool(*wanted, projects=projects, **state)  # type: ignore[arg-type]  # a table
        assert served(pool) == expected
    finally:
        state["wanted"] = wanted


def test_it_is_written_for_so_many_tickets_at_most() -> None:
    large = [3] * (OVERTAKEN_MAX - 1)
    others = dict.fromkeys(range(3, 2 + OVERTAKEN_MAX), 1)
    assert served(a_pool(3, 1, *large, overtaken=others)) == [2]
    others[2 + OVERTAKEN_MAX] = 1
    assert served(a_pool(3, 1, *large, 3, overtaken=others)) == []
    # What is written of those that wait no more stops nothing.
    assert served(a_pool(3, 1, overtaken=others)) == [2]


def test_one_whose_work_others_wait_for_is_not_overtaken() -> None:
    """They take its place when it is gone, and what went before them would not be known."""
    state = a_pool(3, 1, 1)
    for number in (1, 3):
        ticket = state.tickets[a_ticket(number).grant_id]
        state.put_ticket(changed(ticket, work_key="w"))
    assert served(state) == []
    state.remove_ticket(a_ticket(3).grant_id)
    assert served(state) == [2]


def test_a_project_at_its_limit_overtakes_none() -> None:
    full = (ProjectShare(project="nlp", limit=1), *PROJECTS[1:])
    assert served(a_pool(2, 1, seats=8, held=2, projects=full)) == []


def test_what_was_overtaken_is_written_while_it_waits() -> None:
    state = a_pool(3, 1, overtaken={1: 1, 77: 2})
    made = decide(state, [], NOW, LIMITS)
    first, second = (a_ticket(number).grant_id for number in (1, 2))
    assert [grant.grant_id for grant in made.grants] == [second]
    assert made.guard.overtaken == {first: 2}  # 77 waits no more
    state = a_pool(2, 1, overtaken={1: 1})
    made = decide(state, [], NOW, LIMITS)
    assert [grant.grant_id for grant in made.grants] == [first]
    assert made.guard.overtaken == {}


def test_a_request_that_is_new_is_overtaken_too() -> None:
    state = a_pool()
    large, small = acquire(11, seats=3), acquire(12, seats=2)
    made = decide(state, [large, small], NOW, LIMITS)
    assert [type(outcome) for _, outcome in made.outcomes].count(Queued) == 1
    assert made.guard.overtaken == {large.grant_id: 2}


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 4), max_size=12),
    st.integers(0, 4),
    st.integers(1, 5),
    st.data(),
)
def test_no_ticket_is_overtaken_by_more_seats_than_allowed(
    wanted: list[int], held: int, seats: int, data: st.DataObject
) -> None:
    """However decisions follow each other, while seats come back and requests come in."""
    state = a_pool(*wanted, held=held, rule=Overtaking(seats, timedelta(seconds=60)))
    before: dict[str, int] = {}
    for step in range(6):
        made = decide(
            state, [acquire(100 + step, seats=data.draw(st.integers(1, 4)))], NOW, LIMITS
        )
        granted = {grant.grant_id: grant for grant in made.grants}
        for ticket in made.tickets:
            state.put_ticket(ticket)
        waiting = {ticket.number: ticket for ticket in state.tickets.values()}
        _count(before, waiting, granted)
        assert all(
            before.get(each, 0) <= seats for each in state.tickets.keys() - granted.keys()
        )
        for grant_id in made.tickets_ended:
            state.remove_ticket(grant_id)
        for grant in made.grants:
            state.put_grant(grant)
        state.guard = made.guard
        gone = data.draw(st.integers(0, 3))
        for grant_id in sorted(state.grants)[gone : gone + 1]:
            state.remove_grant(grant_id)


def _count(
    before: dict[str, int], waiting: dict[int, Ticket], granted: dict[str, Grant]
) -> None:
    newest = max(waiting, default=0) + 1
    numbers = {ticket.grant_id: number for number, ticket in waiting.items()}
    for grant in granted.values():
        number = numbers.get(grant.grant_id, newest)
        for ticket in waiting.values():
            if ticket.grant_id not in granted and ticket.number < number:
                before[ticket.grant_id] = before.get(ticket.grant_id, 0) + grant.seats
