"""Users that take seats of several pools at once.

Draws of their own, so that what happens in seeds without any stays as it is.
"""

from __future__ import annotations

import random

from tests.simulation.cluster import SimCluster
from tests.simulation.users import SimSurroundings

from seatkeeper.chaos.joint_users import Ganger
from seatkeeper.chaos.users import UserRecord

GANGS_SHARE = 0.5
"""Share of the seeds of several pools in which there are some."""


def gangers(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[Ganger]:
    """Return those of a seed."""
    own = random.Random(f"gangs of {seed}")
    if len(pools) < 2 or own.random() >= GANGS_SHARE:
        return []
    return [
        Ganger(
            SimSurroundings(cluster, f"ganger-{n}", own), user_record, list(pools.items()), own
        )
        for n in range(own.randrange(1, 4))
    ]
