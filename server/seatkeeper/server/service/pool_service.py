"""``PoolService``: administers pools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields

from seatkeeper.core.lots import PoolLots
from seatkeeper.core.reservations import PoolWindows
from seatkeeper.core.serving.call_origin import peer_of_call
from seatkeeper.core.serving.failure import Context
from seatkeeper.core.validate import Malformed, check_id, check_name
from seatkeeper.server.domain import NO_POLICY, Drain, PoolPolicy, PoolSpec
from seatkeeper.server.events import log as events
from seatkeeper.server.identity import administrative_act, principal_of
from seatkeeper.server.pool.admin import (
    PoolError,
    PoolNotFound,
    Pools,
    PoolView,
)
from seatkeeper.server.pool.batches import (
    Applied,
    PoolBatches,
    PoolChange,
)
from seatkeeper.server.pool.held_requests import HeldRequests
from seatkeeper.server.pool.messages import (
    grant_message,
    pool_message,
    reason_message,
    ticket_message,
)
from seatkeeper.server.pool.requests import Requests
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.service.failures import answers, pool_not_found, streams
from seatkeeper.server.service.held_grants import HeldGrantCalls
from seatkeeper.server.service.pool_failures import failure
from seatkeeper.server.sessions.holders import Holders
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.wire.pool_changes import check_apply
from seatkeeper.server.wire.reservations import check_reservations
from seatkeeper.server.wire.validate import check_move, check_reason, check_spec
from seatkeeper.v1 import pool_service_pb2, pool_service_pb2_grpc

NOT_NOW = (
    "frees the seats at once, which waives that two holders never believe in one seat; `RevokeGrant` "
    "(`seatkeeper grant revoke`) calls them back with a notice"
)
WATCH_INTERVAL = 0.25
"""Seconds between two messages of one watch, at least."""


class PoolService(HeldGrantCalls, pool_service_pb2_grpc.PoolServiceServicer):
    """Administers pools."""

    def __init__(
        self, pools: Pools, batches: PoolBatches, seats: PoolRouter, holders: Holders
    ) -> None:
        self._pools = pools
        self._batches = batches
        self._seats = seats
        self._holders = holders
        self._requests = Requests(pools, seats)
        held = HeldRequests(pools, self._requests, holders.session)
        HeldGrantCalls.__init__(self, held, seats.now)

    @answers
    async def CreatePool(
        self, request: pool_service_pb2.CreatePoolRequest, context: Context
    ) -> pool_service_pb2.CreatePoolResponse:
        """Create a pool."""
        spec = check_spec(request.spec)
        check_reservations(spec, self._seats.now())
        try:
            with administrative_act("pool_created", context, **_created(spec)):
                view = await self._pools.create(spec)
        except PoolError as error:
            raise failure(spec.name, error) from error
        return pool_service_pb2.CreatePoolResponse(pool=self._message(view))

    @answers
    async def UpdatePool(
        self, request: pool_service_pb2.UpdatePoolRequest, context: Context
    ) -> pool_service_pb2.UpdatePoolResponse:
        """Replace a pool's specification."""
        spec = check_spec(request.spec)
        check_reservations(spec, self._seats.now())
        expected = request.expected_revision
        keep_policy = not request.spec.HasField("policy")
        try:
            with administrative_act("pool_updated", context, pool=spec.name) as facts:
                view = await self._pools.update(
                    spec,
                    expected_revision=expected,
                    keep_policy=keep_policy,
                    keep_lots=not request.spec.HasField("lots"),
                )
                facts |= _changes(view.replaced, view.spec)
        except PoolError as error:
            raise failure(spec.name, error) from error
        return pool_service_pb2.UpdatePoolResponse(pool=self._message(view))

    @answers
    async def DrainPool(
        self, request: pool_service_pb2.DrainPoolRequest, context: Context
    ) -> pool_service_pb2.DrainPoolResponse:
        """Drain a pool."""
        check_name("name", request.name)
        check_reason(request.reason)
        drain = Drain(request.reason, str(principal_of(context)), self._seats.now())
        why = {"pool": request.name, "reason": request.reason}
        try:
            with administrative_act("pool_drained", context, **why) as facts:
                view = await self._pools.set_drain(request.name, drain)
                facts |= {"held": view.state.held, "queued": len(view.state.tickets)}
        except PoolError as error:
            raise failure(request.name, error) from error
        return pool_service_pb2.DrainPoolResponse(pool=self._message(view))

    @answers
    async def OpenPool(
        self, request: pool_service_pb2.OpenPoolRequest, context: Context
    ) -> pool_service_pb2.OpenPoolResponse:
        """Open a pool that was drained."""
        check_name("name", request.name)
        if request.reason:
            check_reason(request.reason)
        why = {"pool": request.name, "reason": request.reason}
        try:
            with administrative_act("pool_opened", context, **why) as facts:
                view = await self._pools.set_drain(request.name, None)
                drain = view.replaced.drain if view.replaced is not None else None
                facts |= {"drained_for": drain.reason if drain is not None else ""}
        except PoolError as error:
            raise failure(request.name, error) from error
        return pool_service_pb2.OpenPoolResponse(pool=self._message(view))

    @answers
    async def DeletePool(
        self, request: pool_service_pb2.DeletePoolRequest, context: Context
    ) -> pool_service_pb2.DeletePoolResponse:
        """Delete a pool that is not in use."""
        check_name("name", request.name)
        try:
            with administrative_act("pool_deleted", context, pool=request.name) as facts:
                deleted = await self._pools.delete(request.name)
                facts |= {"seats": deleted.seats, "description": deleted.description}
        except PoolError as error:
            raise failure(request.name, error) from error
        return pool_service_pb2.DeletePoolResponse()

    @answers
    async def ApplyPools(
        self, request: pool_service_pb2.ApplyPoolsRequest, context: Context
    ) -> pool_service_pb2.ApplyPoolsResponse:
        """Change pools together."""
        checked = check_apply(request)
        for place, (_, _, spec) in enumerate(checked):
            if spec is not None:
                check_reservations(spec, self._seats.now(), f"changes[{place}].spec")
        changes = [
            PoolChange(
                name=name,
                seen_revision=change.seen_revision,
                spec=spec,
                keep_policy=not change.spec.HasField("policy"),
                keep_lots=not change.spec.HasField("lots"),
                deletes=change.delete,
            )
            for name, change, spec in checked
        ]
        why: dict[str, object] = {"reason": request.reason} if request.reason else {}
        try:
            with administrative_act("pools_applied", context, **why) as facts:
                applied = await self._batches.apply(changes)
                facts |= {
                    "revision": applied.revision,
                    "pools_created": len(applied.created),
                    "pools_updated": len(applied.replaced),
                    "pools_deleted": len(applied.deleted),
                }
        except PoolError as error:
            raise failure("", error) from error
        _log_each(applied, context, why)
        return pool_service_pb2.ApplyPoolsResponse(revision=applied.revision)

    @answers
    async def GetPool(
        self, request: pool_service_pb2.GetPoolRequest, context: Context
    ) -> pool_service_pb2.GetPoolResponse:
        """Return one pool."""
        view = await self._read(request.name)
        return pool_service_pb2.GetPoolResponse(pool=await self._detailed(view))

    @answers
    async def ListPools(
        self, request: pool_service_pb2.ListPoolsRequest, context: Context
    ) -> pool_service_pb2.ListPoolsResponse:
        """Return every pool."""
        response = pool_service_pb2.ListPoolsResponse()
        async for name, view in self._pools.all():
            if isinstance(view, RecordUnreadable):
                events.record_unreadable(view)
                response.pools.add().spec.MergeFrom(
                    pool_service_pb2.PoolSpec(name=name, description=str(view))
                )
                continue
            response.pools.append(self._message(view, details=False))
        return response

    @streams
    async def WatchPool(
        self, request: pool_service_pb2.WatchPoolRequest, context: Context
    ) -> AsyncIterator[pool_service_pb2.WatchPoolResponse]:
        """Stream a pool."""
        await self._read(request.name)
        loop = await self._seats.loop(request.name)
        if loop is not None:
            await loop.listed()
            with loop.following() as changed:
                while True:
                    spec, revision = self._seats.catalogue.spec(request.name)
                    if spec is None:
                        break
                    if loop.unsupported is not None:
                        raise loop.unsupported
                    view = PoolView(spec, revision, loop.state)
                    pool = await self._detailed(view)
                    yield pool_service_pb2.WatchPoolResponse(pool=pool)
                    await asyncio.sleep(WATCH_INTERVAL)
                    await changed.wait()
                    changed.clear()
        raise pool_not_found(request.name, f"pool {request.name} was deleted")

    @answers
    async def ExplainTicket(
        self, request: pool_service_pb2.ExplainTicketRequest, context: Context
    ) -> pool_service_pb2.ExplainTicketResponse:
        """Return why a request waits."""
        _check_named(request)
        try:
            found = await self._requests.explain(request.pool, request.grant_id)
        except PoolError as error:
            raise failure(request.pool, error, request.grant_id) from error
        ticket = ticket_message(found.ticket, found.place)
        shown = pool_service_pb2.Pool(tickets=[ticket])
        await self._holders.add_to(shown)
        return pool_service_pb2.ExplainTicketResponse(
            ticket=shown.tickets[0], reason=reason_message(found.waiting)
        )

    @answers
    async def RemoveTicket(
        self, request: pool_service_pb2.RemoveTicketRequest, context: Context
    ) -> pool_service_pb2.RemoveTicketResponse:
        """Take a request out of the queue."""
        _check_named(request)
        check_reason(request.reason)
        try:
            with administrative_act("ticket_removed", context, **_about(request)) as facts:
                ticket = await self._requests.remove(
                    request.pool, request.grant_id, request.reason, peer_of_call(context)
                )
                facts |= {"holder": ticket.holder, "project": ticket.project}
                facts |= {"seats": ticket.seats, "session_id": ticket.session_id}
        except PoolError as error:
            raise failure(request.pool, error, request.grant_id) from error
        return pool_service_pb2.RemoveTicketResponse(ticket=ticket_message(ticket, None))

    @answers
    async def MoveTicket(
        self, request: pool_service_pb2.MoveTicketRequest, context: Context
    ) -> pool_service_pb2.MoveTicketResponse:
        """Give a request another place in the queue."""
        _check_named(request)
        to = check_move(request)
        where = {"before": to} if isinstance(to, str) else {"to": to.name.lower()}
        try:
            with administrative_act(
                "ticket_moved", context, **_about(request), **where
            ) as facts:
                ticket, place = await self._requests.move(
                    *(request.pool, request.grant_id, to, request.reason, request.move_id),
                    peer_of_call(context),
                )
                facts |= {"holder": ticket.holder, "project": ticket.project}
                facts |= {"seats": ticket.seats, "session_id": ticket.session_id}
                facts |= {"position": place.position} if place is not None else {}
        except PoolError as error:
            raise failure(request.pool, error, request.grant_id) from error
        return pool_service_pb2.MoveTicketResponse(ticket=ticket_message(ticket, place))

    @answers
    async def ReleaseGrant(
        self, request: pool_service_pb2.ReleaseGrantRequest, context: Context
    ) -> pool_service_pb2.ReleaseGrantResponse:
        """Free the seats of a grant at once."""
        _check_named(request)
        check_reason(request.reason)
        if not request.now:
            raise Malformed("now", NOT_NOW)
        try:
            with administrative_act("grant_released", context, **_about(request)) as facts:
                grant, kept = await self._requests.release(
                    *(request.pool, request.grant_id, request.reason, peer_of_call(context)),
                    fence=request.fence,
                )
                facts |= {"holder": grant.holder, "project": grant.project}
                facts |= {"seats": grant.seats, "fence": grant.fence}
                facts |= {"session_id": grant.session_id}
        except PoolError as error:
            raise failure(request.pool, error, request.grant_id) from error
        message = grant_message(grant)
        if kept is not None:
            message.kept.CopyFrom(kept)
        return pool_service_pb2.ReleaseGrantResponse(grant=message)

    async def _read(self, name: str) -> PoolView:
        check_name("name", name)
        try:
            return await self._pools.read(name)
        except PoolNotFound as error:
            raise failure(name, error) from error

    async def _detailed(self, view: PoolView) -> pool_service_pb2.Pool:
        message = self._message(view)
        await self._holders.add_to(message)
        return message

    def _message(self, view: PoolView, *, details: bool = True) -> pool_service_pb2.Pool:
        name = view.spec.name
        forecast, owner = self._seats.forecast(name, view.state), self._seats.owner(name)
        return pool_message(view, forecast, owner, details=details)


