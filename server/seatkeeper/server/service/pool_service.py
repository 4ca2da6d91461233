"""``PoolService``: administers pools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields

import grpc

from seatkeeper.core.serving.failure import Context, Failure
from seatkeeper.core.validate import check_name
from seatkeeper.server.domain import PoolPolicy, PoolSpec
from seatkeeper.server.events import log as events
from seatkeeper.server.identity import administrative_act
from seatkeeper.server.pool.admin import (
    PolicyBroken,
    PoolChanged,
    PoolError,
    PoolExists,
    PoolInUse,
    PoolNotFound,
    Pools,
    PoolView,
    pool_message,
)
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.service.failures import answers, pool_not_found, streams
from seatkeeper.server.sessions.holders import Holders
from seatkeeper.server.store.formats import FormatUnsupported
from seatkeeper.server.wire.validate import check_spec
from seatkeeper.v1 import pool_service_pb2, pool_service_pb2_grpc

WATCH_INTERVAL = 0.25
"""Seconds between two messages of one watch, at least."""
_CODES = {
    PoolExists: grpc.StatusCode.ALREADY_EXISTS,
    PoolChanged: grpc.StatusCode.ABORTED,
    PolicyBroken: grpc.StatusCode.INVALID_ARGUMENT,
    PoolInUse: grpc.StatusCode.FAILED_PRECONDITION,
}


class PoolService(pool_service_pb2_grpc.PoolServiceServicer):
    """Administers pools."""

    def __init__(self, pools: Pools, seats: PoolRouter, holders: Holders) -> None:
        self._pools = pools
        self._seats = seats
        self._holders = holders

    @answers
    async def CreatePool(
        self, request: pool_service_pb2.CreatePoolRequest, context: Context
    ) -> pool_service_pb2.CreatePoolResponse:
        """Create a pool."""
        spec = check_spec(request.spec)
        facts = {"pool": spec.name, "seats": spec.seats, "description": spec.description}
        if spec.policy.projects:
            facts["policy"] = _shown(spec.policy)
        try:
            with administrative_act("pool_created", context, **facts):
                view = await self._pools.create(spec)
        except PoolError as error:
            raise _failure(spec.name, error) from error
        return pool_service_pb2.CreatePoolResponse(pool=self._message(view))

    @answers
    async def UpdatePool(
        self, request: pool_service_pb2.UpdatePoolRequest, context: Context
    ) -> pool_service_pb2.UpdatePoolResponse:
        """Replace a pool's specification."""
        spec = check_spec(request.spec)
        expected = request.expected_revision
        keep_policy = not request.spec.HasField("policy")
        try:
            with administrative_act("pool_updated", context, pool=spec.name) as facts:
                view = await self._pools.update(
                    spec, expected_revision=expected, keep_policy=keep_policy
                )
                facts |= _changes(view.replaced, view.spec)
        except PoolError as error:
            raise _failure(spec.name, error) from error
        return pool_service_pb2.UpdatePoolResponse(pool=self._message(view))

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
            raise _failure(request.name, error) from error
        return pool_service_pb2.DeletePoolResponse()

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
        for name in await self._pools.names():
            try:
                view = await self._pools.read(name)
            except PoolNotFound:
                continue  # deleted since
            except FormatUnsupported as error:
                events.record_format_unsupported(error)
                response.pools.add().spec.MergeFrom(
                    pool_service_pb2.PoolSpec(name=name, description=str(error))
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

    async def _read(self, name: str) -> PoolView:
        check_name("name", name)
        try:
            return await self._pools.read(name)
        except PoolNotFound as error:
            raise _failure(name, error) from error

    async def _detailed(self, view: PoolView) -> pool_service_pb2.Pool:
        message = self._message(view)
        await self._holders.add_to(message)
        return message

    def _message(self, view: PoolView, *, details: bool = True) -> pool_service_pb2.Pool:
        name = view.spec.name
        forecast, owner = self._seats.forecast(name, view.state), self._seats.owner(name)
        return pool_message(view, forecast, owner, details=details)


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
    return value.lines() if isinstance(value, PoolPolicy) else value


def _failure(name: str, error: PoolError) -> Failure:
    if isinstance(error, PoolNotFound):
        return pool_not_found(name, str(error))
    return Failure(_CODES[type(error)], str(error))
