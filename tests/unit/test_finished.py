"""Which grant ids count as finished with: never too few, and not many too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import uuid7

from seatkeeper.server.decide.finished import WINDOW_MILLIS, FinishedIds

WINDOW = WINDOW_MILLIS // 100
"""The window in numbers of the test's ids, which are 100 ms apart."""
NUMBERS = st.integers(1, 3 * WINDOW)
CALLS = st.lists(
    st.tuples(st.sampled_from(["add", "ended", "listed", "forget"]), NUMBERS), max_size=30
)


@given(calls=CALLS, is_marked=st.booleans())
def test_what_was_finished_with_is_remembered_until_the_session_is_forgotten(
    *, calls: list[tuple[str, int]], is_marked: bool
) -> None:
    ids = FinishedIds()
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
                ids.listed("anna", grant_id)
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


def test_a_request_may_be_overtaken_by_as_much_as_the_window() -> None:
    ids = FinishedIds()
    ids.add("anna", uuid7(2 * WINDOW))

    assert not ids.contains("anna", uuid7(WINDOW))
    assert ids.contains("anna", uuid7(WINDOW - 1)), "so late that nothing is known"


def test_an_end_that_was_not_asked_for_says_nothing_of_later_ids() -> None:
    ids = FinishedIds()
    ids.add_ended("anna", uuid7(5))
    assert not ids.contains("anna", uuid7(5))


def test_what_is_remembered_does_not_grow_with_time() -> None:
    ids = FinishedIds()
    for number in range(1, 10 * WINDOW):
        ids.add("anna", uuid7(number))
    [session] = ids._sessions.values()
    assert len(session.recent) <= WINDOW + 1
