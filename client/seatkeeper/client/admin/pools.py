"""Administers pools: ``client.pools``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Unpack

import grpc

from seatkeeper.client.admin.changes import (
    NewPool,
    PoolChange,
    as_asked,
    change_spec,
    changing,
    making,
    new_spec,
)
from seatkeeper.client.admin.held import AsyncHeldGrants
from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.edge import sends
from seatkeeper.core.errors import Changed, InvalidArgument, PoolNotFound, ServiceTooOld
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import pool_service_pb2 as pb
from seatkeeper.v1 import pool_service_pb2_grpc as pb_grpc

UPDATE_ATTEMPTS_MAX = 5
"""How often an update that somebody else's update overtook is made anew."""

_TOO_OLD = {grpc.StatusCode.UNIMPLEMENTED: ServiceTooOld}
_NO_POOL = {grpc.StatusCode.NOT_FOUND: PoolNotFound}
_NEWER = {grpc.StatusCode.UNIMPLEMENTED: ServiceTooOld}
"""Of calls that older nodes do not know."""


@sends
class AsyncPools(AsyncHeldGrants):
    """The pools of the service.

    Every call raises `ServiceUnavailable` when no node answers in time.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @making
    async def create(self, name: str, *, seats: int, **said: Unpack[NewPool]) -> pb.Pool:
        """Create a pool, whose seats ``projects`` share, if any are given.

        ``overtaking``: how far small requests may go before one that wants more seats than are free.
        ``reclaim``: how lent seats are called back. ``hold``: how long seats are held. ``stay``:
        for how long they are kept after a release or a loss. ``borrow``: how they leave with machines.
        ``rules``: who may use it, and how much each may have. ``lots``: contracts, whose seats count
        beside ``seats`` while they are in force. ``reservations``: seats that are kept for some in
        windows that come again.
        ``advisory``: whether it counts and refuses nothing; ``costs``: what a seat costs by class.
        Raises `AlreadyExists`, `InvalidArgument`, or `ServiceTooOld` when the node that made it knows
        one of these not: then there is a pool without it.
        """
        spec = new_spec(name, seats, said)
        request = pb.CreatePoolRequest(spec=spec)
        # Sent twice, the second would fail because of the first.
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).CreatePool(
                request, timeout=timeout
            ),
            repeatable=False,
        )
        return as_asked(answer.pool, spec)

    @changing
    async def update(self, name: str, **said: Unpack[PoolChange]) -> pb.Pool:
        """Change what is given of a pool, and nothing else.

        ``projects`` are added, or take the place of those of their names; ``without_projects`` are
        names of some that are left out; a ``usage_half_life`` of 0: only what is held counts; an
        empty ``overtaking``, or ``reclaim``: none. ``rules`` take the place of all that there are, or
        make the new ones of these; ``costs`` take the place of all there are, and an empty one: none.
        ``lots`` and ``reservations`` say what is to become of some of them; the others stay. Of a pool
        with lots, ``seats`` are those without a contract. Lowering ``seats`` takes no seat from anyone:
        it stops new grants until the surplus is released. Raises `PoolNotFound`, `InvalidArgument`,
        `ServiceTooOld` for what the node does not know, or `Changed` when others change the pool all
        the time.
        """
        said = {**said, "projects": list(said.get("projects", ()))}
        for attempt in range(1, UPDATE_ATTEMPTS_MAX + 1):
            pool = await self.get(name)
            change_spec(pool.spec, said)
            try:
                return await self.replace(pool.spec, expected_revision=pool.revision)
            except Changed:
                if attempt == UPDATE_ATTEMPTS_MAX:
                    raise
        raise AssertionError("the loop returns or raises")

    async def replace(self, spec: pb.PoolSpec, *, expected_revision: int = 0) -> pb.Pool:
        """Replace a pool's specification, if its revision is still the expected one.

        Zero replaces whatever is there. Raises `PoolNotFound`, `InvalidArgument` or `Changed`;
        the last also when our own call took effect and its answer was lost.
        """
        request = pb.UpdatePoolRequest(spec=spec, expected_revision=expected_revision)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).UpdatePool(
                request, timeout=timeout
            ),
            overrides=_NO_POOL,
        )
        return as_asked(answer.pool, spec)

    async def drain(self, name: str, *, reason: str) -> pb.Pool:
        """Grant nothing more from a pool until it is opened, and return it.

        Holders keep their seats and waiting requests their places; one that does not wait gets
        `PoolDrained`. Raises `PoolNotFound`, `InvalidArgument`, `NotYours`, and `ServiceTooOld`.
        """
        request = pb.DrainPoolRequest(name=name, reason=reason)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).DrainPool(
                request, timeout=timeout
            ),
            overrides=_TOO_OLD,
        )
        return answer.pool

    async def open(self, name: str, *, reason: str = "") -> pb.Pool:
        """Open a pool that was drained, and return it. Raises as `drain` does."""
        request = pb.OpenPoolRequest(name=name, reason=reason)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).OpenPool(
                request, timeout=timeout
            ),
            overrides=_TOO_OLD,
        )
        return answer.pool

    async def delete(self, name: str) -> None:
        """Delete a pool that is not in use. Raises `PoolNotFound`, or `InUse` while it is."""
        request = pb.DeletePoolRequest(name=name)
        await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).DeletePool(
                request, timeout=timeout
            ),
            repeatable=False,
            overrides=_NO_POOL,
        )

    async def apply(self, changes: Iterable[pb.PoolChange], *, reason: str = "") -> int:
        """Make all changes, each of a pool as it was seen, or none; return the revision of all.

        0: there was nothing to change. ``reason`` is for the log of administrative acts. Raises
        `PoolsChanged` when a pool is not at its ``seen_revision``, `InUse` for a pool to delete that is
        in use, `InvalidArgument`, `Changed` when others change pools all the time, and `ServiceTooOld`
        for a node that does not know this call.
        """
        request = pb.ApplyPoolsRequest(changes=changes, reason=reason)
        # Sent twice, the second would fail because of the first.
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).ApplyPools(
                request, timeout=timeout
            ),
            repeatable=False,
            overrides=_TOO_OLD,
        )
        return answer.revision

    async def get(self, name: str) -> pb.Pool:
        """Return one pool as it stands, with its grants and tickets. Raises `PoolNotFound`."""
        request = pb.GetPoolRequest(name=name)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).GetPool(
                request, timeout=timeout
            ),
            overrides=_NO_POOL,
        )
        return answer.pool

    async def list(self) -> Sequence[pb.Pool]:
        """Return every pool in the order of names, without grants and tickets."""
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).ListPools(
                pb.ListPoolsRequest(), timeout=timeout
            )
        )
        return answer.pools

    async def watch(self, name: str) -> AsyncGenerator[pb.Pool, None]:
        """Yield the pool as it stands now, then again after changes, forever.

        Survives the loss of nodes. Raises `PoolNotFound` when there is none, or no more.
        """
        request = pb.WatchPoolRequest(name=name)
        answers = self._calls.listen(
            lambda channel: pb_grpc.PoolServiceStub(channel).WatchPool(request),
            overrides=_NO_POOL,
        )
        async with aclosing(answers):
            async for answer in answers:
                yield answer.pool

    async def explain(self, pool: str, request_id: str) -> pb.ExplainTicketResponse:
        """Return which rule keeps a request waiting now, and the request.

        Raises `PoolNotFound`, `RequestNotFound` when it does not wait, `InUse` when it holds seats, and
        `ServiceTooOld` when the node that answers does not know the call.
        """
        request = pb.ExplainTicketRequest(pool=pool, grant_id=request_id)
        return await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).ExplainTicket(
                request, timeout=timeout
            ),
            overrides=_NEWER,
        )

    async def remove(self, pool: str, request_id: str, *, reason: str) -> pb.QueuedTicket:
        """Take a request out of the queue, and return it; its holder gets `RequestRemoved`.

        Raises what `explain` does, and `NotYours` for those who are no administrators.
        """
        request = pb.RemoveTicketRequest(pool=pool, grant_id=request_id, reason=reason)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).RemoveTicket(
                request, timeout=timeout
            ),
            repeatable=False,
            overrides=_NEWER,
        )
        return answer.ticket

    async def move(
        self,
        pool: str,
        request_id: str,
        *,
        reason: str,
        before: str = "",
        first: bool = False,
        last: bool = False,
        move_id: str = "",
    ) -> pb.QueuedTicket:
        """Move a request ``before`` another one, or to the ``first`` or ``last`` place; return it.

        It moves among those of its priority, in a pool that lists projects of its project. Where it is
        there already, nothing is changed. ``move_id``: a UUIDv7 of the caller's, to send the same move
        again; empty: a new one. Raises what `remove` does, `InUse` also where there is no such
        place, and `InvalidArgument` unless one of the three is given.
        """
        if [bool(before), first, last].count(True) != 1:
            raise InvalidArgument("give one of before, first and last")
        request = pb.MoveTicketRequest(
            pool=pool, grant_id=request_id, reason=reason, move_id=move_id or new_id()
        )
        if before:
            request.before = before
        elif first:
            request.first = True
        else:
            request.last = True
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).MoveTicket(
                request, timeout=timeout
            ),
            overrides=_NEWER,
        )
        return answer.ticket

    async def release_now(
        self, pool: str, grant_id: str, *, reason: str, fence: int = 0
    ) -> pb.HeldGrant:
        """Free the seats of a grant at once, whatever its holder does; return the grant.

        That waives a promise: a holder that cannot be reached goes on, until its lease has run out,
        while another may have the seats. ``fence``: that which the grant must have; 0: any. Raises
        `PoolNotFound`, `RequestNotFound` when there is no such grant, `InUse` when the request waits or
        the fence is another, `NotYours`, and `ServiceTooOld`.
        """
        request = pb.ReleaseGrantRequest(
            pool=pool, grant_id=grant_id, reason=reason, fence=fence, now=True
        )
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).ReleaseGrant(
                request, timeout=timeout
            ),
            repeatable=False,
            overrides=_NEWER,
        )
        return answer.grant
