"""Build agents that compile nothing, and a catalogue that believes them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from grpc import aio

from seatkeeper.artifacts.manifest import (
    AgentKey,
    BuiltEngineFile,
    SeatUsed,
    SourceModel,
    build_manifest,
)
from seatkeeper.artifacts.plan import plan_from_options
from seatkeeper.core.serving.failure import Failure
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import build_service_pb2 as pb
from seatkeeper.v1 import build_service_pb2_grpc as pb_grpc
from seatkeeper.v1 import engine_service_pb2 as engines_pb
from seatkeeper.v1 import engine_service_pb2_grpc as engines_grpc

VERSION = "1.7.1.116"
ENGINE_CHUNK = 100_000
Context = aio.ServicerContext[Any, Any]


class ScriptedCatalogue(engines_grpc.EngineServiceServicer):
    """Knows agents and engines. Claims and publishing are for agents, which need neither here."""

    def __init__(self) -> None:
        self.agents_known: list[pb.AgentInfo] = []
        self.engines: dict[str, engines_pb.PublishedEngine] = {}

    def add_to(self, server: aio.Server) -> None:
        engines_grpc.add_EngineServiceServicer_to_server(self, server)

    async def ListAgents(
        self, request: engines_pb.ListAgentsRequest, context: Context
    ) -> engines_pb.ListAgentsResponse:
        return engines_pb.ListAgentsResponse(agents=self.agents_known)

    async def GetEngine(
        self, request: engines_pb.GetEngineRequest, context: Context
    ) -> engines_pb.GetEngineResponse:
        if request.key not in self.engines:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such engine")
        return engines_pb.GetEngineResponse(engine=self.engines[request.key])

    async def ListEngines(
        self, request: engines_pb.ListEnginesRequest, context: Context
    ) -> engines_pb.ListEnginesResponse:
        keys = [key for key in sorted(self.engines) if key > request.after]
        page = keys[:2]
        return engines_pb.ListEnginesResponse(
            engines=[self.engines[key] for key in page],
            next=page[-1] if len(keys) > len(page) else "",
        )

    async def RegisterAgent(self, request: Any, context: Context) -> Any:
        raise NotImplementedError

    async def DrainAgent(self, request: Any, context: Context) -> Any:
        raise NotImplementedError

    async def ClaimGrant(self, request: Any, context: Context) -> Any:  # type: ignore[override]  # the stub's types allow other shapes too
        raise NotImplementedError

    async def YieldGrant(self, request: Any, context: Context) -> Any:
        raise NotImplementedError

    async def PublishEngine(self, request: Any, context: Context) -> Any:
        raise NotImplementedError


class ScriptedAgent(pb_grpc.BuildServiceServicer):
    """Its engine for a model is the model's bytes, reversed."""

    def __init__(
        self, catalogue: ScriptedCatalogue, name: str, *, version: str = VERSION
    ) -> None:
        self.catalogue = catalogue
        self.key = AgentKey.generate()
        self.signs_with = self.key
        self.info = pb.AgentInfo(
            agent_id=name,
            backends=[
                pb.BackendInfo(name="tensorrt_rtx", version=version, targets=["SM86", "SM89"])
            ],
            pool="tensorrt",
            builds_max=1,
            model_bytes_max=10 << 20,
            public_key=self.key.public_key,
        )
        self.builds: list[pb.BuildHeader] = []
        self.models: list[bytes] = []
        self.fail_with: tuple[Any, ...] | None = None
        """A status, a message and details."""
        self.hang = False
        self.stopped = asyncio.Event()
        self.damage = b""
        self.bytes_of: dict[str, bytes] = {}
        self._server: aio.Server | None = None

    async def start(self) -> None:
        self._server = aio.server()
        pb_grpc.add_BuildServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.info.address = f"127.0.0.1:{port}"
        await self._server.start()
        self.catalogue.agents_known.append(self.info)

    async def kill(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def Build(
        self, requests: AsyncIterator[pb.BuildRequest], context: Context
    ) -> AsyncIterator[pb.BuildResponse]:
        header = (await anext(requests)).header
        self.builds.append(header)
        if self.fail_with is not None:
            await Failure(*self.fail_with).notify(context)
        chunks = [part.model_chunk async for part in requests]
        assert all(len(chunk) <= 1 << 20 for chunk in chunks)
        model = b"".join(chunks)
        self.models.append(model)
        yield pb.BuildResponse(
            progress=pb.BuildProgress(phase=pb.BUILD_PHASE_BUILDING, steps=7)
        )
        if self.hang:
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
        signed = self.publish(header.options, model, header.model_name)
        yield pb.BuildResponse(done=pb.BuildDone(manifest=signed))

    def publish(
        self, options: build_pb2.BuildOptions, model: bytes, name: str = "m.onnx"
    ) -> build_pb2.SignedManifest:
        engine = model[::-1]
        manifest = build_manifest(
            plan_from_options(options),
            SourceModel(sha256=hashlib.sha256(model).hexdigest(), name=name),
            BuiltEngineFile(
                sha256=hashlib.sha256(engine).hexdigest(),
                size_bytes=len(engine),
                backend_version=self.info.backends[0].version,
                built_at=datetime(2026, 1, 1, tzinfo=UTC),
                build_time=timedelta(seconds=3),
            ),
            SeatUsed(pool="tensorrt", grant_id="g", fence=1, holder="h", project="p"),
            agent_id=self.info.agent_id,
        )
        signed = self.signs_with.sign(manifest)
        self.bytes_of[manifest.key] = engine
        self.catalogue.engines[manifest.key] = engines_pb.PublishedEngine(
            manifest=signed, addresses=[self.info.address]
        )
        return signed

    async def FetchEngine(
        self, request: pb.FetchEngineRequest, context: Context
    ) -> AsyncIterator[pb.FetchEngineResponse]:
        if request.key not in self.bytes_of:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        yield pb.FetchEngineResponse(manifest=self.catalogue.engines[request.key].manifest)
        engine = self.bytes_of[request.key] + self.damage
        for start in range(0, len(engine), ENGINE_CHUNK):
            yield pb.FetchEngineResponse(chunk=engine[start : start + ENGINE_CHUNK])

    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: Context
    ) -> pb.GetCapabilitiesResponse:
        return pb.GetCapabilitiesResponse(agent=self.info)
