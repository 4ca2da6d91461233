"""What an apply would break of what stands now is named, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from seatkeeper.client.pools_file import plan, read_pools
from seatkeeper.v1 import pool_service_pb2 as pb

NOON = 1_782_907_200_000
"""2026-07-01 12:00 UTC."""
OPEN = "ci: {seats: 2, for: {projects: [ci]}, when: daily, at: 10:00-14:00}"
POOL = "{seats: 4, reservations: {%s}}"


def spec_of(text: str) -> pb.PoolSpec:
    found = read_pools(f"version: 1\npools:\n  p: {text}\n".encode(), now_millis=NOON)
    assert not found.faults, found.faults
    return found.pools["p"]


def live(
    text: str, *, is_open: bool = True, ends: int = NOON + 7_200_000, **more: Any
) -> pb.Pool:
    """The pool as it stands, with its window open."""
    pool = pb.Pool(spec=spec_of(text), revision=5, **more)
    for each in pool.spec.policy.reservations:
        window = pool.spec.windows.windows.add(reservation=each.name)
        window.state = pb.WINDOW_STATE_OPEN if is_open else pb.WINDOW_STATE_PLANNED
        window.begins_at.FromMilliseconds(NOON - 7_200_000)
        window.ends_at.FromMilliseconds(ends)
    for lot in pool.spec.lots.lots:
        lot.state = pb.LOT_STATE_IN_FORCE
    pool.spec.seats = (pool.spec.lots.seats or pool.spec.seats) + sum(
        lot.seats for lot in pool.spec.lots.lots
    )
    return pool


def breaks(before: pb.Pool, after: str) -> tuple[str, ...]:
    (change,) = plan({"p": spec_of(after)}, [before], now_millis=NOON).changes
    return change.breaks


def notes(before: pb.Pool, after: str) -> str:
    (change,) = plan({"p": spec_of(after)}, [before], now_millis=NOON).changes
    return "; ".join(change.notes)


KEPT = POOL % OPEN


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (
            "{seats: 4}",
            "open until 2026-07-01 14:00 UTC, and 2 seats for project ci would be kept",
        ),
        (POOL % OPEN.replace("14:00", "15:00"), "would close at once, as its times are others"),
        (
            POOL % OPEN.replace("seats: 2", "seats: 1"),
            "would keep 1 seat for project ci, and not 2",
        ),
        (POOL % OPEN.replace("[ci]", "[web]"), "would be kept for project web"),
        (f"{{seats: 4, advisory: true, reservations: {{{OPEN}}}}}", "would be kept no more"),
    ],
)
def test_an_open_window_is_a_promise(after: str, says: str) -> None:
    (why,) = breaks(live(KEPT), after)
    assert says in why
    assert breaks(live(KEPT, is_open=False), after) == (), "not before it opens"
    assert breaks(live(KEPT, ends=NOON), after) == (), "nor when its time is over"


@pytest.mark.parametrize(
    "after",
    [
        KEPT,
        POOL % OPEN.replace("seats: 2", "seats: 3"),
        f"{{seats: 3, description: x, reservations: {{{OPEN}}}}}",
        f"{{seats: 4, reservations: {{{OPEN}, more: {{seats: 1, for: {{projects: [a]}}, when: daily,"
        " at: 16:00-17:00}}}",
    ],
)
def test_what_keeps_it_is_none(after: str) -> None:
    assert breaks(live(KEPT), after) == ()


def test_of_an_advisory_pool_nothing_is_kept_and_so_nothing_broken() -> None:
    advisory = f"{{seats: 4, advisory: true, reservations: {{{OPEN}}}}}"
    assert breaks(live(advisory), "{seats: 4}") == ()


LOTS = (
    "{seats: 1, lots: {a: {seats: 4, until: 2026-12-31%s}}, projects: {x: {guaranteed: 3}}%s}"
)


def test_seats_that_no_longer_cover_what_was_promised_are_named() -> None:
    ended = LOTS.replace("2026-12-31", "2026-06-30")
    (why,) = breaks(
        live(LOTS % ("", "")),
        ended.replace("lots: {", "lots: {b: {seats: 4, from: 2026-08-01, until: 2026-12-31}, ")
        % ("", ""),
    )
    assert "3 seats are guaranteed, and 1 seat is left in force" in why
    assert breaks(live(LOTS % ("", "")), LOTS % (", owner: me", "")) == ()
    windowed = f", reservations: {{{OPEN}}}".replace("[ci]", "[x]")
    whys = breaks(
        live(LOTS % ("", windowed)),
        ended.replace("lots: {", "lots: {b: {seats: 4, from: 2026-08-01, until: 2026-12-31}, ")
        % ("", windowed),
    )
    assert any(
        "open windows keep 2 seats, and 1 seat is left in force" in each for each in whys
    )


def test_what_an_overdraft_allows_is_no_surplus_until_it_is_lowered() -> None:
    before = live("{seats: 0, lots: {a: {seats: 2, overdraft: 2}}}", held=4)
    before.lot_use.overdraft, before.lot_use.overdraft_held = 2, 2
    assert notes(before, "{seats: 0, lots: {a: {seats: 2, overdraft: 3}}}") == ""
    less = notes(before, "{seats: 0, lots: {a: {seats: 2, overdraft: 1}}}")
    assert "the surplus of 1 seat is released" in less
    none = notes(before, "{seats: 0, lots: {a: {seats: 2}}}")
    assert "the surplus of 2 seats is released" in none


def test_a_rule_that_will_start_no_burst_is_said() -> None:
    when = "when: {p95_wait: 1m, for: 8m}"
    text = f"{{seats: 1, burst: {{{when}, seats: 1, length: 1h, hours_per_month: %d}}}}"
    before = live(text % 10)
    month = before.spec.lots.burst_months.add(month=2026 * 12 + 6)
    month.millis = 5 * 3_600_000
    assert notes(before, text % 9) == ""
    assert "starts no burst then: the 5 hours of 2026-07 do not suffice" in notes(
        before, text % 5
    )
