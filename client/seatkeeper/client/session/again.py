"""Seats that a session had which is another's now: lost ones, asked for again, and those taken over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import timedelta

from seatkeeper.client.session.grants import AsyncGrant, SeatRequest, wait_seconds
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.requests import NO_SEATS_ASKED, OnState, Wanted
from seatkeeper.client.transport.edge import sendable
from seatkeeper.core.errors import InvalidArgument, ServiceTooOld, UsageError


class TakesAgain(ABC):
    """A client that asks for seats that its holder has, or had, in another session."""

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
        asked for together with those of other pools; otherwise as `acquire` does. Seats that were taken
        over are taken over again, and raise as `take_over` does.
        """
        return await self.take(wanted_again(grant, wait))

    async def take_over(
        self,
        pool: str,
        grant_id: str,
        *,
        token: bool = False,
        on_state: OnState | None = None,
    ) -> AsyncGrant:
        """Take over the seats of a live grant of the same holder, of another program or machine.

        At once, whatever waits: the same seats, project, priority and labels under a new grant with a
        new fence. The old one is lost to its session: it learns so with its next answer, and what it
        still does under the old fence is stale. It counts as one hold, for a pool's longest hold too.
        ``grant_id`` is what `AsyncGrant.grant_id`, `status` and `grant list` show.

        Raises `NotTakenOver` where the holder has no such grant, or it was asked for together with
        others, is borrowed, in use by an agent or called back; `NotAllowed` and `NoSeatFree` where the
        pool does not let this host have them, or has fewer seats than are held; `PoolDrained`;
        `ServiceTooOld`. Then the grant is where it was. Otherwise as `acquire` does.
        """
        wanted = replace(
            Wanted.asked(pool, 1, {"token": token}), take_over=sendable("grant_id", grant_id)
        )
        if not wanted.take_over:
            raise InvalidArgument("grant_id must not be empty", field="grant_id")
        request = SeatRequest(wanted=wanted, wait_seconds=0.0, on_state=on_state)
        try:
            return await self.take(request)
        except InvalidArgument as error:
            if NO_SEATS_ASKED in str(error):
                raise ServiceTooOld(
                    "the nodes are of a version that knows no taking over; nothing has changed"
                ) from error
            raise


def wanted_again(grant: AsyncGrant, wait: float | timedelta | None) -> SeatRequest:
    """Return what asks for a grant again that was lost. Raises `UsageError` for one that was not."""
    held = grant._held
    if grant._released or grant.state is not HoldingState.LOST:
        raise UsageError("these seats are not lost: there is nothing to take again")
    if held.wanted.is_joint:
        raise UsageError("these seats were asked for together with others: ask for all of them")
    # What was taken over before says nothing of itself that it could be asked for again with.
    if held.wanted.take_over:
        again = replace(held.wanted, take_over=held.grant_id)
    else:
        again = replace(held.wanted, again_id=held.grant_id)
    return SeatRequest(
        wanted=again,
        wait_seconds=wait_seconds(wait),
        on_state=held.on_state,
    )
