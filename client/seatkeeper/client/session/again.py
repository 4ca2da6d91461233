"""Seats that were lost with their session, and are asked for again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import timedelta

from seatkeeper.client.session.grants import AsyncGrant, SeatRequest, wait_seconds
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.core.errors import UsageError


class TakesAgain(ABC):
    """A client that asks for grants again."""

    @abstractmethod
    async def take(self, request: SeatRequest) -> AsyncGrant:
        """Take what ``request`` says."""

    async def take_again(
        self, grant: AsyncGrant, *, wait: float | timedelta | None = None
    ) -> AsyncGrant:
        """Take seats that were lost with their session again: the same grant, with a new fence.

        For pools that keep the seats of a lost session for its holder, by their rule `resurrection`,
        and within that time: then it comes before all that wait. What was begun under the old fence is
        stale. Where nothing is kept any more it is a new request, which waits as any other, under
        another id; ``wait`` as for `acquire`. While the old lease lives it waits for that to end, for
        two minutes at most. The session is a new one: other grants of the old one are lost as well.

        Raises `UsageError` while the seats are not lost, after their release, and for seats that were
        asked for together with those of other pools; otherwise as `acquire` does.
        """
        return await self.take(wanted_again(grant, wait))


def wanted_again(grant: AsyncGrant, wait: float | timedelta | None) -> SeatRequest:
    """Return what asks for a grant again that was lost. Raises `UsageError` for one that was not."""
    held = grant._held
    if grant._released or grant.state is not HoldingState.LOST:
        raise UsageError("these seats are not lost: there is nothing to take again")
    if held.wanted.is_joint:
        raise UsageError("these seats were asked for together with others: ask for all of them")
    return SeatRequest(
        wanted=replace(held.wanted, again_id=held.grant_id),
        wait_seconds=wait_seconds(wait),
        on_state=held.on_state,
    )
