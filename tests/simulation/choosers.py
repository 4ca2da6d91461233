"""Users that take seats of one of several pools.

Draws of their own, so that what happens in seeds without any stays as it is.
"""

from __future__ import annotations

import random

from tests.simulation.cluster import SimCluster
from tests.simulation.users import SimSurroundings

from seatkeeper.chaos.joint_users import Chooser
from seatkeeper.chaos.users import UserRecord

CHOOSERS_SHARE = 0.4
"""Share of the seeds of several pools in which there are some."""


def choosers(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[Chooser]:
    """Return those of a seed."""
    own = random.Random(f"alternatives of {seed}")
    if len(pools) < 2 or own.random() >= CHOOSERS_SHARE:
        return []
    return [
        Chooser(
            SimSurroundings(cluster, f"chooser-{n}", own), user_record, list(pools.items()), own
        )
        for n in range(own.randrange(1, 4))
    ]
