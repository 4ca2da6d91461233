"""A node as its callers see it: one port, its services, and how it stops without breaking a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from seatkeeper.core.serving.handlers import CallGate, WrappingServer, decoding
from seatkeeper.server.service import SERVICES
from seatkeeper.server.service.seat_service import SeatService
from seatkeeper.server.transport import Transport

FORCED = timedelta(seconds=1)
"""How long calls that are asked to end at the end of the grace may take to do so."""
LAST_CALLS_SECONDS = 0.05
"""How long calls that were on their way when the last one ended are still answered."""
SERVER_STOP_SECONDS = 1.0
"""How long gRPC's own stop may take, once no call of ours is under way."""


class NodeServer:
    """The gRPC server of one node."""

    def __init__(
        self,
        transport: Transport,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        listen: str,
        credentials: grpc.ServerCredentials | None,
    ) -> None:
        """Listen, and serve nothing yet. Raises ``ListenError``."""
        self._transport = transport
        self.server = transport.server(interceptors)
        """gRPC's own."""
        self.gate = CallGate()
        """Counts the calls under way."""
        self.address = transport.listen(self.server, listen, credentials)
        """Where it listens: ``host:port``."""
        wrapping = WrappingServer(self.server, [self.gate.wrap, decoding])
        self.services = cast("grpc.aio.Server", wrapping)
        """Where services are added."""
        self.health = health.aio.HealthServicer()
        """What health checks are answered with."""
        self.drained = asyncio.Event()
        """Set when a caller has asked the node to stop."""

    async def start(self) -> None:
        """Serve the services that were added, health checks and reflection."""
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.services)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self.services
        )
        await self.server.start()

    async def stop(self, seat_service: SeatService, grace: timedelta) -> None:
        """Finish the calls under way, for ``grace`` at most, and stop listening."""
        self.gate.close()
        seat_service.stop("the node is stopping")
        if not await self.gate.drained(grace):
            seat_service.end_streams()
            if not await self.gate.drained(FORCED):
                self.gate.end()
                await self.gate.drained(FORCED)
        await seat_service.close()
        await asyncio.sleep(LAST_CALLS_SECONDS)
        self._transport.end_connections(self.address)
        await self.server.stop(SERVER_STOP_SECONDS)

    async def wait(self) -> None:
        """Wait until the server has ended."""
        await self.server.wait_for_termination()
