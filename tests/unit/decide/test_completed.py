"""Which grant ids count as completed: never too few, and not many too many."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import uuid7

from seatkeeper.core.ids import IdGenerator
from seatkeeper.server.domain.completed import (
    SPANS_MAX,
    SWEEP_AFTER,
    WINDOW_MILLIS,
    CompletedIds,
    covering,
    covers,
)

WINDOW = WINDOW_MILLIS // 100
"""The window in numbers of the test's ids, which are 100 ms apart."""
NUMBERS = st.integers(1, 3 * WINDOW)
CALLS = st.lists(
    st.tuples(st.sampled_from(["add", "ended", "recorded", "listed", "forget"]), NUMBERS),
    max_size=30,
)
FAR_APART = st.lists(st.integers(1, 100_000), min_size=1, max_size=60)
"""Numbers of ids that are up to hours apart, in any order: clocks are put forward and back."""


@given(calls=CALLS, is_marked=st.booleans())
def test_completed_ids_are_remembered_until_the_session_is_forgotten(
    *, calls: list[tuple[str, int]], is_marked: bool
) -> None:
    ids = CompletedIds()
    expected: set[str] = set()
    if is_marked:
        ids.add("anna", uuid7(1))
        expected.add(uuid7(1))
    for call, number in calls:
        grant_id = uuid7(number)
        match call:
            case "add":
                ids.add("anna", grant_id)
                expected.add(grant_id)
            case "ended":
                ids.add_ended("anna", grant_id)
                if expected:
                    expected.add(grant_id)
            case "listed":
                ids.listed("anna", covering(ids.spans("anna"), grant_id))
                expected.add(grant_id)
            case "recorded":
                ids.recorded("anna", covering(ids.spans("anna"), grant_id), [grant_id])
                expected.add(grant_id)
            case _:
                ids.forget("anna")
                expected.clear()
        for finished in expected:
            assert ids.contains("anna", finished)
            assert not ids.contains("bert", finished)
        highest = max(expected, default="")
        assert ids.mark("anna") == highest
        assert not ids.contains("anna", uuid7(4 * WINDOW)), "above the mark nothing is finished"


@settings(deadline=None)
@given(numbers=FAR_APART)
def test_spans_cover_all_that_finished_in_order_and_apart(numbers: list[int]) -> None:
    spans: tuple[tuple[str, str], ...] = ()
    for number in numbers:
        before, spans = spans, covering(spans, uuid7(number))
        assert all(covers(spans, each) for span in before for each in span)
    assert all(covers(spans, uuid7(number)) for number in numbers)
    assert len(spans) <= SPANS_MAX
    assert list(spans) == sorted(spans)
    assert all(low <= high for low, high in spans)
    ends = [uuid7(number) for number in numbers]
    assert all(low in ends and high in ends for low, high in spans), "nothing is made up"


@settings(deadline=None)
@given(numbers=FAR_APART, again=st.data())
def test_nothing_that_finished_is_ever_new_wherever_the_pool_is_listed(
    numbers: list[int], again: st.DataObject
) -> None:
    """One node sees each end; others list the pool at some moment, and see what follows."""
    writer, others = CompletedIds(), [CompletedIds()]
    done: list[str] = []
    for number in numbers:
        grant_id = uuid7(number)
        spans = covering(writer.spans("anna"), grant_id)
        done.append(grant_id)
        for node in (writer, *others):
            node.recorded("anna", spans, [grant_id])
        if again.draw(st.booleans()):
            late = CompletedIds()
            late.listed("anna", spans)
            others.append(late)
        for node in (writer, *others):
            assert all(node.contains("anna", each) for each in done)
            assert node.spans("anna") == writer.spans("anna")


def test_a_request_may_be_overtaken_by_as_much_as_the_window() -> None:
    ids = CompletedIds()
    for number in range(1, 2 * WINDOW + 1, WINDOW // 2 + 1):
        ids.add("anna", uuid7(number))
    last = ids.mark("anna")
    first_new = next(n for n in range(1, 2 * WINDOW) if not ids.contains("anna", uuid7(n)))

    assert last <= uuid7(first_new + WINDOW), "before that, so late that nothing is known"
    assert not ids.contains("anna", uuid7(2 * WINDOW - 2))


def test_an_id_of_an_hour_ahead_says_nothing_of_the_present() -> None:
    """A clock that was ahead is put right, or another thread of the client has a clock of its own."""
    ids, hour = CompletedIds(), 36_000
    ids.add("anna", uuid7(1))
    ids.add("anna", uuid7(hour))
    for number in range(2, 5 * WINDOW, 3):
        assert not ids.contains("anna", uuid7(number))
        ids.add("anna", uuid7(number))
        assert ids.contains("anna", uuid7(number))
    assert ids.contains("anna", uuid7(hour))
    assert ids.contains("anna", uuid7(1))


def test_a_node_that_lists_the_pool_knows_the_gap_before_an_id_ahead() -> None:
    ids = CompletedIds()
    ids.listed("anna", covering(covering((), uuid7(1)), uuid7(36_000)))
    assert ids.contains("anna", uuid7(1))
    assert ids.contains("anna", uuid7(36_000))
    assert not ids.contains("anna", uuid7(500))


def test_an_end_that_was_not_asked_for_says_nothing_of_later_ids() -> None:
    ids = CompletedIds()
    ids.add_ended("anna", uuid7(5))
    assert not ids.contains("anna", uuid7(5))


def test_what_is_remembered_does_not_grow_with_time() -> None:
    ids = CompletedIds()
    for number in range(1, 10 * WINDOW):
        ids.add("anna", uuid7(number))
    [session] = ids._sessions.values()
    assert len(session.recent) <= 2 * (WINDOW + 1) + 2 * SWEEP_AFTER
    assert len(session.spans) == 1


def test_many_ids_that_get_old_together_are_dropped_a_few_at_a_time() -> None:
    """Dropped at once, 100,000 of them are a pause for all clients of the node."""
    ids, now = CompletedIds(), 1_000_000
    new_id = IdGenerator(now_millis=lambda: now, random_bits=Random(1).getrandbits)
    for _ in range(5_000):
        ids.add("anna", new_id())
    [session] = ids._sessions.values()
    for _ in range(3):  # the span goes on; after a longer gap there would be another
        now += WINDOW_MILLIS
        ids.add("anna", new_id())
    left = [len(session.recent)]
    for _ in range(5_000):
        ids.add("anna", new_id())
        left.append(len(session.recent))

    assert all(before - after <= 2 * SWEEP_AFTER for before, after in pairwise(left))
    assert left[-1] < 5_000 + 4 * SWEEP_AFTER
    assert len(session.to_sweep) == len(session.recent)
