"""Seats that are kept after a release or a loss, in simulation: drawn for some seeds, checked in all.

Draws of its own, so that what happens in seeds without them stays as it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from tests.simulation.cluster import SimCluster
from tests.simulation.users import SimSurroundings

from seatkeeper.chaos.users import StubUser, User, UserRecord
from seatkeeper.server.domain import PoolPolicy, StayRule
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

STAYS_SHARE = 0.35
"""Share of the seeds in which pools keep seats."""
GONE_SECONDS = (0.0, 4.0)
"""How long after the end of its lease one that was lost comes back."""


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


class Returner(StubUser):
    """Takes a seat, lets its session end, and asks for the same grant in a new one."""

    async def _cycle(self) -> None:
        await self._open()
        credentials = self._credentials
        if credentials is None:
            return
        pool, seats, wait = self._choose()
        acquire = seat_pb2.Acquire(pool=pool, grant_id=self._new_id(), seats=seats)
        acquire.wait.FromTimedelta(timedelta(seconds=wait))
        self._note_asking()
        for _ in range(self._rng.choice([2, 3])):
            request = pb.AcquireRequest(credentials=credentials, acquire=acquire)
            timeout = wait + 2.0
            answer = await self._insist(
                lambda stub, request=request, timeout=timeout: stub.Acquire(  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                    request, timeout=timeout
                )
            )
            if answer is None:
                return
            here, now = self.surroundings, self.surroundings.now()
            note = f"{self.name}: has {acquire.grant_id} of {pool} under {answer.granted.fence}"
            here.note(note)
            self.user_record.operations += 1
            await asyncio.sleep(self._rng.uniform(0.0, 1.0))
            if self._renewing is not None:
                self._renewing.cancel()
            self._credentials, self._safe_until = None, 0.0
            await asyncio.sleep(self.ttl + self._rng.uniform(*GONE_SECONDS))
            if now > self.stop_at:
                return
            await self._open()
            credentials = self._credentials
            if credentials is None:
                return
            acquire.wait.FromTimedelta(timedelta(0))
            wait = 0.0
        await self._end()
        self._credentials, self._safe_until = None, 0.0
