"""The calls of ``PoolService`` about grants that go on: called back, or held for longer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from seatkeeper.core.serving.call_origin import peer_of_call
from seatkeeper.core.serving.failure import Context
from seatkeeper.core.validate import check_id, check_name
from seatkeeper.server.domain import Grant, Instant, Revoke
from seatkeeper.server.identity import administrative_act, principal_of
from seatkeeper.server.pool.admin import PoolError
from seatkeeper.server.pool.held_requests import HeldGrant, HeldRequests
from seatkeeper.server.pool.messages import grant_message
from seatkeeper.server.service.failures import answers
from seatkeeper.server.service.pool_failures import failure
from seatkeeper.server.wire.hold_rules import check_extension, check_notice, fill_hold
from seatkeeper.server.wire.validate import check_reason
from seatkeeper.v1 import pool_service_pb2

_Request = (
    pool_service_pb2.RevokeGrantRequest
    | pool_service_pb2.WithdrawRevokeRequest
    | pool_service_pb2.ExtendGrantRequest
)


class HeldGrantCalls:
    """Three calls of administrators. A part of ``PoolService``."""

    def __init__(self, held: HeldRequests, now: Callable[[], Instant]) -> None:
        self._held = held
        self._now = now

    @answers
    async def RevokeGrant(
        self, request: pool_service_pb2.RevokeGrantRequest, context: Context
    ) -> pool_service_pb2.RevokeGrantResponse:
        """Call a grant back with a notice."""
        _check(request)
        notice = check_notice(request.notice)
        by, unknown = str(principal_of(context)), timedelta(0)
        revoke = Revoke(request.reason, by, self._now(), notice, unknown)
        about = _about(request) | {"notice_s": notice.total_seconds()}
        try:
            with administrative_act("grant_revoked", context, **about) as facts:
                held = await self._held.revoke(
                    *(request.pool, request.grant_id, revoke, peer_of_call(context)),
                    fence=request.fence,
                )
                facts |= _facts(held.grant)
        except PoolError as error:
            raise failure(request.pool, error, request.grant_id) from error
        return pool_service_pb2.RevokeGrantResponse(grant=_message(held))

    @answers
    async def WithdrawRevoke(
        self, request: pool_service_pb2.WithdrawRevokeRequest, context: Context
    ) -> pool_service_pb2.WithdrawRevokeResponse:
        """Take back that a grant is called back."""
        _check(request)
        try:
            with administrative_act("revoke_withdrawn", context, **_about(request)) as facts:
                held = await self._held.withdraw(
                    request.pool, request.grant_id, peer_of_call(context)
                )
                facts |= _facts(held.grant)
        except PoolError as error:
            raise failure(request.pool, error, request.grant_id) from error
        return pool_service_pb2.WithdrawRevokeResponse(grant=_message(held))

    @answers
    async def ExtendGrant(
        self, request: pool_service_pb2.ExtendGrantRequest, context: Context
    ) -> pool_service_pb2.ExtendGrantResponse:
        """Let a grant be held for longer."""
        _check(request)
        extended, seen = check_extension(request)
        about = _about(request) | {"extended_s": extended.total_seconds()}
        try:
            with administrative_act("grant_extended", context, **about) as facts:
                held = await self._held.extend(
                    *(request.pool, request.grant_id, extended, seen, peer_of_call(context)),
                    fence=request.fence,
                )
                facts |= _facts(held.grant)
        except PoolError as error:
            raise failure(request.pool, error, request.grant_id) from error
        return pool_service_pb2.ExtendGrantResponse(grant=_message(held))


def _check(request: _Request) -> None:
    check_name("pool", request.pool)
    check_id("grant_id", request.grant_id)
    check_reason(request.reason)


def _about(request: _Request) -> dict[str, object]:
    return {"pool": request.pool, "grant_id": request.grant_id, "reason": request.reason}


def _facts(grant: Grant) -> dict[str, object]:
    return {
        "holder": grant.holder,
        "project": grant.project,
        "seats": grant.seats,
        "fence": grant.fence,
        "session_id": grant.session_id,
    }


def _message(held: HeldGrant) -> pool_service_pb2.HeldGrant:
    spec, state = held.view.spec, held.view.state
    message = grant_message(held.grant, spec.name, held.reclaim)
    fill_hold(message, spec, state.guard, held.grant)
    return message
