"""Seats that leave with machines: ``client.borrowing``, one unary call each.

`seatkeeper borrow` keeps the machine's key and what it has borrowed in files; these are the calls
below that.
"""

from __future__ import annotations

from datetime import timedelta

import grpc

from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.edge import sends
from seatkeeper.core.errors import ServiceTooOld
from seatkeeper.v1 import borrow_service_pb2 as pb
from seatkeeper.v1 import borrow_service_pb2_grpc as pb_grpc
from seatkeeper.v1 import pool_service_pb2, seat_service_pb2

_NEWER = {grpc.StatusCode.UNIMPLEMENTED: ServiceTooOld}


@sends
class AsyncBorrowing:
    """The calls of the borrow service. Each may be repeated.

    All raise `PoolNotFound`, `NotYours`, `InvalidArgument`, `ServiceTooOld`, and `ServiceUnavailable`.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def borrow(
        self,
        credentials: seat_service_pb2.SessionCredentials,
        grant: seat_service_pb2.GrantRef,
        *,
        length: timedelta,
        machine_key: bytes,
        proof: str,
    ) -> pb.BorrowGrantResponse:
        """Give a session's grant to a machine; return the machine's token, and the keys that verify it.

        ``machine_key``: its public key, 32 bytes; ``proof``: what it has signed. Raises `BorrowRefused`
        with the name of the pool's rule, `RequestNotFound`, and `SessionLost`.
        """
        request = pb.BorrowGrantRequest(
            credentials=credentials, grant=grant, machine_key=machine_key, proof=proof
        )
        request.length.FromTimedelta(length)
        return await self._calls.unary(
            lambda channel, timeout: pb_grpc.BorrowServiceStub(channel).BorrowGrant(
                request, timeout=timeout
            ),
            overrides=_NEWER,
        )

    async def return_grant(
        self, pool: str, grant_id: str, *, statement: str
    ) -> pool_service_pb2.HeldGrant | None:
        """Give a machine's grant back before its day; return it as it was. None: it was free already.

        ``statement``: what the machine has signed. Raises `InUse` where a session holds the seats.
        """
        request = pb.ReturnGrantRequest(pool=pool, grant_id=grant_id, statement=statement)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.BorrowServiceStub(channel).ReturnGrant(
                request, timeout=timeout
            ),
            overrides=_NEWER,
        )
        return answer.grant if answer.HasField("grant") else None
