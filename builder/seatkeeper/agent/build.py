"""One build: from a token and a model to a published engine.

The order is what keeps the promises. The token is verified and the grant is claimed before a byte of
the model is taken, and before anybody waits for another's build of the same: by its end the token may
have expired. While the claim stands the compiler runs; the engine is on this agent's disk before
it is in the catalogue; and it gets into the catalogue only by a transaction that compares the grant,
so a seat that was lost on the way publishes nothing, however late this agent learns of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc

from seatkeeper.agent.build_runner import BuildRunner, ConvertsOtherwise
from seatkeeper.agent.claim import Claim
from seatkeeper.agent.failures import RETRY_AFTER
from seatkeeper.agent.places import RunningBuild
from seatkeeper.agent.progress_feed import ProgressFeed
from seatkeeper.agent.receiving import Chunks, Offer, receive, wanted
from seatkeeper.agent.uploads import Part, Scope
from seatkeeper.agent.worker_files import WorkerFiles, calibration_key, timings_key
from seatkeeper.artifacts.errors import EngineError, StoreError
from seatkeeper.artifacts.manifest import BuiltEngineFile, SeatUsed, SourceModel, build_manifest
from seatkeeper.artifacts.plan import BuildPlan, engine_key, plan_from_options
from seatkeeper.artifacts.summary import check_model_size
from seatkeeper.builder._worker_process import private_folder
from seatkeeper.builder.compile import CompiledEngine, CompileJob
from seatkeeper.builder.progress import OnProgress, Progress
from seatkeeper.client import AsyncSeatClient
from seatkeeper.core.errors import (
    AlreadyExists,
    EngineNotFound,
    SeatError,
    SeatLost,
    ServiceUnavailable,
    SessionLost,
)
from seatkeeper.core.serving.failure import Failure, retry_info
from seatkeeper.core.tokens import TokenClaims
from seatkeeper.v1 import build_pb2, build_service_pb2

logger = logging.getLogger(__name__)

PUBLISH_AGAIN = 1.0
"""Seconds until an engine that no node would take is offered again."""
COME_BACK = (ServiceUnavailable, SessionLost, AlreadyExists)
"""No node answers, or our own session has ended: the grant may stand all the same."""
PUBLISHING = build_service_pb2.BUILD_PHASE_PUBLISHING
Result = TypeVar("Result")


class MaybePublished(Failure):
    """An engine was offered for publishing, and the outcome is unknown."""

    def __init__(self, key: str) -> None:
        super().__init__(
            grpc.StatusCode.UNAVAILABLE,
            f"no node said whether engine {key} was published; build it again: if it was, it is found",
            retry_info(RETRY_AFTER),
        )


@dataclass(frozen=True)
class Build:
    """One build, checked as far as its header goes."""

    build_runner: BuildRunner
    client: AsyncSeatClient
    agent: build_service_pb2.AgentInfo
    header: build_service_pb2.BuildHeader
    claims: TokenClaims
    feed: ProgressFeed

    async def run(self, chunks: Chunks) -> build_service_pb2.BuildDone:
        """Build and publish. Raises a ``BuildError``, a ``SeatError``, ``Malformed`` or ``Failure``."""
        offer = Offer.of(self.header)
        check_model_size(offer.model_bytes, self.build_runner.limits.model)
        plan = plan_from_options(self.header.options)
        offer.check(plan, self.build_runner.limits.model)
        version = self.build_runner.version(plan)
        key = engine_key(offer.model_hash, plan, version, self._conversion(plan))
        if (published := await self._published(key)) is not None:
            return build_service_pb2.BuildDone(manifest=published, cached=True)
        uploads = self.build_runner.uploads
        uploads.check_room(uploads.missing_bytes(offer.files, self._scope), self._scope)
        try:
            async with Claim(self.client, self.agent, self.header.token, self.claims) as claim:
                work = self._build_once(key, plan, claim, offer, chunks)
                return await while_seat_is_held(claim, work)
        except SeatLost:
            if self._scope is not None:
                uploads.forget(self._scope)
            raise

    def _conversion(self, plan: BuildPlan) -> str:
        return self.build_runner.conversion(plan, self.header.conversion)

    @property
    def _scope(self) -> Scope | None:
        """Whose upload this is, where it may be gone on with."""
        if not self.header.attempt:
            return None
        return (self.claims.pool, self.claims.grant_id, self.claims.fence)

    async def _published(self, key: str) -> build_pb2.SignedManifest | None:
        """Return the engine's manifest when it is in the catalogue and its bytes are here."""
        ours = await self.build_runner.whole(key)
        if ours is not None and await self._is_in_catalogue(key, ours):
            return ours
        return await self._in_shared_store(key)

    async def _in_shared_store(self, key: str) -> build_pb2.SignedManifest | None:
        """Return the manifest of an engine that another agent has published to the store of both."""
        holdings = self.build_runner.holdings
        if holdings.shared is None:
            return None
        try:
            signed = (await self.client.engines.get(key)).manifest
            await holdings.obtain(signed)
            return signed if await holdings.whole(key) == signed else None
        except (EngineNotFound, EngineError, StoreError):
            return None

    async def _is_in_catalogue(self, key: str, signed: build_pb2.SignedManifest) -> bool:
        # Another agent's engine of this key is none that could be fetched here.
        try:
            return (await self.client.engines.get(key)).manifest == signed
        except EngineNotFound:
            return False

    async def _build_once(
        self, key: str, plan: BuildPlan, claim: Claim, offer: Offer, chunks: Chunks
    ) -> build_service_pb2.BuildDone:
        async with self.build_runner.only_build_of(key):
            if (published := await self._published(key)) is not None:
                return build_service_pb2.BuildDone(manifest=published, cached=True)
            signed = await self._publish_kept(key, claim)
            if signed is None:
                await self.build_runner.holdings.check()
                async with self.build_runner.places.take(
                    model_name=self.header.model_name,
                    holder=self.claims.holder,
                    memory_bytes=self.build_runner.memory_needed(
                        offer.model_hash, offer.model_bytes
                    ),
                ) as place:
                    signed = await self._build(plan, claim, offer, chunks, place)
        return build_service_pb2.BuildDone(manifest=signed)

    async def _publish_kept(self, key: str, claim: Claim) -> build_pb2.SignedManifest | None:
        """Publish an engine that an earlier build could not, under this grant; None: there is none."""
        unpublished = self.build_runner.holdings.unpublished
        with ExitStack() as stack:
            try:
                opened = unpublished.open(key)
                engine = await asyncio.to_thread(stack.enter_context, opened)
            except EngineError:
                return None
            manifest = build_pb2.EngineManifest.FromString(engine.signed_manifest.manifest)
            manifest.pool, manifest.grant_id = self.claims.pool, self.claims.grant_id
            manifest.fence, manifest.holder = self.claims.fence, self.claims.holder
            manifest.project = self.claims.project
            return await self._published_to_its_end(manifest, engine.path, claim)

    async def _compiled(
        self,
        plan: BuildPlan,
        offer: Offer,
        chunks: Chunks,
        folder: Path,
        notify: OnProgress,
    ) -> CompiledEngine:
        """Receive the files and compile them; then only the engine is left."""
        uploads = self.build_runner.uploads
        with uploads.parts(offer.files, self._scope) as parts:
            if self._scope is not None:
                self.feed.want(wanted(parts))
                self._log_resumed(parts)
            received = await receive(offer, parts, chunks, folder, self.feed)
            kept = self._kept_for(offer, plan)
            for name, (files, key) in kept.items():
                await asyncio.to_thread(files.lay_out, key, folder / name)
            job = CompileJob(
                model_path=received.model,
                external_files=received.external_files,
                plan=plan,
                engine_path=folder / "engine",
                calibration_path=received.samples.get(plan.precision.calibration.sha256),
                samples_path=received.samples.get(plan.precision.samples.sha256),
                ranges_path=folder / "ranges" if "ranges" in kept else None,
                timings_path=folder / "timings",
                plugin_paths=await asyncio.to_thread(
                    self.build_runner.plugins.copied, plan.plugins, folder
                ),
            )
            engine = await self.build_runner.compile(job, notify)
            for name, (files, key) in kept.items():
                await asyncio.to_thread(files.keep, key, folder / name)
            if engine.costs is not None:
                peak = engine.costs.peak_memory_bytes
                self.build_runner.note_peak(offer.model_hash, peak)
        await asyncio.to_thread(received.remove)
        return engine

    def _kept_for(self, offer: Offer, plan: BuildPlan) -> dict[str, tuple[WorkerFiles, str]]:
        """Return what a worker may use of what others found, and under which key, by folder."""
        runner = self.build_runner
        kept = {"timings": (runner.timings, timings_key(plan.backend, runner.version(plan)))}
        conversion = runner.backends[plan.backend].conversion
        if ranges := calibration_key(offer.model_hash, plan, conversion):
            kept["ranges"] = (runner.calibrations, ranges)
        return kept

    def _log_resumed(self, parts: Mapping[str, Part]) -> None:
        if kept := sum(part.received for part in parts.values()):
            missing = sum(part.missing_bytes for part in parts.values())
            about = {"kept_bytes": kept, "missing_bytes": missing, "holder": self.claims.holder}
            logger.info("upload_resumed", extra=about)

    async def _build(
        self, plan: BuildPlan, claim: Claim, offer: Offer, chunks: Chunks, place: RunningBuild
    ) -> build_pb2.SignedManifest:
        def notify(progress: Progress) -> None:
            self.build_runner.places.at_phase(place, progress.phase)
            self.feed.notify(progress)

        with private_folder(self.build_runner.store.staging) as folder:
            engine = await self._compiled(plan, offer, chunks, folder, notify)
            conversion = self._conversion(plan)
            if conversion and engine.conversion != conversion:
                raise ConvertsOtherwise(
                    f"this agent converted with {engine.conversion}, and had {conversion} when it "
                    "started: restart it"
                )
            notify(Progress(phase=PUBLISHING))
            manifest = build_manifest(
                plan,
                SourceModel(
                    sha256=self.header.model_sha256,
                    name=self.header.model_name,
                    files=offer.external_files,
                    size_bytes=self.header.model_size_bytes,
                ),
                BuiltEngineFile(
                    sha256=engine.sha256,
                    size_bytes=engine.size_bytes,
                    backend_version=engine.backend_version,
                    built_at=datetime.now(UTC),
                    build_time=engine.build_time,
                    precision=engine.precision,
                    conversion=conversion,
                    costs=None
                    if engine.costs is None
                    else replace(engine.costs, seat_time=claim.age),
                ),
                SeatUsed(
                    pool=self.claims.pool,
                    grant_id=self.claims.grant_id,
                    fence=self.claims.fence,
                    holder=self.claims.holder,
                    project=self.claims.project,
                ),
                agent_id=self.agent.agent_id,
            )
            return await self._published_to_its_end(manifest, engine.path, claim)

    async def _published_to_its_end(
        self, manifest: build_pb2.EngineManifest, engine: Path, claim: Claim
    ) -> build_pb2.SignedManifest:
        """Sign and publish an engine. Once that has begun, it is not broken off."""
        manifest.agent_id = self.agent.agent_id
        manifest.store = self.agent.store
        signed = self.build_runner.key.sign(manifest)
        given_up = asyncio.Event()
        publishing = self._publish(manifest.key, signed, engine, claim, given_up)
        await to_its_end(publishing, given_up)
        logger.info(
            "published",
            extra={"key": manifest.key, "fence": manifest.fence, "holder": manifest.holder},
        )
        return signed

    async def _publish(
        self,
        key: str,
        signed: build_pb2.SignedManifest,
        engine: Path,
        claim: Claim,
        given_up: asyncio.Event,
    ) -> None:
        """Put the engine on our disk and into the catalogue, or into neither.

        Where agents share a store, its bytes are in there before.

        Tries until a node answers, or until it is ``given_up``. When it is then unknown whether it
        was published, the catalogue is asked once; an engine that it does not name yet stays on the
        disk all the same, because a try of ours may still be on its way.
        """
        holdings = self.build_runner.holdings
        await holdings.hold(signed, engine)
        may_be_published = False
        while True:
            try:
                # Our own session may have been lost on the way; the seat is the client's.
                await self.client.engines.register_agent(self.agent)
                may_be_published = True
                await self.client.engines.publish(signed, claim_id=claim.claim_id)
            except SeatError as error:
                is_answer = not isinstance(error, COME_BACK)
                if not is_answer and not given_up.is_set():
                    about = {"key": key, "error": str(error), "retry_in_s": PUBLISH_AGAIN}
                    logger.warning("publish_failed", extra=about)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(PUBLISH_AGAIN):
                            await given_up.wait()
                    continue
                # A try may have succeeded although its answer was lost.
                try:
                    if may_be_published and await self._is_in_catalogue(key, signed):
                        await holdings.published(signed)
                        return
                except SeatError as trouble:
                    raise MaybePublished(key) from trouble
                if may_be_published and not is_answer:
                    raise MaybePublished(key) from error
                await asyncio.to_thread(self.build_runner.store.remove, key)
                raise
            else:
                await holdings.published(signed)
                return


async def while_seat_is_held(claim: Claim, work: Awaitable[Result]) -> Result:
    """Return what ``work`` returns; cancel it and raise ``SeatLost`` when the seat is lost."""
    task = asyncio.ensure_future(work)
    ends: set[asyncio.Future[Any]] = {task, claim.lost}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            # What could not be stopped any more, because it was published, is done. Of what may
            # have been published, it must not be reported as unpublished.
            if isinstance(outcome, BaseException) and not isinstance(outcome, MaybePublished):
                raise SeatLost(claim.lost.result())
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def to_its_end(work: Coroutine[Any, Any, None], given_up: asyncio.Event) -> None:
    """Wait until ``work`` has ended; when cancelled, signal it by ``given_up`` and keep waiting."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            given_up.set()
    task.result()
