"""What is written of windows, when; and what is refused of reservations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatkeeper.core.pool_rules import HolderGroup, PoolRules, Who
from seatkeeper.core.projects import PoolPolicy, ProjectShare
from seatkeeper.core.reservation_faults import reservation_faults
from seatkeeper.core.reservations import (
    NO_WINDOWS,
    PoolWindows,
    Reservation,
    Schedule,
    Span,
    Window,
    WindowState,
    advanced,
    next_move,
    succeeding,
    unplanned,
)

EVERY = Schedule("FREQ=DAILY", opens=0, closes=30)
CI = Reservation("ci", 2, Who(projects=("ci",)), EVERY)
T = 864_000
"""A hundredth of a day."""
PERIOD, LENGTH = 100 * T, 30 * T
RANK = {state: rank for rank, state in enumerate(WindowState)}
NOW = 1_700_000_000_000


def following(when: Schedule, after: int | None, now: int) -> Span | None:
    """A window every day, of a third of it."""
    begins = max(0, now - LENGTH + 1 + PERIOD - 1) // PERIOD * PERIOD
    if after is not None and begins <= after:
        begins = after // PERIOD * PERIOD + PERIOD
    return begins, begins + LENGTH


def never(when: Schedule, after: int | None, now: int) -> Span | None:
    return None


def states(windows: PoolWindows) -> list[tuple[int, WindowState]]:
    return [(each.begins // T, each.state) for each in windows.windows]


def test_a_window_is_planned_opened_and_closed_and_the_next_one_follows_at_once() -> None:
    windows, moves = advanced([CI], NO_WINDOWS, 50 * T, following)
    assert states(windows) == [(100, WindowState.PLANNED)]
    assert next_move(windows) == 100 * T
    assert advanced([CI], windows, 99 * T, following) == (windows, ())
    windows, moves = advanced([CI], windows, 100 * T, following)
    assert states(windows) == [(100, WindowState.OPEN)]
    assert (windows.windows[0].opened_at, next_move(windows)) == (100 * T, 130 * T)
    assert [*windows.open] == ["ci"]
    windows, moves = advanced([CI], windows, 131 * T, following)
    assert states(windows) == [(200, WindowState.PLANNED)]
    assert [move.window.state for move in moves] == [WindowState.CLOSED, WindowState.PLANNED]
    assert moves[0].window.closed_at == 131 * T


def test_one_that_is_within_its_time_when_it_is_made_opens_at_once() -> None:
    windows, moves = advanced([CI], NO_WINDOWS, 110 * T, following)
    assert states(windows) == [(100, WindowState.OPEN)]
    assert [move.window.state for move in moves] == [WindowState.PLANNED, WindowState.OPEN]


def test_one_that_went_by_unseen_closes_without_having_been_open() -> None:
    planned = PoolWindows((Window("ci", 100 * T, 130 * T),))
    windows, moves = advanced([CI], planned, 610 * T, following)
    assert [(move.window.begins // T, move.window.state) for move in moves] == [
        (100, WindowState.CLOSED),
        (600, WindowState.PLANNED),
        (600, WindowState.OPEN),
    ]
    assert moves[0].window.opened_at is None
    assert states(windows) == [(600, WindowState.OPEN)]


def test_where_no_other_is_known_it_stays_closed_and_the_first_who_knows_plans_it() -> None:
    """The zone is unknown to one node: it opens and closes what another has planned."""
    planned = PoolWindows((Window("ci", 100 * T, 130 * T),))
    is_open, _ = advanced([CI], planned, 100 * T, never)
    closed, _ = advanced([CI], is_open, 130 * T, never)
    assert states(closed) == [(100, WindowState.CLOSED)]
    assert next_move(closed) is None
    assert unplanned([CI], closed) == [(CI, closed.windows[0])]
    assert advanced([CI], closed, 900 * T, never) == (closed, ())
    # By a clock that is behind: the next one all the same, never the same again.
    windows, _ = advanced([CI], closed, 20 * T, following)
    assert states(windows) == [(200, WindowState.PLANNED)]
    assert unplanned([CI], windows) == []


@settings(max_examples=300)
@given(st.lists(st.integers(0, 2_000).map(lambda at: at * T), min_size=1, max_size=20))
def test_whatever_clocks_say_a_window_moves_one_way_and_never_opens_twice(
    clocks: list[int],
) -> None:
    windows, opened = NO_WINDOWS, set[int]()
    for now in clocks:
        before = states(windows)
        windows, moves = advanced([CI], windows, now, following)
        (was,) = before or [(-1, WindowState.PLANNED)]
        (is_now,) = states(windows)
        assert (is_now[0], RANK[is_now[1]]) >= (was[0], RANK[was[1]])
        for move in moves:
            if move.window.state is WindowState.OPEN:
                assert move.window.begins not in opened
                assert move.window.begins <= now < move.window.ends
                opened.add(move.window.begins)
        assert advanced([CI], windows, now, following) == (windows, ()), "all is written"
        assert all(at > now for at in [next_move(windows)] if at is not None)


def test_a_change_of_seats_or_of_whom_it_is_for_goes_on_and_another_time_begins_anew() -> None:
    windows = PoolWindows((Window("ci", 100, 130, WindowState.OPEN, opened_at=100),), 7)
    more = replace(CI, seats=5, who=Who(holders=("bob",)))
    assert succeeding([more], [CI], windows) == replace(windows, edited_revision=0)
    other = replace(CI, when=replace(EVERY, zone="Europe/Berlin"))
    assert succeeding([other], [CI], windows) == NO_WINDOWS
    assert succeeding([replace(CI, name="cd")], [CI], windows) == NO_WINDOWS
    assert succeeding([], [CI], windows) == NO_WINDOWS


NIGHT = Schedule("FREQ=DAILY", opens=22 * 60, closes=30 * 60)
DAY = Schedule("FREQ=DAILY", opens=6 * 60, closes=22 * 60)
NOON = Schedule("FREQ=WEEKLY;BYDAY=MO", opens=12 * 60, closes=13 * 60)
ALL = Who(holders=("*",))


def kept(name: str, seats: int, when: Schedule, who: Who = ALL) -> Reservation:
    return Reservation(name, seats, who, when)


@pytest.mark.parametrize(
    ("reservations", "expected"),
    [
        ([kept("a", 4, NIGHT), kept("b", 4, DAY)], []),  # they touch
        ([kept("a", 4, NIGHT), kept("b", 1, replace(DAY, closes=22 * 60 + 1))], [(0, "seats")]),
        ([kept("a", 2, NIGHT), kept("b", 2, NIGHT)], []),
        ([kept("a", 2, DAY), kept("b", 2, NIGHT), kept("c", 3, NOON)], [(2, "seats")]),
        # 22:00 in Berlin is 20:00 in summer: these overlap then, and not in winter.
        (
            [
                kept("a", 4, Schedule("FREQ=DAILY", 20 * 60, 20 * 60 + 30)),
                kept("b", 4, Schedule("FREQ=DAILY", 22 * 60, 22 * 60 + 30, "Europe/Berlin")),
            ],
            [(1, "seats")],
        ),
        ([kept("a", 5, NIGHT)], [(0, "seats")]),
        ([kept("a", 0, NIGHT)], [(0, "seats")]),
        ([kept("a", 1, NIGHT), kept("a", 1, DAY)], [(1, "name")]),
        ([kept("A b", 1, NIGHT)], [(0, "name")]),
        ([kept("a", 1, NIGHT, Who())], [(0, "for")]),
        ([kept("a", 1, NIGHT, Who(groups=("nothing",)))], [(0, "for.groups.0")]),
        ([kept("a", 1, NIGHT, Who(groups=("students",)))], []),
        ([kept("a", 1, NIGHT, Who(projects=("cv", "vc")))], [(0, "for.projects.1")]),
        ([kept("a", 1, NIGHT, Who(projects=("c*",)))], []),
        ([kept("a", 1, replace(NIGHT, zone="Europe/Atlantis"))], [(0, "zone")]),
        ([kept("a", 1, replace(NIGHT, closes=60 * 60))], [(0, "at")]),
        ([kept("a", 1, replace(NIGHT, rule="FREQ=SECONDLY"))], [(0, "when")]),
        # All that is wrong is said, and nothing that follows from it.
        (
            [kept("a", 9, replace(NIGHT, rule="")), kept("b", 9, NIGHT)],
            [(0, "seats"), (0, "when"), (1, "seats")],
        ),
    ],
)
def test_what_is_refused(
    reservations: list[Reservation], expected: list[tuple[int, str]]
) -> None:
    policy = PoolPolicy(
        (ProjectShare(project="cv"),),
        rules=PoolRules((HolderGroup("students", ("s-*",)),)),
        reservations=tuple(reservations),
    )
    found = reservation_faults(policy, 4, NOW)
    assert [(at, ".".join(map(str, way))) for at, way, _ in found] == expected


def test_a_closed_pool_keeps_reservations_and_too_many_are_refused() -> None:
    policy = PoolPolicy(reservations=(kept("a", 5, NIGHT),))
    assert list(reservation_faults(policy, 0, NOW)) == []
    many = PoolPolicy(reservations=tuple(kept(f"a{n}", 1, NIGHT) for n in range(17)))
    ((_, way, reason),) = reservation_faults(many, 99, NOW)
    assert (way, reason) == ((), "17 reservations are over 16")


def test_what_others_are_guaranteed_must_be_left() -> None:
    shares = (
        ProjectShare(project="cv", guaranteed=2),
        ProjectShare(project="ci", guaranteed=1),
    )
    for seats, who, is_refused in (
        (2, Who(projects=("ci",)), False),
        (3, Who(projects=("ci",)), True),
        (1, ALL, False),
        (2, ALL, True),
    ):
        policy = PoolPolicy(shares, reservations=(kept("a", seats, NIGHT, who),))
        assert bool(list(reservation_faults(policy, 4, NOW))) is is_refused
