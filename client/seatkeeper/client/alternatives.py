"""Seats of one of several pools, whichever is free first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Self, Unpack

from seatkeeper.client.gangs import SeveralPools, Tasks, explained, leave
from seatkeeper.client.session.grants import AsyncGrant, GangTerms, Keeper, SeatRequest
from seatkeeper.core.errors import GrantedElsewhere, InvalidArgument, SessionLost
from seatkeeper.core.gang import AFTER_MAX_SECONDS, ALTERNATIVES_MAX, ALTERNATIVES_MIN
from seatkeeper.core.ids import new_id

SETTLING_SECONDS = 5.0
"""How long to wait for the grant after an answer that says that another request has it."""
LOST = "one of several alternatives was answered, and no other was granted: ask for all anew"


class AsyncOneOf(SeveralPools):
    """Takes seats of one of several pools when entered, and gives them back when left."""

    def __init__(
        self,
        keeper: Keeper,
        pools: Iterable[str] | Mapping[str, float],
        *,
        seats: int = 1,
        **terms: Unpack[GangTerms],
    ) -> None:
        """Check what can be checked here; the service checks the rest. Raises `InvalidArgument`."""
        self._after = _checked(pools)
        super().__init__(keeper, terms, "one of several alternatives")
        self._seats = seats
        self._wanted = dict.fromkeys(self._after, seats)
        self._requests(self._wait)

    async def __aenter__(self) -> AsyncGrant:
        """Take the seats, waiting for them as long as was asked for; the grant says which pool's."""
        return one(await self.enter())

    def another(self) -> Self:
        """Return the same request, not entered."""
        return type(self)(self._keeper, self._after, seats=self._seats, **self._terms)

    async def _answers(self, tasks: Tasks) -> Mapping[str, AsyncGrant]:
        """Return the one grant. The others have left their queues, or do so when they are cancelled."""
        left = {task: pool for pool, task in tasks.items()}
        within: float | None = None
        while left:
            done, _ = await asyncio.wait(
                left, timeout=within, return_when=asyncio.FIRST_COMPLETED
            )
            granted = [task for task in done if task.exception() is None]
            if granted:
                grants = {left[task]: task.result() for task in granted[:1]}
                await leave(task for task in left if task is not granted[0])
                return grants
            for task in done:
                pool = left.pop(task)
                error = task.exception()
                assert error is not None
                if not isinstance(error, GrantedElsewhere | SessionLost):
                    raise explained(pool, error)
            if not done:
                break
            within = SETTLING_SECONDS
        raise SessionLost(LOST)

    def _joined(self, requests: list[SeatRequest]) -> list[SeatRequest]:
        listed = tuple(
            (each.pool, new_id(), each.wanted.seats, round(1000 * self._after[each.pool]))
            for each in requests
        )
        return [
            replace(each, wanted=replace(each.wanted, alternatives=listed)) for each in requests
        ]


def one(grants: Mapping[str, AsyncGrant]) -> AsyncGrant:
    """Return the grant of a mapping that has one."""
    (grant,) = grants.values()
    return grant


def _checked(pools: Iterable[str] | Mapping[str, float]) -> dict[str, float]:
    """Return after how many seconds each pool will do as well, in the order of preference."""
    field = "pools"
    if isinstance(pools, str):
        raise InvalidArgument('name several pools: ["a", "b"]', field=field)
    after = dict(pools) if isinstance(pools, Mapping) else dict.fromkeys(pools, 0.0)
    if not ALTERNATIVES_MIN <= len(after) <= ALTERNATIVES_MAX:
        raise InvalidArgument(
            f"there are from {ALTERNATIVES_MIN} to {ALTERNATIVES_MAX} alternatives, each another pool",
            field=field,
        )
    last = 0.0
    for number, (pool, seconds) in enumerate(after.items()):
        if not isinstance(seconds, int | float) or not last <= seconds <= AFTER_MAX_SECONDS:
            raise InvalidArgument(
                f"{pool} after {seconds}: give seconds, at most a day, none less than those before",
                field=field,
            )
        if number == 0 and seconds:
            raise InvalidArgument(f"{pool} is the first: it is wanted after 0 s", field=field)
        last = seconds
    return after
