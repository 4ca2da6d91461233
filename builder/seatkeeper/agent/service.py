"""``BuildService``: compiles models into engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from seatkeeper.agent.build import Build
from seatkeeper.agent.build_runner import BuildRunner
from seatkeeper.agent.failures import failure_of, log_end_of_worker
from seatkeeper.agent.progress_feed import ProgressFeed
from seatkeeper.agent.verifier import Verifier
from seatkeeper.artifacts.errors import ProcessError, ResourceError
from seatkeeper.client import AsyncSeatClient
from seatkeeper.core.serving.failure import Context
from seatkeeper.core.serving.texts import check_texts
from seatkeeper.core.validate import Malformed
from seatkeeper.v1 import build_service_pb2, build_service_pb2_grpc


class BuildService(build_service_pb2_grpc.BuildServiceServicer):
    """Compiles models into engines."""

    def __init__(
        self,
        build_runner: BuildRunner,
        client: AsyncSeatClient,
        verifier: Verifier,
        info: build_service_pb2.AgentInfo,
    ) -> None:
        self._build_runner = build_runner
        self._client = client
        self._verifier = verifier
        self._info = info
        self._builds: set[asyncio.Task[build_service_pb2.BuildDone]] = set()
        self._by_grant: dict[str, asyncio.Task[build_service_pb2.BuildDone]] = {}

    async def ended(self) -> None:
        """Wait until nothing is left of any build."""
        if self._builds:
            await asyncio.wait(self._builds)
        self._build_runner.uploads.forget_all()

    # The stubs know only servicers that yield; grpc.aio also takes one that reads and writes.
    async def Build(  # type: ignore[override]  # the stub's types allow other shapes too
        self, request_iterator: object, context: Context
    ) -> None:
        """Compile one model under one grant."""
        feed = ProgressFeed()
        build = asyncio.create_task(self._build(feed, context))
        build.add_done_callback(lambda _: feed.close())
        self._builds.add(build)
        build.add_done_callback(self._builds.discard)
        try:
            async for progress in feed.messages():
                if (wanted := feed.take_wanted()) is not None:
                    await context.write(build_service_pb2.BuildResponse(wanted=wanted))
                await context.write(build_service_pb2.BuildResponse(progress=progress))
            done = await build
            await context.write(build_service_pb2.BuildResponse(done=done))
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            await failure.notify(context)
        finally:
            # The client is gone, or the build is over: either way no caller waits for it.
            build.cancel()
            await asyncio.gather(build, return_exceptions=True)

    async def _build(self, feed: ProgressFeed, context: Context) -> build_service_pb2.BuildDone:
        first = await context.read()
        if first is grpc.aio.EOF or first.WhichOneof("part") != "header":
            raise Malformed("part", "the first message must carry the header")
        check_texts(first.header)
        claims = await self._verifier.verify(first.header.token)

        async def chunks() -> bytes | None:
            message = await context.read()
            if message is grpc.aio.EOF:
                return None
            if message.WhichOneof("part") != "model_chunk":
                raise Malformed("part", "the header comes once")
            chunk: bytes = message.model_chunk
            return chunk

        build = Build(self._build_runner, self._client, self._info, first.header, claims, feed)
        try:
            async with self._only_try(claims.grant_id, is_later=first.header.attempt > 1):
                return await build.run(chunks)
        except (ProcessError, ResourceError) as error:
            log_end_of_worker(error, model=first.header.model_name, holder=claims.holder)
            raise

    @asynccontextmanager
    async def _only_try(self, grant_id: str, *, is_later: bool) -> AsyncIterator[None]:
        """Be the try that counts under a grant, once what is left of an earlier one has ended.

        Its client has lost the connection, which may look well from here for half a minute more.
        """
        earlier = self._by_grant.get(grant_id)
        if is_later and earlier is not None:
            earlier.cancel()
            await asyncio.wait({earlier})
        task = asyncio.current_task()
        assert task is not None
        self._by_grant[grant_id] = task
        try:
            yield
        finally:
            if self._by_grant.get(grant_id) is task:
                del self._by_grant[grant_id]

    async def FetchEngine(
        self, request: build_service_pb2.FetchEngineRequest, context: Context
    ) -> AsyncIterator[build_service_pb2.FetchEngineResponse]:
        """Return a published engine."""
        try:
            check_texts(request)
            holdings = self._build_runner.holdings
            async with holdings.engine(request.key, self._client) as engine:
                if not 0 <= request.offset <= engine.manifest.file.size_bytes:
                    raise Malformed("offset", "is not within the engine")
                yield build_service_pb2.FetchEngineResponse(manifest=engine.signed_manifest)
                chunks = engine.chunks(request.offset)
                while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                    yield build_service_pb2.FetchEngineResponse(chunk=chunk)
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            await failure.notify(context)

    async def GetCapabilities(
        self, request: build_service_pb2.GetCapabilitiesRequest, context: Context
    ) -> build_service_pb2.GetCapabilitiesResponse:
        """Return what this agent can build, and what it does."""
        self._build_runner.places.describe(self._info)
        return build_service_pb2.GetCapabilitiesResponse(agent=self._info)
