"""Seats of several pools, taken together or not at all."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
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
from seatkeeper.client.session.requests import NO_SEATS_ASKED
from seatkeeper.client.transport.backoff import delay_seconds
from seatkeeper.core.errors import (
    InvalidArgument,
    NoSeatFree,
    Overloaded,
    SeatError,
    ServiceTooOld,
    SessionLost,
    UsageError,
)
from seatkeeper.core.gang import GANG_MAX, GANG_MIN
from seatkeeper.core.ids import new_id

ATTEMPTS_MAX = 1_000
"""Times that a gang is asked for anew, when its session is lost while it waits, or queues are full."""
Tasks = dict[str, asyncio.Task[AsyncGrant]]
"""By pool."""


class SeveralPools(ABC):
    """Requests for seats of several pools that are answered together: a gang, or alternatives."""

    _wanted: Mapping[str, int]
    """How many seats of each pool."""

    def __init__(self, keeper: Keeper, terms: GangTerms, what: str) -> None:
        """Check what can be checked here; the service checks the rest. Raises `InvalidArgument`."""
        refuse_others(GangTerms, terms)
        self._keeper = keeper
        self._terms = terms
        self._what = what
        self._wait = wait_seconds(terms.get("wait"))
        if self._wait == 0:
            raise InvalidArgument(
                f"a request for {what} waits, if only for a moment: give a wait over 0 s",
                field="wait",
            )
        self._check = terms.get("check", True)
        self._grants: Mapping[str, AsyncGrant] = {}

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

    async def enter(self) -> Mapping[str, AsyncGrant]:
        """Take the seats, for `leave` to give back; once."""
        if self._grants:
            raise UsageError(
                f"these {self._what} are entered already; ask the client for others"
            )
        self._grants = await self.take()
        return self._grants

    async def take(self) -> Mapping[str, AsyncGrant]:
        """Take the seats, for the caller to release; return the grants by pool.

        Raises what `AsyncSeatClient.acquire` raises, and `ServiceTooOld`; then nothing is held.
        """
        deadline = None if self._wait is None else self._keeper.now() + self._wait
        for attempt in range(1, ATTEMPTS_MAX + 1):
            left = None if deadline is None else deadline - self._keeper.now()
            if left is not None and left <= 0:
                raise NoSeatFree(self._none_free())
            try:
                return await self._take_once(left)
            except (SessionLost, Overloaded) as error:
                # Ids of a clock that was set back are completed until it has caught up.
                delay = delay_seconds(attempt, BACKOFF, random=random.random())
                left = None if deadline is None else deadline - self._keeper.now()
                if left is not None and left <= 0 and isinstance(error, SessionLost):
                    raise NoSeatFree(self._none_free()) from error
                if attempt == ATTEMPTS_MAX or (left is not None and delay >= left):
                    raise
                await asyncio.sleep(delay)
        raise AssertionError("unreachable")

    def _none_free(self) -> str:
        return f"no seats became free in time, of {', '.join(self._wanted)}"

    async def _take_once(self, wait: float | None) -> Mapping[str, AsyncGrant]:
        tasks = {
            request.pool: asyncio.create_task(self._keeper.take(request))
            for request in self._requests(wait)
        }
        try:
            return await self._answers(tasks)
        except BaseException:
            await leave(tasks.values())
            raise

    @abstractmethod
    async def _answers(self, tasks: Tasks) -> Mapping[str, AsyncGrant]:
        """Wait for the answers; raise the first that is a failure for all of them."""

    def _requests(self, wait: float | None) -> list[SeatRequest]:
        found = []
        for pool, seats in self._wanted.items():
            request = SeatRequest.of(
                pool,
                seats=seats,
                wait=wait,
                project=self._terms.get("project", ""),
                priority=self._terms.get("priority", 0),
                labels=self._terms.get("labels"),
                cost_class=self._terms.get("cost_class", ""),
                token=self._terms.get("token", False),
                on_queued=self._terms.get("on_queued"),
                on_state=self._terms.get("on_state"),
            )
            found.append(request)
        return self._joined(found)

    @abstractmethod
    def _joined(self, requests: list[SeatRequest]) -> list[SeatRequest]:
        """Return the requests, each with what it says of the others."""


class AsyncGang(SeveralPools):
    """Takes seats of several pools when entered, all together, and gives all back when left."""

    def __init__(
        self, keeper: Keeper, seats: Mapping[str, int], **terms: Unpack[GangTerms]
    ) -> None:
        """Check what can be checked here; the service checks the rest. Raises `InvalidArgument`."""
        if not isinstance(seats, Mapping) or not GANG_MIN <= len(seats) <= GANG_MAX:
            raise InvalidArgument(
                f"a gang has from {GANG_MIN} to {GANG_MAX} pools, each with its seats: "
                '{"a": 1, "b": 2}',
                field="seats",
            )
        super().__init__(keeper, terms, "all pools of a gang")
        self._wanted = dict(seats)
        self._requests(self._wait)

    async def __aenter__(self) -> Mapping[str, AsyncGrant]:
        """Take the seats, waiting for them as long as was asked for; return the grants by pool."""
        return await self.enter()

    def another(self) -> Self:
        """Return the same request, not entered."""
        return type(self)(self._keeper, self._wanted, **self._terms)

    async def _answers(self, tasks: Tasks) -> Mapping[str, AsyncGrant]:
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        for pool, task in tasks.items():
            if task.done() and (error := task.exception()) is not None:
                if type(error) is NoSeatFree:
                    # Of all of them, and not of the one whose answer came first.
                    raise NoSeatFree(self._none_free()) from error
                raise explained(pool, error)
        return {pool: task.result() for pool, task in tasks.items()}

    def _joined(self, requests: list[SeatRequest]) -> list[SeatRequest]:
        gang = tuple((each.pool, new_id(), each.wanted.seats) for each in requests)
        return [replace(each, wanted=replace(each.wanted, gang=gang)) for each in requests]


BACKOFF = BackoffConfig()


def explained(pool: str, error: BaseException) -> BaseException:
    """Return a failure of one pool as what it means for a request for seats of several."""
    if isinstance(error, InvalidArgument) and NO_SEATS_ASKED in str(error):
        return ServiceTooOld(
            "the node that was asked does not know requests for seats of several pools; upgrade it"
        )
    names = (f"pool {pool} ", f"pool {pool!r}")
    if isinstance(error, SeatError) and not any(each in f"{error} " for each in names):
        error.args = (f"{pool}: {error}", *error.args[1:])
    return error


async def leave(tasks: Iterable[asyncio.Task[AsyncGrant]]) -> None:
    """Give back what was granted, and leave the queues: all of it, before this is first interrupted."""
    asked = list(tasks)
    # One that is cancelled in the moment in which it is granted gives that back by itself.
    ended = [task for task in asked if not task.cancel() and not task.cancelled()]
    given = [task.result().give_back() for task in ended if task.exception() is None]
    await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.gather(*(each for each in given if each is not None))
