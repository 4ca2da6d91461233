"""``PeerService``: what this node does for the other nodes."""

from __future__ import annotations

import asyncio
import hmac

import grpc

from seatkeeper.core.serving.failure import Context, Failure
from seatkeeper.core.validate import Malformed
from seatkeeper.internal.v1 import peer_service_pb2, peer_service_pb2_grpc
from seatkeeper.server.events import log as events
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.report.node_report import NodeReporter
from seatkeeper.server.routing.peers import SECRET_METADATA
from seatkeeper.server.routing.wire import decode_command, encode_outcome, not_understood
from seatkeeper.server.service.failures import answers, pool_not_found
from seatkeeper.server.store.formats import RecordUnreadable

COMMANDS_MAX = 512


class PeerService(peer_service_pb2_grpc.PeerServiceServicer):
    """Decides what other nodes forward."""

    def __init__(self, seats: PoolRouter, reporter: NodeReporter, secret: str) -> None:
        self._seats = seats
        self._reporter = reporter
        self._secret = secret

    @answers
    async def Decide(
        self, request: peer_service_pb2.DecideRequest, context: Context
    ) -> peer_service_pb2.DecideResponse:
        """Decide commands of sessions that the asking node has checked."""
        self._check(context)
        if len(request.commands) > COMMANDS_MAX:
            raise Malformed(
                "commands", f"{len(request.commands)} at once; at most {COMMANDS_MAX}"
            )
        loop = await self._seats.loop(request.pool)
        if loop is None:
            raise pool_not_found(request.pool, f"there is no pool {request.pool!r}")
        passed = [Forwarded(command.peer) for command in request.commands]
        for message, listener in zip(request.commands, passed, strict=True):
            try:
                command = decode_command(message)
            except RecordUnreadable as error:
                events.record_unreadable(error)
                grant_id = message.acquire.grant_id
                listener.receive(request.pool, not_understood(grant_id, error))
                continue
            loop.submit(command, listener)
        decided = await asyncio.gather(*(listener.outcome for listener in passed))
        return peer_service_pb2.DecideResponse(
            outcomes=[encode_outcome(outcome) for outcome, _ in decided],
            revision=max((revision for _, revision in decided), default=0),
        )

    @answers
    async def Ping(
        self, request: peer_service_pb2.PingRequest, context: Context
    ) -> peer_service_pb2.PingResponse:
        """Answer."""
        self._check(context)
        return peer_service_pb2.PingResponse()

    @answers
    async def Report(
        self, request: peer_service_pb2.ReportRequest, context: Context
    ) -> peer_service_pb2.ReportResponse:
        """Return what this node says of itself."""
        self._check(context)
        return peer_service_pb2.ReportResponse(report=self._reporter.report())

    def _check(self, context: Context) -> None:
        given = dict(context.invocation_metadata() or ()).get(SECRET_METADATA, "")
        if not hmac.compare_digest(str(given).encode(), self._secret.encode()):
            raise Failure(
                grpc.StatusCode.UNAUTHENTICATED,
                "this service is for the nodes of one store among themselves",
            )
