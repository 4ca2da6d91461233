"""Seats of several pools, taken together or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

from seatkeeper.client.config.options import refuse_others
from seatkeeper.client.config.values import BackoffConfig
from seatkeeper.client.session.grants import (
    AsyncGrant,
    GangTerms,
    Keeper,
    SeatRequest,
    notify_loss,
    wait_seconds,
)
from seatkeeper.client.transport.backoff import delay_seconds
from seatkeeper.core.errors import (
    InvalidArgument,
    NoSeatFree,
    Overloaded,
    ServiceTooOld,
    SessionLost,
    UsageError,
)
from seatkeeper.core.gang import GANG_MAX, GANG_MIN
from seatkeeper.core.ids import new_id

ATTEMPTS_MAX = 1_000
"""Times that a gang is asked for anew, when its session is lost while it waits, or queues are full."""
Member = tuple[str, str, int]
"""A pool, the id of the request for its seats, and how many."""


class AsyncGang:
    """Takes seats of several pools when entered, all together, and gives all back when left."""

    def __init__(
        self, keeper: Keeper, seats: Mapping[str, int], **terms: Unpack[GangTerms]
    ) -> None:
        """Check what can be checked here; the service checks the rest. Raises `InvalidArgument`."""
        refuse_others(GangTerms, terms)
        if not isinstance(seats, Mapping) or not GANG_MIN <= len(seats) <= GANG_MAX:
            raise InvalidArgument(
                f"a gang has from {GANG_MIN} to {GANG_MAX} pools, each with its seats: "
                '{"a": 1, "b": 2}',
                field="seats",
            )
        self._keeper = keeper
        self._seats = dict(seats)
        self._terms = terms
        self._wait = wait_seconds(terms.get("wait"))
        if self._wait == 0:
            raise InvalidArgument(
                "a gang waits, if only for a moment: give it a wait over 0 s", field="wait"
            )
        self._check = terms.get("check", True)
        self._requests(self._wait)
        self._grants: Mapping[str, AsyncGrant] = {}

    async def __aenter__(self) -> Mapping[str, AsyncGrant]:
        """Take the seats, waiting for them as long as was asked for; return the grants by pool."""
        if self._grants:
            raise UsageError("this gang is entered already; ask the client for another")
        self._grants = await self.take()
        return self._grants

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the seats back.

        Raises `SeatLost` when any were lost before, unless the body raised something itself or
        ``check`` is False.
        """
        losses = [
            loss for grant in self._grants.values() if (loss := grant._loss()) is not None
        ]
        await self.leave()
        for loss in losses:
            notify_loss(loss, error, check=self._check)

    async def leave(self) -> None:
        """Give back what is held: all of it, before this is first interrupted."""
        grants, self._grants = self._grants, {}
        given = [grant.give_back() for grant in grants.values()]
        await asyncio.gather(*(each for each in given if each is not None))

    @property
    def is_checked(self) -> bool:
        """Whether leaving raises `SeatLost` when any of the seats were lost meanwhile."""
        return self._check

    def another(self) -> Self:
        """Return the same request, not entered."""
        return type(self)(self._keeper, self._seats, **self._terms)

    async def take(self) -> Mapping[str, AsyncGrant]:
        """Take the seats, for the caller to release; return the grants by pool.

        Raises what `AsyncSeatClient.acquire` raises, and `ServiceTooOld`; then nothing is held.
        """
        deadline = None if self._wait is None else self._keeper.now() + self._wait
        for attempt in range(1, ATTEMPTS_MAX + 1):
            left = None if deadline is None else deadline - self._keeper.now()
            if left is not None and left <= 0:
                raise NoSeatFree("no seats became free in time, of all pools at once")
            try:
                return await self._take_once(left)
            except (SessionLost, Overloaded):
                # Ids of a clock that was set back are completed until it has caught up.
                delay = delay_seconds(attempt, BACKOFF, random=random.random())
                if attempt == ATTEMPTS_MAX or (left is not None and delay >= left):
                    raise
                await asyncio.sleep(delay)
        raise AssertionError("unreachable")

    async def _take_once(self, wait: float | None) -> Mapping[str, AsyncGrant]:
        tasks = [
            asyncio.create_task(self._keeper.take(request)) for request in self._requests(wait)
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = [task for task in tasks if task.done() and task.exception() is not None]
            if not failed:
                return dict(zip(self._seats, [task.result() for task in tasks], strict=True))
            error = failed[0].exception()
            assert error is not None
            raise _explained(error)
        except BaseException:
            await _leave(tasks)
            raise

    def _requests(self, wait: float | None) -> list[SeatRequest]:
        gang = tuple((pool, new_id(), seats) for pool, seats in self._seats.items())
        found = []
        for pool, seats in self._seats.items():
            request = SeatRequest.of(
                pool,
                seats=seats,
                wait=wait,
                project=self._terms.get("project", ""),
                priority=self._terms.get("priority", 0),
                labels=self._terms.get("labels"),
                cost_class=self._terms.get("cost_class", ""),
                token=self._terms.get("token", False),
                on_state=self._terms.get("on_state"),
            )
            found.append(replace(request, wanted=replace(request.wanted, gang=gang)))
        return found


BACKOFF = BackoffConfig()
NOT_KNOWN = "0 seats asked"
"""What nodes say that do not know gangs: they see a request for no seats."""


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, InvalidArgument) and NOT_KNOWN in str(error):
        return ServiceTooOld(
            "the node that was asked does not know requests for seats of several pools; upgrade it"
        )
    return error


async def _leave(tasks: list[asyncio.Task[AsyncGrant]]) -> None:
    """Give back what was granted, and leave the queues: all of it, before this is first interrupted."""
    # One that is cancelled in the moment in which it is granted gives that back by itself.
    ended = [task for task in tasks if not task.cancel() and not task.cancelled()]
    given = [task.result().give_back() for task in ended if task.exception() is None]
    await asyncio.wait(tasks)
    await asyncio.gather(*(each for each in given if each is not None))
