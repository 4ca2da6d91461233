"""Holders that take over their own live seats in another session, in simulation: in some seeds.

Draws of its own, so that what happens in seeds without them stays as it is.
"""

from __future__ import annotations

import random
from datetime import timedelta

from tests.simulation.cluster import SimCluster
from tests.simulation.users import SimSurroundings

from seatkeeper.chaos.users import StubUser, User, UserRecord
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

MOVERS_SHARE = 0.3
"""Share of the seeds that have any."""
MOVES_MAX = 3


def movers(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[User]:
    """Return those of a seed."""
    own = random.Random(f"movers of {seed}")
    if own.random() >= MOVERS_SHARE:
        return []
    return [
        Mover(
            SimSurroundings(cluster, f"mover-{n}", own), user_record, list(pools.items()), own
        )
        for n in range(own.randrange(1, 4))
    ]


class Mover(StubUser):
    """Takes a seat, and takes it over in one new session after the other; the old ones may live on."""

    async def _cycle(self) -> None:
        await self._open()
        pool, seats, wait = self._choose()
        acquire = seat_pb2.Acquire(pool=pool, grant_id=self._new_id(), seats=seats)
        acquire.wait.FromTimedelta(timedelta(seconds=wait))
        self._note_asking()
        before: list[tuple[pb.SessionCredentials, str]] = []
        for _ in range(1 + self._rng.randint(1, MOVES_MAX)):
            if (credentials := self._credentials) is None:
                return
            timeout = wait + 2.0
            request = pb.AcquireRequest(credentials=credentials, acquire=acquire)
            answer = await self._insist(
                lambda stub, request=request, timeout=timeout: stub.Acquire(  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                    request, timeout=timeout
                )
            )
            if answer is None:
                return
            grant_id, granted = acquire.grant_id, answer.granted
            fence = granted.fence
            self.surroundings.note(f"{self.name}: has {grant_id} of {pool} under {fence}")
            self.user_record.operations += 1
            if before and self._rng.random() < 0.3:
                await self._release(pool, *before[-1])  # what it has no more
            await self._use(
                *(pool, granted.seats, grant_id, fence),
                lambda credentials=credentials: (  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                    self._credentials is credentials and self._is_safe()
                ),
            )
            before.append((credentials, grant_id))
            acquire = seat_pb2.Acquire(pool=pool, grant_id=self._new_id(), take_over=grant_id)
            wait = 0.0
            await self._open()
        await self._release(pool, *before[-1])

    async def _release(
        self, pool: str, credentials: pb.SessionCredentials, grant_id: str
    ) -> None:
        ref = pb.GrantRef(pool=pool, grant_id=grant_id)
        request = pb.ReleaseRequest(credentials=credentials, release=pb.Release(grant=ref))
        await self._insist(lambda stub: stub.Release(request, timeout=2.0))
