"""The clock that holders believe in."""

from __future__ import annotations

import time

import pytest

from seatkeeper.core.clock import FollowedClock, SystemClock
from seatkeeper.testing.movable_clock import MovableClock


@pytest.mark.parametrize("jump", [-300.0, 300.0])
def test_it_does_not_follow_the_wall_clock(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator, or NTP, may set that at any moment."""
    clock = SystemClock()
    before = clock.now()
    true_time, true_ns, gettime = time.time, time.time_ns, time.clock_gettime
    monkeypatch.setattr(time, "time", lambda: true_time() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: true_ns() + int(jump * 1e9))
    monkeypatch.setattr(
        time,
        "clock_gettime",
        lambda which: gettime(which) + (jump if which == time.CLOCK_REALTIME else 0.0),
    )
    assert 0.0 <= clock.now() - before < abs(jump) / 2


def test_only_a_clock_that_is_moved_asks_for_renewals() -> None:
    assert not isinstance(SystemClock(), FollowedClock)
    assert isinstance(MovableClock(), FollowedClock)
