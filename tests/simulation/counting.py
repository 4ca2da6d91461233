"""Advisory pools and costs in simulation: drawn for some seeds, and checked in all.

Draws of its own, so that what happens in seeds without any stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial

from tests.simulation.cluster import SimCluster

from seatkeeper.chaos.users import LibraryUser, User
from seatkeeper.core.counting import PLAIN, ClassCost, Counting

COSTS_SHARE = 0.2
"""Share of the seeds in which seats cost more by class."""
ADVISORY_SHARE = 0.2
"""Share of the seeds in which pools are advisory now and then."""
ADVISORY_SECONDS = 6.0
"""Mean time between two changes of that."""
UNBOUNDED = 1_000_000
"""The seats that users may believe in, all together, where a pool was advisory."""


def counting_of(seed: int) -> Counting:
    """Return how the pools of a seed count at its beginning."""
    own = random.Random(f"costs of {seed}")
    if own.random() >= COSTS_SHARE:
        return PLAIN
    return Counting(costs=(ClassCost("a100", own.choice([2, 2, 3])), ClassCost("t4", 1)))


def name_classes(users: Iterable[User], seed: int) -> None:
    """Have users name cost classes, where pools have any."""
    if counting_of(seed) == PLAIN:
        return
    own = random.Random(f"classes of {seed}")
    for user in users:
        if isinstance(user, LibraryUser):
            user.classes = own


def change_counting(
    cluster: SimCluster, pools: dict[str, int], seed: int, until: float
) -> None:
    """Have pools begin to count only, and bind again, in some seeds."""
    own = random.Random(f"advisory pools of {seed}")
    if own.random() >= ADVISORY_SHARE:
        return
    moment = cluster.world.now
    while moment < until:
        name = own.choice(sorted(pools))
        cluster.most[name] = UNBOUNDED
        change = partial(cluster.advise, name, own.random() < 0.6)
        cluster.world.call_at(moment, change)
        moment += own.expovariate(1 / ADVISORY_SECONDS)
