"""Sessions without a stream: ``client.seats``, one unary call each.

For programs that keep their own session, such as one that must not hold a connection open, and for
debugging the service. Nothing here renews anything by itself: prefer ``client.seat``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.edge import sends
from seatkeeper.client.transport.translate import as_duration
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc


@sends
class AsyncUnarySeats:
    """The unary calls of the seat service. Each may be repeated: ids are the caller's.

    Every call raises `ServiceUnavailable` when no node answers in time.
    """

    def __init__(self, calls: Calls, call_timeout: timedelta) -> None:
        self._calls = calls
        self._call_timeout = call_timeout.total_seconds()

    async def open_session(
        self,
        credentials: pb.SessionCredentials,
        *,
        holder: str,
        project: str = "",
        ttl: timedelta | None = None,
    ) -> pb.Opened:
        """Open a session. Raises `InvalidArgument`, or `NotYours` when the id is taken."""
        duration = None if ttl is None else as_duration(ttl.total_seconds())
        request = pb.OpenSessionRequest(
            open=pb.Open(credentials=credentials, holder=holder, project=project, ttl=duration)
        )
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.SeatServiceStub(channel).OpenSession(
                request, timeout=timeout
            )
        )
        return answer.opened

    async def acquire(
        self, credentials: pb.SessionCredentials, acquire: seat_pb2.Acquire
    ) -> seat_pb2.Granted:
        """Take seats, waiting up to ``acquire.wait``; when that is unset, ``call_timeout``.

        Raises `NoSeatFree`, `Overloaded`, `PoolNotFound`, `TooManySeats`, `InvalidArgument`,
        `SessionLost`, and `SeatLost` when the id is completed.
        """
        request = pb.AcquireRequest(credentials=credentials, acquire=acquire)
        wait = acquire.wait.ToTimedelta().total_seconds() if acquire.HasField("wait") else 0.0
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.SeatServiceStub(channel).Acquire(
                request, timeout=timeout
            ),
            timeout=wait + self._call_timeout,
        )
        return answer.granted

    async def renew(
        self, credentials: pb.SessionCredentials, tokens_for: Sequence[pb.GrantRef] = ()
    ) -> pb.Renewed:
        """Keep a session alive for another ttl. Raises `SessionLost` when it has ended.

        Count the ttl from when you called, not from when this returned.
        """
        request = pb.RenewRequest(
            credentials=credentials, renew=pb.Renew(sequence=1, tokens_for=tokens_for)
        )
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.SeatServiceStub(channel).Renew(
                request, timeout=timeout
            )
        )
        return answer.renewed

    async def release(self, credentials: pb.SessionCredentials, grant: pb.GrantRef) -> None:
        """Give the seats of a grant back, or leave the queue."""
        request = pb.ReleaseRequest(credentials=credentials, release=pb.Release(grant=grant))
        await self._calls.unary(
            lambda channel, timeout: pb_grpc.SeatServiceStub(channel).Release(
                request, timeout=timeout
            )
        )

    async def close_session(self, credentials: pb.SessionCredentials) -> None:
        """End a session and free everything it holds."""
        request = pb.CloseSessionRequest(credentials=credentials)
        await self._calls.unary(
            lambda channel, timeout: pb_grpc.SeatServiceStub(channel).CloseSession(
                request, timeout=timeout
            )
        )
