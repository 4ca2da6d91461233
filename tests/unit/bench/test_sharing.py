"""The demand that is measured with, and how many seats it is said to need."""

from __future__ import annotations

import random
from collections import Counter

from bench.sharing import BOUND, HOUR, compared, demand, enough_alone, of_project

DAYS = 5


def test_days_are_busy_nights_and_weekends_are_quiet() -> None:
    month = demand("here", random.Random(1))
    by_hour = Counter(each.at // HOUR for each in month)
    workdays = [day for day in range(30) if day % 7 < 5]
    noon = sum(by_hour[24 * day + 11] for day in workdays) / len(workdays)
    night = sum(by_hour[24 * day + 3] for day in workdays) / len(workdays)
    weekend = sum(by_hour[24 * day + 11] for day in range(30) if day % 7 > 4) / 8
    assert 10 < noon < 14
    assert night < 2
    assert weekend < 4
    mean_hours = sum(each.hold_millis for each in month) / len(month) / HOUR
    assert 0.9 < mean_hours < 1.1


def test_a_clock_that_is_behind_has_its_busy_hours_later() -> None:
    by_hour = Counter(
        each.at // HOUR % 24 for each in demand("there", random.Random(2), behind_hours=8)
    )
    assert sum(by_hour[hour] for hour in (18, 19, 22, 23)) > 3 * sum(
        by_hour[hour] for hour in (10, 11, 14, 15)
    )


def test_teams_apart_share_fewer_seats_and_teams_in_step_do_not() -> None:
    rng = random.Random(3)
    here = demand("here", rng, days=DAYS)
    there = demand("there", rng, days=DAYS, behind_hours=8)
    seats, seats_there = enough_alone(here), enough_alone(there)
    apart = compared(here, there, seats, seats_there)
    in_step = compared(here, of_project("there", here), seats, seats)
    assert apart.split == seats + seats_there
    assert apart.saved_pct >= 20
    assert in_step.shared.spec.seats >= in_step.split - 1, "an odd seat, and no more"
    for each in (apart, in_step):
        assert BOUND.is_kept(each.shared)
        shares = each.shared.spec.policy.projects
        assert all(share.guaranteed > 0 for share in shares)
        assert sum(share.guaranteed for share in shares) <= each.shared.spec.seats
    assert apart.shared.lent > 0


def test_the_same_seed_is_the_same_demand() -> None:
    assert demand("here", random.Random(4)) == demand("here", random.Random(4))
    assert demand("here", random.Random(4)) != demand("here", random.Random(5))
