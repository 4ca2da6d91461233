"""One build agent, reached directly: the calls of its build service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc
from grpc import aio

from seatkeeper.client.transport.answers import answers_of
from seatkeeper.client.transport.edge import sends
from seatkeeper.client.transport.status import FirstStatus
from seatkeeper.client.transport.translate import from_rpc
from seatkeeper.core.errors import (
    AgentFull,
    AgentUnavailable,
    BuildFailed,
    BuildTimedOut,
    EngineDamaged,
    EngineNotFound,
    ModelRejected,
    SeatLost,
)
from seatkeeper.v1 import build_service_pb2 as pb
from seatkeeper.v1 import build_service_pb2_grpc as pb_grpc

_Code = grpc.StatusCode
_MEANINGS = {
    _Code.INVALID_ARGUMENT: ModelRejected,
    _Code.FAILED_PRECONDITION: BuildFailed,
    _Code.RESOURCE_EXHAUSTED: AgentFull,
    _Code.DEADLINE_EXCEEDED: BuildTimedOut,
    _Code.ABORTED: SeatLost,
    # A crash of the compiler comes with the end of its output. Without that, gRPC's own call broke,
    # and another agent may do better.
    _Code.INTERNAL: AgentUnavailable,
    _Code.UNKNOWN: BuildFailed,
    _Code.DATA_LOSS: EngineDamaged,
    _Code.NOT_FOUND: EngineNotFound,
    _Code.UNAVAILABLE: AgentUnavailable,
    _Code.CANCELLED: AgentUnavailable,
    _Code.UNIMPLEMENTED: AgentUnavailable,
}


@sends
class AsyncAgent:
    """A connection to one agent. Close it, or use it as ``async with``."""

    def __init__(self, address: str, channel: aio.Channel, call_timeout: timedelta) -> None:
        self.address = address
        """Where it is: ``host:port``."""
        self._channel = channel
        self._call_timeout = call_timeout.total_seconds()

    async def __aenter__(self) -> Self:
        """Connect when first used."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection; calls under way are cancelled, and with them their builds."""
        await self._channel.close()

    async def capabilities(self) -> pb.AgentInfo:
        """Return what the agent can build. Raises `AgentUnavailable`."""
        try:
            answer = await pb_grpc.BuildServiceStub(self._channel).GetCapabilities(
                pb.GetCapabilitiesRequest(), timeout=self._call_timeout
            )
        except aio.AioRpcError as error:
            raise from_rpc(
                error, _MEANINGS | {_Code.DEADLINE_EXCEEDED: AgentUnavailable}
            ) from (error)
        return answer.agent

    async def build(
        self, header: pb.BuildHeader, chunks: AsyncIterable[bytes]
    ) -> AsyncGenerator[pb.BuildResponse, None]:
        """Compile one model: yield progress, then ``done``. Leaving the loop stops the build.

        Raises `TokenInvalid`, `SeatLost`, or another `BuildFailed`; then nothing is published. Only
        after `AgentUnavailable` the outcome is unknown: asked again, a published engine is found.
        """

        async def parts() -> AsyncIterator[pb.BuildRequest]:
            yield pb.BuildRequest(header=header)
            async for chunk in chunks:
                yield pb.BuildRequest(model_chunk=chunk)

        call = pb_grpc.BuildServiceStub(self._channel).Build(parts())
        status = FirstStatus(call)
        try:
            async with answers_of(call) as answers:
                async for answer in answers:
                    yield answer
        except aio.AioRpcError as error:
            raise from_rpc(status.of(error), _MEANINGS) from error

    async def fetch(
        self, key: str, *, offset: int = 0
    ) -> AsyncGenerator[pb.FetchEngineResponse, None]:
        """Yield an engine's manifest, then its bytes in pieces. What arrives is not verified here.

        An older agent does not know ``offset``, and sends all bytes: more than are missing.

        Raises `EngineNotFound`, `EngineDamaged`, `AgentFull` or `AgentUnavailable`.
        """
        call = pb_grpc.BuildServiceStub(self._channel).FetchEngine(
            pb.FetchEngineRequest(key=key, offset=offset)
        )
        try:
            async with answers_of(call) as answers:
                async for answer in answers:
                    yield answer
        except aio.AioRpcError as error:
            raise from_rpc(error, _MEANINGS) from error
