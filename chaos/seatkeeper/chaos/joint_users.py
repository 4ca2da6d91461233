"""Users that ask for seats of several pools by one request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial

from seatkeeper.chaos.users import LibraryUser
from seatkeeper.client import (
    AsyncGang,
    AsyncGrant,
    AsyncOneOf,
    HoldingState,
    NoSeatFree,
    SeatError,
    ServiceUnavailable,
)
from seatkeeper.core.gang import ALTERNATIVES_MAX
from seatkeeper.oracle.record import Denied


class SeveralPools(LibraryUser):
    """Asks for seats of several pools by one request, and gives up early now and then."""

    async def _take(
        self,
        several: AsyncGang | AsyncOneOf,
        pools: Iterable[str],
        wait: float,
        asked_at: float,
    ) -> Mapping[str, AsyncGrant] | None:
        """Return what is granted, by pool; None: nothing, and why is noted."""
        rng, here = self._rng, self.surroundings
        asking = asyncio.ensure_future(several.take())
        if rng.random() < self.habits.give_up:
            await asyncio.wait({asking}, timeout=rng.uniform(0.0, 1.0))
            asking.cancel()
        try:
            return await asking
        except NoSeatFree:
            for pool in pools:
                self.user_record.note(Denied(self.name, pool, asked_at, here.now(), wait))
        except (SeatError, asyncio.CancelledError) as error:
            here.note(f"{self.name}: failed: {type(error).__name__}")
            if isinstance(error, ServiceUnavailable):
                self.user_record.unserved.append((self.name, here.now()))
        return None


class Ganger(SeveralPools):
    """Takes seats of two pools at once."""

    async def _cycle(self) -> None:
        rng = self._rng
        pools = rng.sample(list(self._pools), 2)
        seats = {pool: rng.choice([1, 1, min(2, capacity)]) for pool, capacity in pools}
        wait = min(rng.choice([5.0, 10.0, 20.0]), self.habits.wait_max)
        asked_at = self._note_asking()
        gang = self._client.gang(seats, wait=wait)
        if (grants := await self._take(gang, seats, wait, asked_at)) is not None:
            await self._use_all(seats, grants)

    async def _use_all(
        self, seats: Mapping[str, int], grants: Mapping[str, AsyncGrant]
    ) -> None:
        def is_safe(grant: AsyncGrant) -> bool:
            return grant.state is not HoldingState.LOST

        await asyncio.gather(
            *(
                self._use(
                    *(pool, seats[pool], grant.grant_id, grant.fence), partial(is_safe, grant)
                )
                for pool, grant in grants.items()
            )
        )
        self.user_record.operations += 1
        for grant in grants.values():
            await grant.release()


class Chooser(SeveralPools):
    """Takes a seat of whichever of several pools serves first."""

    async def _cycle(self) -> None:
        rng = self._rng
        count = rng.randint(2, min(ALTERNATIVES_MAX, len(self._pools)))
        pools = [pool for pool, _ in rng.sample(list(self._pools), count)]
        later = sorted(rng.choice([0.0, 0.0, 0.5, 3.0]) for _ in pools[1:])
        wait = min(rng.choice([2.0, 5.0, 10.0]), self.habits.wait_max)
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
