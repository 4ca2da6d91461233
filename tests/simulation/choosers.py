"""Users that take seats of one of several pools.

Draws of their own, so that what happens in seeds without any stays as it is.
"""

from __future__ import annotations

import random

from tests.simulation.cluster import SimCluster
from tests.simulation.gangers import SeveralPools
from tests.simulation.users import SimSurroundings

from seatkeeper.chaos.users import UserRecord
from seatkeeper.client import HoldingState
from seatkeeper.core.gang import ALTERNATIVES_MAX

CHOOSERS_SHARE = 0.4
"""Share of the seeds of several pools in which there are some."""


class Chooser(SeveralPools):
    """Takes a seat of whichever of several pools serves first."""

    async def _cycle(self) -> None:
        rng = self._rng
        count = rng.randint(2, min(ALTERNATIVES_MAX, len(self._pools)))
        pools = [pool for pool, _ in rng.sample(list(self._pools), count)]
        later = sorted(rng.choice([0.0, 0.0, 0.5, 3.0]) for _ in pools[1:])
        wait = rng.choice([2.0, 5.0, 10.0])
        asked_at = self._note_asking()
        one_of = self._client.one_of(dict(zip(pools, [0.0, *later], strict=True)), wait=wait)
        if (grants := await self._take(one_of, pools, wait, asked_at)) is None:
            return
        ((pool, grant),) = grants.items()
        await self._use(
            *(pool, 1, grant.grant_id, grant.fence),
            lambda: grant.state is not HoldingState.LOST,
        )
        self.user_record.operations += 1
        await grant.release()


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
