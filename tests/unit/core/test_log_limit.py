"""A stranger who sends the same nonsense forever gets a line now and then, and a count."""

from __future__ import annotations

from seatkeeper.core.serving.log_limit import KEYS_MAX, LOG_SECONDS, LogLimit


def test_one_line_in_so_much_time_says_how_many_were_left_out() -> None:
    now = 100.0
    limit = LogLimit(lambda: now)
    assert [limit.passes("a") for _ in range(4)] == [0, None, None, None]
    now += LOG_SECONDS
    assert limit.passes("a") == 3
    assert limit.passes("a") is None


def test_each_caller_has_its_own() -> None:
    limit = LogLimit(lambda: 100.0)
    assert (limit.passes("a"), limit.passes("b")) == (0, 0)


def test_callers_without_end_take_no_room_without_end() -> None:
    limit = LogLimit(lambda: 100.0)
    assert all(limit.passes(number) == 0 for number in range(2 * KEYS_MAX))
    assert limit.passes(2 * KEYS_MAX - 1) is None
    assert limit.passes(0) == 0
