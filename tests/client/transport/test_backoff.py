from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.client.config.values import BackoffConfig
from seatkeeper.client.transport.backoff import delay_seconds

CONFIG = BackoffConfig()
shares = st.floats(0.0, 1.0)


def test_waits_double_from_one_second_and_stop_at_thirty() -> None:
    waits = [delay_seconds(attempt, CONFIG, random=1.0) for attempt in range(1, 8)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@given(st.integers(0, 10_000), shares)
def test_jitter_picks_any_moment_of_the_whole(attempt: int, random: float) -> None:
    whole = delay_seconds(attempt, CONFIG, random=1.0)
    assert delay_seconds(attempt, CONFIG, random=random) == whole * random


@given(st.integers(1, 50), shares, st.floats(0.0, 600.0), st.floats(0.0, 60.0))
def test_what_the_service_asks_for_wins(
    attempt: int, random: float, asked: float, longest: float
) -> None:
    got = delay_seconds(attempt, CONFIG, random=random, retry_after=asked, longest=longest)
    assert got == asked


def test_an_urgent_holder_waits_less() -> None:
    assert delay_seconds(6, CONFIG, random=1.0, longest=2.5) == 2.5
    assert delay_seconds(6, CONFIG, random=1.0, longest=-1.0) == 0.0


def test_the_first_wait_is_the_configured_one() -> None:
    config = BackoffConfig(initial=timedelta(seconds=3), longest=timedelta(seconds=5))
    assert delay_seconds(1, config, random=1.0) == 3.0
    assert delay_seconds(2, config, random=1.0) == 5.0
