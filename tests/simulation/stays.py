"""Seats that are kept after a release or a loss, in simulation: drawn for some seeds, checked in all.

Draws of its own, so that what happens in seeds without them stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from tests.simulation.cluster import SimCluster
from tests.simulation.users import SimSurroundings

from seatkeeper.chaos.policy_users import Returner
from seatkeeper.chaos.users import User, UserRecord
from seatkeeper.server.domain import PoolPolicy, StayRule

STAYS_SHARE = 0.35
"""Share of the seeds in which pools keep seats."""


def with_stays(seed: int, policies: Callable[[int], PoolPolicy]) -> Callable[[int], PoolPolicy]:
    """Return what draws the policies of a seed's pools, which keep seats in some seeds."""
    own = random.Random(f"stays of {seed}")
    if own.random() >= STAYS_SHARE:
        return policies

    def time(share: float, *seconds: float) -> timedelta | None:
        return timedelta(seconds=own.choice(seconds)) if own.random() < share else None

    def drawn(seats: int) -> PoolPolicy:
        rule = StayRule(time(0.6, 1.0, 2.0), time(0.6, 2.0, 4.0), time(0.4, 1.0, 3.0))
        policy = policies(seats)
        return replace(policy, stay=rule) if rule.linger or rule.outlives else policy

    return drawn


def returners(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[User]:
    """Return some users that lose their sessions and come back, where a pool keeps seats for them."""
    own = random.Random(f"returners of {seed}")
    keeping = [
        (name, seats)
        for name, seats in pools.items()
        if (rule := cluster.shared[name].stay) is not None and rule.resurrection is not None
    ]
    return [
        Returner(SimSurroundings(cluster, f"returner-{n}", own), user_record, keeping, own)
        for n in range(own.randrange(1, 3))
        if keeping
    ]
