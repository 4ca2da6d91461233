"""Grants that go on, as administrators deal with them: a part of ``client.pools``."""

from __future__ import annotations

from datetime import timedelta

import grpc

from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.edge import sends
from seatkeeper.core.errors import ServiceTooOld
from seatkeeper.v1 import pool_service_pb2 as pb
from seatkeeper.v1 import pool_service_pb2_grpc as pb_grpc

_NEWER = {grpc.StatusCode.UNIMPLEMENTED: ServiceTooOld}


@sends
class AsyncHeldGrants:
    """Calls about single grants. Each may be repeated.

    All raise `PoolNotFound`, `RequestNotFound` when there is no such grant, `InUse` when the request
    waits, the fence is another, or it cannot be done, `NotYours`, and `ServiceTooOld`.
    """

    _calls: Calls

    async def revoke(
        self, pool: str, grant_id: str, *, notice: timedelta, reason: str, fence: int = 0
    ) -> pb.HeldGrant:
        """Call a grant back with a notice; return it as it is held now.

        Its holder is notified, and loses the seats when the notice is over; it begins when the holder's
        client has said that it knows. `InUse` as well where that client does not know that seats may be
        called back: `release_now` frees them all the same. ``fence``: that which the grant must
        have; 0: any.
        """
        request = pb.RevokeGrantRequest(
            pool=pool, grant_id=grant_id, reason=reason, fence=fence
        )
        request.notice.FromTimedelta(notice)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).RevokeGrant(
                request, timeout=timeout
            ),
            overrides=_NEWER,
        )
        return answer.grant

    async def withdraw_revoke(self, pool: str, grant_id: str, *, reason: str) -> pb.HeldGrant:
        """Take back that a grant was called back by `revoke`; return it as it is held now."""
        request = pb.WithdrawRevokeRequest(pool=pool, grant_id=grant_id, reason=reason)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).WithdrawRevoke(
                request, timeout=timeout
            ),
            overrides=_NEWER,
        )
        return answer.grant

    async def extend(
        self,
        pool: str,
        grant_id: str,
        *,
        by: timedelta,
        reason: str,
        seen: timedelta = timedelta(0),
        fence: int = 0,
    ) -> pb.HeldGrant:
        """Let a grant be held for longer than its pool's longest hold; return it as it is held now.

        ``by``: how much longer than ``seen``, which is what was added before (`HoldState.extended`):
        where that is something else by now, `InUse` is raised.
        """
        request = pb.ExtendGrantRequest(
            pool=pool, grant_id=grant_id, reason=reason, fence=fence
        )
        request.extended.FromTimedelta(seen + by)
        request.seen.FromTimedelta(seen)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.PoolServiceStub(channel).ExtendGrant(
                request, timeout=timeout
            ),
            overrides=_NEWER,
        )
        return answer.grant
