"""How many seats would be enough."""

from __future__ import annotations

from seatkeeper.server.domain import Instant, PoolSpec
from seatkeeper.server.replay.demand import Arrival
from seatkeeper.server.replay.fewest import WaitBound, fewest_seats, seats_at_once
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.replay import replay


def at_once(count: int, seats: int = 1, wait: int | None = None) -> list[Arrival]:
    """So many that come at once, and hold a minute each."""
    return [
        Arrival(
            at=Instant(1000), project="a", hold_millis=60_000, seats=seats, wait_millis=wait
        )
        for _ in range(count)
    ]


def fewest(
    demand: list[Arrival], bound: WaitBound, most: int = 100, least: int = 1
) -> int | None:
    played: dict[int, Outcome] = {}

    def play(seats: int) -> Outcome:
        assert seats not in played, "none is played twice"
        played[seats] = replay(PoolSpec("pool", seats), demand)
        return played[seats]

    found = fewest_seats(play, bound, most=most, least=least)
    if found is None:
        return None
    seats = found.spec.seats
    assert bound.is_kept(played[seats])
    assert seats == least or not bound.is_kept(played[seats - 1])
    assert len(played) <= 8
    return seats


def test_the_fewest_seats_that_keep_a_bound_are_found() -> None:
    demand = at_once(20)
    assert fewest(demand, WaitBound(100, 0)) == 20
    assert fewest(demand, WaitBound(95, 0)) == 19, "one in twenty may wait longer"
    assert fewest(demand, WaitBound(100, 60_000)) == 10
    assert fewest(demand, WaitBound(100, 10**9)) == 1
    assert fewest(demand, WaitBound(100, 10**9), least=7) == 7
    assert fewest(demand, WaitBound(100, 60_000), most=9) is None


def test_who_is_refused_was_not_served_in_time() -> None:
    assert fewest(at_once(20, wait=0), WaitBound(100, 10**9)) == 20
    assert fewest(at_once(2, seats=5), WaitBound(100, 60_000)) == 5


def test_each_project_counts_for_itself() -> None:
    other = Arrival(at=Instant(2000), project="b", hold_millis=1000)
    assert fewest([*at_once(99), other], WaitBound(90, 0)) == 100


def test_how_many_seats_are_ever_wanted_at_once() -> None:
    def a(at: int, hold: int, seats: int = 1) -> Arrival:
        return Arrival(at=Instant(1000 + at), project="a", hold_millis=hold, seats=seats)

    assert seats_at_once([]) == 1
    assert seats_at_once([a(0, 10), a(5, 10, 2), a(14, 1, 3)]) == 5
    assert seats_at_once([a(0, 10, 2), a(10, 10, 2)]) == 2, "what ends is given back first"
    assert seats_at_once([a(0, 0, 4)]) == 4
