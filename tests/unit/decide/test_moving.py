"""Where an administrator's moves put tickets: decision by decision, and against a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.decide.test_decide import answers, decided, granted_ids, only, pool
from tests.unit.kit import NOW, POOL, a_grant, a_ticket, acquire, changed, release, uuid7

from seatkeeper.server.decide import Decision
from seatkeeper.server.domain import (
    Denied,
    Instant,
    Moved,
    MoveTicket,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    Queued,
    Ticket,
    To,
)
from seatkeeper.server.domain.move import HALVINGS_MAX, place_before, place_between

WHY = "the release waits for it"
HELD = a_grant(99)
"""The only seat."""
MOVE_IDS = count(1_000)
SHARED = PoolSpec(POOL, 1, policy=PoolPolicy((ProjectShare(project="cv"),)))


def moves(
    number: int, to: To | int, *, session: str = "anna", move_id: int | None = None
) -> MoveTicket:
    """A move of its own each time, unless its id is given."""
    where = to if isinstance(to, To) else uuid7(to)
    return MoveTicket(uuid7(number), session, where, WHY, uuid7(move_id or next(MOVE_IDS)))


def numbers(state: PoolState) -> list[int]:
    """The queue, by the numbers of its ids."""
    return [int(ticket.grant_id[-12:], 16) for ticket in state.queue()]


def after(state: PoolState, decision: Decision) -> PoolState:
    """Bring what a decision writes of tickets into a pool."""
    for grant_id in decision.tickets_ended:
        state.remove_ticket(grant_id)
    for ticket in (*decision.tickets, *decision.moved.values()):
        state.put_ticket(ticket)
    for grant in decision.grants:
        state.put_grant(grant)
    state.guard = decision.guard
    return state


def refusal(decision: Decision) -> str:
    outcome = only(decision)
    assert isinstance(outcome, Denied)
    assert not decision.moved
    assert decision.writes == 0
    return f"{outcome.reason.name}: {outcome.message}"


@pytest.mark.parametrize(
    ("number", "to", "expected"),
    [
        (4, To.FIRST, [4, 1, 2, 3]),
        (1, To.LAST, [2, 3, 4, 1]),
        (2, To.FIRST, [2, 1, 3, 4]),
        (4, 2, [1, 4, 2, 3]),
        (1, 4, [2, 3, 1, 4]),
        (1, 3, [2, 1, 3, 4]),
        # Already there: nothing is written.
        (1, To.FIRST, None),
        (4, To.LAST, None),
        (2, 3, None),
    ],
)
def test_a_ticket_is_moved_among_those_that_wait(
    number: int, to: To | int, expected: list[int] | None
) -> None:
    state = pool(HELD, *map(a_ticket, range(1, 5)))
    decision = decided(state, moves(number, to))
    outcome = only(decision)
    assert isinstance(outcome, Moved)
    assert outcome.ticket.grant_id == uuid7(number)
    assert decision.writes == (0 if expected is None else 1)
    if expected is not None:
        move = outcome.ticket.move
        assert move is not None
        assert (move.reason, move.moved_at) == (WHY, NOW)
    assert numbers(after(state, decision)) == (expected or [1, 2, 3, 4])


def test_it_is_moved_among_its_priority_alone() -> None:
    high, low = a_ticket(2, priority=5), a_ticket(4, priority=-5)
    state = pool(HELD, a_ticket(1), high, a_ticket(3), low)
    after(state, decided(state, moves(3, To.FIRST)))
    assert numbers(state) == [2, 3, 1, 4], "a higher priority stays before it"
    after(state, decided(state, moves(3, To.LAST)))
    assert numbers(state) == [2, 1, 3, 4], "and a lower one behind it"
    said = refusal(decided(state, moves(3, 2)))
    assert said.startswith("OTHER_TERMS: it has priority 0, and request")
    assert "has 5" in said


def test_where_projects_share_a_pool_it_is_moved_among_its_project_alone() -> None:
    nlp = changed(a_ticket(2), project="nlp")
    state = pool(HELD, a_ticket(1), nlp, a_ticket(3))
    after(state, decided(state, moves(3, 2)))
    assert numbers(state) == [1, 3, 2], "without shares, projects do not matter"
    state.spec = SHARED
    assert "it is of project cv, and request" in refusal(decided(state, moves(1, 2)))
    after(state, decided(state, moves(3, To.FIRST)))
    assert [number for number in numbers(state) if number != 2] == [3, 1]


def test_a_move_gains_nothing_over_other_projects_that_came_before() -> None:
    """Places decide between projects where their shares are equal: 2 came before both of cv."""
    nlp = changed(a_ticket(2), project="nlp")
    state = pool(HELD, nlp, a_ticket(3), a_ticket(4))
    state.spec = SHARED
    decision = decided(state, moves(4, To.FIRST))
    after(state, decision)
    assert numbers(state) == [2, 4, 3]
    assert decision.moved[uuid7(4)].place == Fraction(5, 2)


def test_a_place_is_one_that_no_other_ticket_of_the_pool_has() -> None:
    taken = replace(a_ticket(2, priority=5), move=None)
    state = pool(HELD, a_ticket(1), taken, a_ticket(3, order=3), a_ticket(4))
    for number, to in ((4, 3), (1, 4), (4, 1), (1, To.LAST), (4, To.LAST)):
        after(state, decided(state, moves(number, to)))
        places = [ticket.place for ticket in state.tickets.values()]
        assert len(set(places)) == len(places)


def test_what_is_not_as_it_was_seen_stays() -> None:
    state = pool(a_grant(1, fence=7), a_ticket(2), a_ticket(3, session="bert"))
    assert "holds seats by now, under fence 7" in refusal(decided(state, moves(1, To.FIRST)))
    assert refusal(decided(state, moves(9, To.FIRST))).startswith("FINISHED")
    assert refusal(decided(state, moves(3, To.FIRST))).startswith("FINISHED"), "not anna's"
    assert "no place before it" in refusal(decided(state, moves(2, 1)))
    assert "does not wait for this pool" in refusal(decided(state, moves(2, 9)))


def test_a_dead_session_neither_moves_nor_is_moved_before() -> None:
    state = pool(HELD, a_ticket(1), a_ticket(2, session="bert"), a_ticket(3, session="bert"))
    state.dead_sessions.add("anna")
    assert refusal(decided(state, moves(1, To.LAST))).startswith("FINISHED")
    assert "does not wait" in refusal(decided(state, moves(3, 1, session="bert")))
    decision = decided(state, moves(3, To.FIRST, session="bert"))
    assert numbers(after(state, decision)) == [1, 3, 2]


def test_the_same_move_again_moves_nothing_further() -> None:
    """As after an answer of the store that was lost, or of the node."""
    state = pool(HELD, a_ticket(1), a_ticket(2))
    after(state, decided(state, moves(1, To.LAST, move_id=76)))
    after(state, decided(state, acquire(3)))
    again = decided(state, moves(1, To.LAST, move_id=76))
    assert (answers(again), again.writes) == ({0: "Moved"}, 0)
    assert numbers(state) == [2, 1, 3], "one that has come since stays behind it"
    after(state, decided(state, moves(1, To.LAST, move_id=77)))
    assert numbers(state) == [2, 3, 1]


def test_several_moves_of_one_decision_see_each_other() -> None:
    state = pool(HELD, *map(a_ticket, range(1, 6)))
    decision = decided(
        state, moves(4, 1), moves(5, 1), moves(2, To.LAST), moves(3, To.LAST), moves(2, 1)
    )
    assert numbers(after(state, decision)) == [4, 5, 2, 1, 3]
    assert decision.guard.ticket_number == 7, "each last place takes a number"


def test_grants_of_the_same_decision_are_made_by_the_order_as_it_was() -> None:
    state = pool(HELD, a_ticket(1), a_ticket(2), a_ticket(3))
    decision = decided(state, release(99), moves(3, To.FIRST))
    assert granted_ids(decision) == [uuid7(1)]
    assert numbers(after(state, decision)) == [3, 2]


def test_one_that_is_granted_or_ended_in_the_same_decision_is_moved_no_more() -> None:
    state = pool(HELD, a_ticket(1), a_ticket(2))
    decision = decided(state, moves(1, To.LAST), moves(2, To.FIRST), release(99), release(2))
    assert granted_ids(decision) == [uuid7(1)]
    assert not decision.moved
    outcomes = {command.grant_id: outcome for command, outcome in decision.outcomes[2:]}
    granted, given_up = outcomes[uuid7(1)], outcomes[uuid7(2)]
    assert isinstance(granted, Denied)
    assert isinstance(given_up, Denied)
    assert "holds seats by now" in granted.message
    assert given_up.reason.name == "FINISHED"
    assert sorted(decision.tickets_ended) == [uuid7(1), uuid7(2)]


def test_one_that_asks_again_in_the_same_batch_is_answered_by_its_new_place() -> None:
    """Else another node that forwarded the request would take the old record for the stored one."""
    state = pool(HELD, a_ticket(1), a_ticket(2))
    decision = decided(state, acquire(1), moves(1, To.LAST))
    queued = next(each for _, each in decision.outcomes if isinstance(each, Queued))
    assert queued.ticket == decision.moved[uuid7(1)]


def test_a_full_transaction_puts_it_off() -> None:
    command = moves(2, To.FIRST)
    decision = decided(pool(HELD, a_ticket(1), a_ticket(2)), command, writes_max=0)
    assert (decision.deferred, decision.outcomes) == ([command], [])


def test_one_before_a_large_one_is_served_by_the_next_decision() -> None:
    state = pool(a_ticket(1, seats=2), a_ticket(2), seats=2)
    state.put_grant(a_grant(99))
    decision = decided(state, moves(2, To.FIRST))
    assert granted_ids(decision) == []
    assert granted_ids(decided(after(state, decision))) == [uuid7(2)]


def test_a_move_is_not_an_overtake() -> None:
    """What a pool allows small requests is not used up by an administrator, and no limit to one."""
    state = pool(HELD, a_ticket(1), a_ticket(2))
    after(state, decided(state, moves(2, To.FIRST)))
    decision = decided(state, release(99))
    assert granted_ids(decision) == [uuid7(2)]
    assert decision.guard.overtaken == {}


def test_there_is_room_for_a_thousand_moves_to_one_place_and_then_a_clear_answer() -> None:
    low = Fraction(1)
    for _ in range(HALVINGS_MAX):
        place = place_between(low, 2)
        assert place is not None
        assert low < place < 2
        low = place
    assert place_between(low, 2) is None
    state = pool(HELD, a_ticket(1), a_ticket(2))
    first = only(decided(state, moves(2, To.FIRST)))
    assert isinstance(first, Moved)
    assert first.ticket.move is not None
    crowded = replace(first.ticket.move, place=low - 1)
    state.put_ticket(replace(first.ticket, move=crowded))
    state.put_ticket(a_ticket(3))
    said = refusal(decided(state, moves(3, 1)))
    assert "too many requests were moved right before that one" in said


@given(
    st.fractions(min_value=0, max_value=9, max_denominator=64),
    st.fractions(min_value=0, max_value=9, max_denominator=64),
)
def test_a_place_between_two_has_the_fewest_halvings(one: Fraction, two: Fraction) -> None:
    low, high = min(one, two), max(one, two)
    place = place_between(low, high)
    if low == high:
        assert place is None
        return
    assert place is not None
    assert low < place < high
    coarser = place.denominator // 2
    if coarser:
        steps = range(int(low * coarser), int(high * coarser) + 2)
        assert not any(low < Fraction(step, coarser) < high for step in steps)


@given(st.lists(st.integers(1, 9)), st.integers(1, 9))
def test_a_place_before_one_is_within_its_own_number(others: list[int], high: int) -> None:
    place = place_before(high, list(others))
    assert place is not None
    assert high - 1 < place < high


Drawn = tuple[int, int | To]
DRAWN = st.lists(
    st.tuples(st.integers(1, 8), st.one_of(st.integers(1, 8), st.sampled_from(To))), max_size=30
)


def in_a_list(order: Sequence[int], number: int, to: int | To) -> list[int]:
    """What a move is, said with a list."""
    rest = [each for each in order if each != number]
    at = {To.FIRST: 0, To.LAST: len(rest)}.get(to) if isinstance(to, To) else rest.index(to)
    assert at is not None
    return [*rest[:at], number, *rest[at:]]


@given(st.lists(st.integers(0, 1), min_size=8, max_size=8), DRAWN, st.booleans())
@settings(max_examples=200)
def test_any_moves_are_those_of_a_list_for_each_priority(
    priorities: list[int], drawn: list[Drawn], together: bool
) -> None:
    """One by one, or as commands of one decision, which come to the same."""
    state = pool(HELD, *(a_ticket(n + 1, priority=p) for n, p in enumerate(priorities)))
    by_priority = {p: [n + 1 for n in range(8) if priorities[n] == p] for p in (0, 1)}
    commands = []
    for number, to in drawn:
        own = by_priority[priorities[number - 1]]
        if number == to or (not isinstance(to, To) and to not in own):
            continue
        by_priority[priorities[number - 1]] = in_a_list(own, number, to)
        commands.append(moves(number, to))
    for batch in [commands] if together else [[command] for command in commands]:
        decision = decided(state, *batch)
        assert set(answers(decision).values()) <= {"Moved"}
        assert decision.writes <= 8
        after(state, decision)
    assert numbers(state) == [*by_priority[1], *by_priority[0]]
    places = [ticket.place for ticket in state.tickets.values()]
    assert len(set(places)) == len(places)


def test_what_is_moved_keeps_everything_else() -> None:
    before = a_ticket(2, seats=3, wait=None)
    state = pool(HELD, a_ticket(1), before, seats=4)
    state.put_grant(a_grant(98, seats=3))
    moved = decided(state, moves(2, To.FIRST), now=Instant(NOW + 5)).moved[uuid7(2)]
    assert isinstance(moved, Ticket)
    assert replace(moved, move=None) == before
