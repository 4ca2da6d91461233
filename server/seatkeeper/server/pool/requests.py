"""One request of a pool, as administrators deal with it: why it waits, its place, and ending it.

A move, or an end by force, goes through the pool's loop like every other command, as if another node
had forwarded it. So it is decided here, whichever node owns the pool: one of an earlier version does
not know it.
"""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.server.decide import Place
from seatkeeper.server.domain import (
    Administrative,
    Denied,
    ForcedEnd,
    Grant,
    Moved,
    MoveTicket,
    Outcome,
    Refusal,
    Ticket,
    To,
)
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.waiting import Waiting, why_waiting
from seatkeeper.server.pool.admin import PoolError, Pools, PoolView, missing
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.pool.messages import kept_message
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.store import OutcomeUnknown
from seatkeeper.v1.pool_service_pb2 import KeptSeats


class RequestNotFound(PoolError):
    """No request of this id waits or holds seats, whichever was asked for."""


class RequestDiffers(PoolError):
    """The request waits and was to hold seats, or the other way round, or holds others.

    Or it cannot have the place that it was to be moved to.
    """


class BorrowRefused(PoolError):
    """The pool does not let the seats be borrowed. The message has the name of the rule."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A request that waits, and why."""

    ticket: Ticket
    place: Place | None
    """None: it has none any more, because its session has ended."""
    waiting: Waiting


class Requests:
    """The requests of all pools, by pool and id. What they look like is read from the store."""

    def __init__(self, pools: Pools, seats: PoolRouter) -> None:
        self._pools = pools
        self._seats = seats

    async def explain(self, pool: str, grant_id: str) -> Explained:
        """Return why a request waits. Raises ``PoolNotFound``, ``RequestNotFound``, ``RequestDiffers``.

        Reads the pool and plans for it, so it costs as much as showing the pool.
        """
        view = await self._pools.read(pool)
        ticket = _ticket(view, grant_id)
        forecast = self._seats.forecast(pool, view.state)
        snapshot = PoolSnapshot.of(view.state)
        waiting = why_waiting(snapshot, forecast.plan, ticket, self._seats.now())
        return Explained(ticket, forecast.place(ticket), waiting)

    async def remove(self, pool: str, grant_id: str, reason: str, peer: str) -> Ticket:
        """Take a request out of the queue; return it as it was. Raises as ``explain`` does.

        Also ``OutcomeUnknown``: it may wait still, or may have been taken out.
        """
        ticket = _ticket(await self._pools.read(pool), grant_id)
        await self.decided(pool, ForcedEnd(grant_id, ticket.session_id, 0, reason), peer)
        return ticket

    async def move(
        self, pool: str, grant_id: str, to: To | str, reason: str, move_id: str, peer: str
    ) -> tuple[Ticket, Place | None]:
        """Give a request another place; return it as it waits now, and where. Raises as ``remove``.

        The same ``move_id`` again moves it no further.
        """
        ticket = _ticket(await self._pools.read(pool), grant_id)
        command = MoveTicket(grant_id, ticket.session_id, to, reason, move_id)
        outcome = await self.decided(pool, command, peer)
        assert isinstance(outcome, Moved)
        loop = await self._seats.loop(pool)
        state = None if loop is None else loop.state
        place = (
            None if state is None else self._seats.forecast(pool, state).place(outcome.ticket)
        )
        return outcome.ticket, place

    async def release(
        self, pool: str, grant_id: str, reason: str, peer: str, *, fence: int = 0
    ) -> tuple[Grant, KeptSeats | None]:
        """Free the seats of a grant at once; return it as it was, and until when they were kept.

        Raises as ``remove`` does. ``fence``: that which it must have; 0: any.
        """
        view = await self._pools.read(pool)
        grant = grant_in(view, grant_id, fence, may_be_kept=True)
        command = ForcedEnd(grant_id, grant.session_id, grant.fence, reason)
        await self.decided(pool, command, peer)
        if grant_id not in view.state.kept:
            return grant, None
        return grant, kept_message(view.state, view.state.stays[grant_id])

    async def decided(self, pool: str, command: Administrative, peer: str) -> Outcome:
        """Have a command decided here; return its outcome. Raises as ``remove`` does."""
        loop = await self._seats.loop(pool)
        if loop is None:
            raise missing(pool)
        listener = Forwarded(peer)
        loop.submit(command, listener)
        outcome, _ = await listener.outcome
        if not isinstance(outcome, Denied):
            return outcome
        said = f"request {command.grant_id} of pool {pool}: {outcome.message}"
        if outcome.reason is Refusal.FINISHED:
            raise RequestNotFound(said)
        if outcome.reason is Refusal.BORROW_REFUSED:
            raise BorrowRefused(outcome.message)
        if outcome.reason is Refusal.OTHER_TERMS:
            raise RequestDiffers(f"{said}; look again")
        raise OutcomeUnknown(outcome.message)


def grant_in(
    view: PoolView, grant_id: str, fence: int = 0, *, may_be_kept: bool = False
) -> Grant:
    """Return a grant of a pool. Raises ``RequestNotFound`` and ``RequestDiffers``.

    ``fence``: that which it must have; 0: any. ``may_be_kept``: also one that is over, where its seats
    are kept.
    """
    pool = view.spec.name
    grant = view.state.holding(grant_id)
    if grant_id in view.state.kept and not may_be_kept:
        over = f"grant {grant_id} of pool {pool} is over, and its seats are kept"
        raise RequestDiffers(f"{over}; `seatkeeper grant release --now` frees them")
    if grant is None:
        if grant_id in view.state.tickets:
            waits = f"request {grant_id} waits for {pool}, and holds no seat"
            raise RequestDiffers(f"{waits}; `seatkeeper queue remove` takes it out")
        raise RequestNotFound(
            f"there is no grant {grant_id} of pool {pool}; "
            f"`seatkeeper grant list {pool}` shows those there are"
        )
    if fence not in {0, grant.fence}:
        raise RequestDiffers(
            f"grant {grant_id} of pool {pool} has fence {grant.fence}, not {fence}; look again"
        )
    return grant


def _ticket(view: PoolView, grant_id: str) -> Ticket:
    pool = view.spec.name
    ticket = view.state.tickets.get(grant_id)
    if ticket is not None:
        return ticket
    if grant_id in view.state.grants:
        holds = f"request {grant_id} holds seats of {pool}, and does not wait"
        raise RequestDiffers(f"{holds}; `seatkeeper grant show` shows it")
    raise RequestNotFound(
        f"no request {grant_id} waits for pool {pool}; "
        f"`seatkeeper queue list {pool}` shows those that do"
    )