def _log_each(applied: Applied, context: Context, why: dict[str, object]) -> None:
    """Log each change as the act that it would be alone, with the revision and reason of them all."""
    why = why | {"revision": applied.revision}
    for spec in applied.created:
        with administrative_act("pool_created", context, **_created(spec), **why):
            pass
    for before, after in applied.replaced:
        changes = _changes(before, after)
        with administrative_act("pool_updated", context, pool=after.name, **changes, **why):
            pass
    for spec in applied.deleted:
        gone = {"pool": spec.name, "seats": spec.seats, "description": spec.description}
        with administrative_act("pool_deleted", context, **gone, **why):
            pass


def _created(spec: PoolSpec) -> dict[str, object]:
    """Return what is logged of a new pool."""
    facts = {"pool": spec.name, "seats": spec.seats, "description": spec.description}
    facts |= {"policy": _shown(spec.policy)} if spec.policy != NO_POLICY else {}
    return facts | ({"lots": _shown(spec.lots)} if spec.lots else {})


def _changes(before: PoolSpec | None, after: PoolSpec) -> dict[str, object]:
    """Return what a change changed, as ``seats_before`` and ``seats_after``."""
    facts: dict[str, object] = {}
    for fact in fields(after):
        if not fact.compare:
            continue
        then = _shown(getattr(before, fact.name, None))
        now = _shown(getattr(after, fact.name))
        if then != now or fact.name == "seats":
            facts |= {f"{fact.name}_before": then, f"{fact.name}_after": now}
    return facts


def _shown(value: object) -> object:
    """Return a value of a specification as events say it."""
    return value.lines() if isinstance(value, PoolPolicy | PoolLots | PoolWindows) else value


_OneRequest = (
    pool_service_pb2.ExplainTicketRequest
    | pool_service_pb2.RemoveTicketRequest
    | pool_service_pb2.MoveTicketRequest
    | pool_service_pb2.ReleaseGrantRequest
)


def _check_named(request: _OneRequest) -> None:
    check_name("pool", request.pool)
    check_id("grant_id", request.grant_id)


def _about(
    request: pool_service_pb2.RemoveTicketRequest
    | pool_service_pb2.MoveTicketRequest
    | pool_service_pb2.ReleaseGrantRequest,
) -> dict[str, str]:
    return {"pool": request.pool, "grant_id": request.grant_id, "reason": request.reason}
