"""How many seats two teams save by one pool with guarantees, where each had a pool: in virtual time.

No node and no store: a month of requests is played through the decisions of nodes
(``seatkeeper.server.replay``), once for each number of seats that is tried. A team's requests come at
random (Poisson) at a rate that follows its working day, with quiet nights and weekends, and hold their
seats for a random time (log-normal, mean an hour). *Enough* seats are the fewest with which 95 % of
**each** team's requests are served within a quarter of an hour.

- ``seats_saved_pct``: two teams whose clocks are eight hours apart, so that their days overlap by two
  hours. Split, each has a pool of its own, with seats that are enough for it. Shared, they have one
  pool, in which each is guaranteed its part of the seats, in the proportion of the split pools, and
  what is idle is lent. The least of all seeds.
- ``control_saved_pct``: the same with teams that want seats in the same moments: each request of
  the one comes with one of the other, as long. Then no team ever has an idle seat that the other could
  use, a pool for both needs what two pools need, and the truth is 0 but for one odd seat: two teams
  of 15 may find 29 enough. What is saved here beyond that would be an error of the measurement, or
  somebody's wait. The most of all seeds.
- ``chance_saved_pct``: between the two, and without a bar: teams with the same working hours, whose
  requests come independently of each other. Their days peak together, and their minutes do not,
  so one pool still needs fewer seats: the smaller the teams, the more. That part of the saving is
  not owed to the hours that they keep. The most of all seeds.

``split_seats`` and ``shared_seats`` are medians; ``lent_pct`` is how much of the seat time used in the
shared pool was lent out of idle guarantees.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report import median, notify, parser, progress, run
from seatkeeper.server.domain import NO_POLICY, Instant, PoolPolicy, PoolSpec, ProjectShare
from seatkeeper.server.replay.demand import Arrival
from seatkeeper.server.replay.fewest import WaitBound, fewest_seats
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.replay import replay

SEEDS = 10
DAYS = 30
HOUR = 3_600_000
"""Milliseconds."""
PEAK_SEATS = 12
"""Seats that a team uses in the mean in its busiest hours, if it never waits."""
HOLD_HOURS = 1.0
HOLD_SPREAD = 1.0
"""Standard deviation of a hold's logarithm: a twentieth of the holds are over three hours."""
HOLD_HOURS_MAX = 24.0
BOUND = WaitBound(percent=95, wait_millis=HOUR // 4)
APART_HOURS = 8
# By the hour of the team's own day: what it asks for, against its busiest hours.
WORKDAY = (
    *(0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.2, 0.6, 0.9, 1.0, 1.0),
    *(0.8, 0.9, 1.0, 1.0, 0.9, 0.6, 0.3, 0.2, 0.1, 0.1, 0.05, 0.05),
)
WEEKEND = 0.15
"""Of a workday's rates."""


@dataclass(frozen=True)
class Compared:
    """How many seats are enough for the same demand, split and shared."""

    split: int
    shared: Outcome

    @property
    def saved_pct(self) -> float:
        """How many fewer the shared pool has; under 0: it has more."""
        return 100 * (1 - self.shared.spec.seats / self.split)


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument(
        "--seeds", type=int, default=SEEDS, metavar="N", help=f"seeds; default: {SEEDS}"
    )
    options.add_argument(
        "--days", type=int, default=DAYS, metavar="N", help=f"of demand; default: {DAYS}"
    )
    arguments = options.parse_args()
    began = time.perf_counter()
    apart: list[Compared] = []
    together: list[Compared] = []
    by_chance: list[Compared] = []
    for seed in range(arguments.seeds):
        rng = random.Random(seed)
        here = demand("here", rng, days=arguments.days)
        there = demand("there", rng, days=arguments.days, behind_hours=APART_HOURS)
        beside = demand("there", rng, days=arguments.days)
        seats = enough_alone(here)
        apart.append(compared(here, there, seats, enough_alone(there)))
        together.append(compared(here, of_project("there", here), seats, seats))
        by_chance.append(compared(here, beside, seats, enough_alone(beside)))
        found = (each[-1].saved_pct for each in (apart, together, by_chance))
        words = "seed {}: {:.1f} % saved; {:.1f} % in step; {:.1f} % in the same hours"
        progress(words.format(seed, *found))
    notify(
        {
            "seeds": arguments.seeds,
            "days": arguments.days,
            "requests": int(median([len(each.shared.requests) for each in apart])),
            "seats_saved_pct": min(each.saved_pct for each in apart),
            "seats_saved_pct_median": median([each.saved_pct for each in apart]),
            "control_saved_pct": max(each.saved_pct for each in together),
            "control_saved_pct_median": median([each.saved_pct for each in together]),
            "chance_saved_pct": max(each.saved_pct for each in by_chance),
            "chance_saved_pct_median": median([each.saved_pct for each in by_chance]),
            "split_seats": median([each.split for each in apart]),
            "shared_seats": median([each.shared.spec.seats for each in apart]),
            "wait_p95_s": max(
                team.waits.p95 for each in apart for team in each.shared.projects.values()
            ),
            "lent_pct": median([100 * each.shared.lent / each.shared.used for each in apart]),
            "seconds": time.perf_counter() - began,
        },
        arguments.json,
    )


def demand(
    project: str, rng: random.Random, *, days: int = DAYS, behind_hours: int = 0
) -> list[Arrival]:
    """Return what a team asks for. Its clock is so many hours behind the service's.

    The first day is a Monday.
    """
    mean_log = math.log(HOLD_HOURS) - HOLD_SPREAD**2 / 2
    found = []
    for hour in range(24 * days):
        local = hour - behind_hours
        weekday, hour_of_day = divmod(local % (7 * 24), 24)
        rate = PEAK_SEATS / HOLD_HOURS * WORKDAY[hour_of_day] * (WEEKEND if weekday > 4 else 1)
        at = rng.expovariate(rate)
        while at < 1:
            hold = min(rng.lognormvariate(mean_log, HOLD_SPREAD), HOLD_HOURS_MAX)
            found.append(
                Arrival(
                    at=Instant(int((hour + at) * HOUR)),
                    project=project,
                    hold_millis=int(hold * HOUR),
                )
            )
            at += rng.expovariate(rate)
    return found


def of_project(project: str, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return the same demand of another team."""
    return [
        Arrival(at=each.at, project=project, hold_millis=each.hold_millis) for each in arrivals
    ]


def enough_alone(arrivals: Sequence[Arrival]) -> int:
    """Return how many seats are enough for a team in a pool of its own."""

    def play(seats: int) -> Outcome:
        return replay(PoolSpec("alone", seats, policy=NO_POLICY), arrivals)

    found = fewest_seats(play, BOUND, least=PEAK_SEATS // 2, most=4 * PEAK_SEATS)
    assert found is not None, "four times what a team uses in its busiest hours"
    return found.spec.seats


def compared(
    here: Sequence[Arrival], there: Sequence[Arrival], seats_here: int, seats_there: int
) -> Compared:
    """Return how many seats are enough for both teams in one pool, beside two pools of their own."""
    split = seats_here + seats_there
    arrivals = [*here, *there]

    def play(seats: int) -> Outcome:
        guaranteed = seats * seats_here // split
        shares = (
            ProjectShare(project="here", guaranteed=guaranteed),
            ProjectShare(project="there", guaranteed=seats * seats_there // split),
        )
        return replay(PoolSpec("shared", seats, policy=PoolPolicy(shares)), arrivals)

    # Half of them is the fewest that is looked for: more than that is not claimed to be saved.
    found = fewest_seats(play, BOUND, least=split // 2, most=split)
    found = found or fewest_seats(play, BOUND, least=split + 1, most=2 * split)
    assert found is not None, "twice as many as two pools"
    return Compared(split, found)


if __name__ == "__main__":
    run(main)
