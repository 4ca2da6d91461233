"""Whether waits were long, by the guard and the tickets: a table, and a model of all requests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.core.burst_rule import BurstRule
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain.wait_counts import (
    NO_WAITS,
    SLOTS,
    SLOTS_KEPT,
    WaitCounts,
    counted_waits,
    is_long,
)
from seatkeeper.server.store.waits import read_waits, write_waits

SLOT = 1_000
RULE = BurstRule(seats=1, length=1_000, p95_wait=5_000, within=SLOTS * SLOT, hours_per_month=1)
NOW = 100_000


def long(granted: list[tuple[int, int]], waiting: list[int], now: int = NOW) -> bool:
    counts = NO_WAITS
    for each in sorted(granted, key=lambda each: each[1]):
        counts = counted_waits(counts, RULE, [each])
    return is_long(counts, RULE, waiting, now)


@pytest.mark.parametrize(
    ("granted", "waiting", "found"),
    [
        ([], [], False),
        # It waits since before the first slot ended by as much as a long wait is.
        ([], [NOW - 8 * SLOT - 5_000 + SLOT], True),
        ([], [NOW - 8 * SLOT - 5_000 + SLOT + 1], False),
        # Granted now: it waited in each slot, but was long in none before.
        ([(NOW - 5_000, NOW)], [], False),
        ([(NOW - 20_000, NOW)], [], True),
        # One that waits for long beside twenty that never wait is not more than one in twenty.
        ([(at, at) for at in range(NOW - 9_000, NOW, 50)], [0], False),
        ([(at, at) for at in range(NOW - 9_000, NOW, 60)], [0], True),
        # Long once, and not any more.
        ([(NOW - 30_000, NOW - 4_000)], [], False),
    ],
)
def test_when_waits_are_long(
    granted: list[tuple[int, int]], waiting: list[int], found: bool
) -> None:
    assert long(granted, waiting) == found


requests = st.lists(
    st.tuples(st.integers(60_000, NOW), st.integers(0, 30_000)).map(
        lambda each: (each[0], each[0] + each[1])
    ),
    max_size=40,
)


@given(requests)
def test_it_is_what_all_requests_together_say(drawn: list[tuple[int, int]]) -> None:
    granted = [each for each in drawn if each[1] < NOW]
    waiting = [asked for asked, end in drawn if end >= NOW]

    def percentile_is_long(number: int) -> bool:
        begin, end = number * SLOT, (number + 1) * SLOT
        waits = [
            min(end, until) - asked
            for asked, until in granted
            if until >= begin and asked < end
        ]
        waits += [end - asked for asked in waiting if asked <= end]
        return 20 * sum(wait >= RULE.p95_wait for wait in waits) > len(waits)

    slots = range(NOW // SLOT - SLOTS, NOW // SLOT)
    assert long(granted, waiting) == all(map(percentile_is_long, slots))


def test_without_a_rule_nothing_is_counted_and_another_one_begins_anew() -> None:
    counts = counted_waits(NO_WAITS, RULE, [(0, NOW)])
    assert counted_waits(counts, RULE, []) is counts
    assert counted_waits(counts, None, [(0, NOW)]) is NO_WAITS
    other = replace(RULE, p95_wait=6_000)
    assert counted_waits(counts, other, []).slots == {}
    assert not is_long(counts, other, [], NOW)


def test_what_is_kept_has_a_bound_also_where_clocks_jump() -> None:
    counts = NO_WAITS
    for at in (NOW, NOW * 50, NOW, *range(NOW, 2 * NOW, 700)):
        counts = counted_waits(counts, RULE, [(0, at)])
    assert len(counts.slots) <= SLOTS_KEPT
    assert 2 * NOW // SLOT - 1 in counts.slots


def test_the_guard_has_them() -> None:
    record = state_pb2.GuardRecord()
    counts = counted_waits(NO_WAITS, RULE, [(0, NOW)])
    write_waits(record, counts)
    assert read_waits(record) == counts
    assert isinstance(counts, WaitCounts)
    write_waits(record, NO_WAITS)
    assert record == state_pb2.GuardRecord()
    assert read_waits(record) is NO_WAITS
