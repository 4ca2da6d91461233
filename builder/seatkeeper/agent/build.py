"""One build: from a token and a model to a published engine.

The order is what keeps the promises. The token is verified and the grant is claimed before a byte of
the model is taken, and before anybody waits for another's build of the same: by its end the token may
have expired. While the claim stands the compiler runs; the engine is on this agent's disk before
it is in the catalogue; and it gets into the catalogue only by a transaction that compares the grant,
so a seat that was lost on the way publishes nothing, however late this agent learns of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc

from seatkeeper.agent.build_runner import BuildRunner
from seatkeeper.agent.calibrations import calibration_key
from seatkeeper.agent.claim import Claim
from seatkeeper.agent.failures import RETRY_AFTER
from seatkeeper.agent.places import RunningBuild
from seatkeeper.agent.progress_feed import ProgressFeed
from seatkeeper.artifacts.errors import DiskFull, ModelTruncated, SamplesTooLarge
from seatkeeper.artifacts.manifest import BuiltEngineFile, SeatUsed, SourceModel, build_manifest
from seatkeeper.artifacts.plan import BuildPlan, engine_key, plan_from_options
from seatkeeper.artifacts.store import DISK_FULL_ERRNOS
from seatkeeper.artifacts.summary import check_model_size
from seatkeeper.builder._worker_process import private_folder
from seatkeeper.builder.compile import CompileJob
from seatkeeper.builder.progress import Progress
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
from seatkeeper.core.validate import Malformed
from seatkeeper.v1 import build_pb2, build_service_pb2

logger = logging.getLogger(__name__)

PUBLISH_AGAIN = 1.0
"""Seconds until an engine that no node would take is offered again."""
MODEL_NAME_CHARS_MAX = 255
COME_BACK = (ServiceUnavailable, SessionLost, AlreadyExists)
"""No node answers, or our own session has ended: the grant may stand all the same."""
PUBLISHING = build_service_pb2.BUILD_PHASE_PUBLISHING
Chunks = Callable[[], Awaitable[bytes | None]]
"""Returns the model's next bytes; None: there are no more."""
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
        _check_header(self.header)
        check_model_size(self.header.model_size_bytes, self.build_runner.limits.model)
        plan = plan_from_options(self.header.options)
        _check_attachments(self.header, plan, self.build_runner.limits.model.bytes_max)
        version = self.build_runner.version(plan)
        key = engine_key(self.header.model_sha256, plan, version)
        if (published := await self._published(key)) is not None:
            return build_service_pb2.BuildDone(manifest=published, cached=True)
        async with Claim(self.client, self.agent, self.header.token, self.claims) as claim:
            return await while_seat_is_held(claim, self._build_once(key, plan, claim, chunks))

    async def _published(self, key: str) -> build_pb2.SignedManifest | None:
        """Return the engine's manifest when it is in the catalogue and its bytes are here."""
        ours = await self.build_runner.whole(key)
        return ours if ours is not None and await self._is_in_catalogue(key, ours) else None

    async def _is_in_catalogue(self, key: str, signed: build_pb2.SignedManifest) -> bool:
        # Another agent's engine of this key is none that could be fetched here.
        try:
            return (await self.client.engines.get(key)).manifest == signed
        except EngineNotFound:
            return False

    async def _build_once(
        self, key: str, plan: BuildPlan, claim: Claim, chunks: Chunks
    ) -> build_service_pb2.BuildDone:
        async with self.build_runner.only_build_of(key):
            if (published := await self._published(key)) is not None:
                return build_service_pb2.BuildDone(manifest=published, cached=True)
            async with self.build_runner.places.take(
                model_name=self.header.model_name,
                holder=self.claims.holder,
                memory_bytes=self.build_runner.memory_needed(
                    self.header.model_sha256, self.header.model_size_bytes
                ),
            ) as place:
                signed = await self._build(plan, claim, chunks, place)
        return build_service_pb2.BuildDone(manifest=signed)

    async def _build(
        self, plan: BuildPlan, claim: Claim, chunks: Chunks, place: RunningBuild
    ) -> build_pb2.SignedManifest:
        def notify(progress: Progress) -> None:
            self.build_runner.places.at_phase(place, progress.phase)
            self.feed.notify(progress)

        with private_folder(self.build_runner.store.staging) as folder:
            received = await receive(self.header, chunks, folder)
            ranges = calibration_key(self.header.model_sha256, plan)
            calibrations = self.build_runner.calibrations
            if ranges:
                await asyncio.to_thread(calibrations.lay_out, ranges, folder / "ranges")
            job = CompileJob(
                model_path=received[self.header.model_sha256],
                plan=plan,
                engine_path=folder / "engine",
                calibration_path=received.get(plan.precision.calibration.sha256),
                samples_path=received.get(plan.precision.samples.sha256),
                ranges_path=folder / "ranges" if ranges else None,
                plugin_paths=await asyncio.to_thread(
                    self.build_runner.plugins.copied, plan.plugins, folder
                ),
            )
            engine = await self.build_runner.compile(job, notify)
            if ranges:
                await asyncio.to_thread(calibrations.keep, ranges, folder / "ranges")
            if engine.costs is not None:
                peak = engine.costs.peak_memory_bytes
                self.build_runner.note_peak(self.header.model_sha256, peak)
            for path in received.values():
                path.unlink()
            notify(Progress(phase=PUBLISHING))
            manifest = build_manifest(
                plan,
                SourceModel(sha256=self.header.model_sha256, name=self.header.model_name),
                BuiltEngineFile(
                    sha256=engine.sha256,
                    size_bytes=engine.size_bytes,
                    backend_version=engine.backend_version,
                    built_at=datetime.now(UTC),
                    build_time=engine.build_time,
                    precision=engine.precision,
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
            signed = self.build_runner.key.sign(manifest)
            given_up = asyncio.Event()
            publishing = self._publish(manifest.key, signed, engine.path, claim, given_up)
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

        Tries until a node answers, or until it is ``given_up``. When it is then unknown whether it
        was published, the catalogue is asked once; an engine that it does not name yet stays on the
        disk all the same, because a try of ours may still be on its way.
        """
        await asyncio.to_thread(self.build_runner.store.publish, signed, engine)
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
                        return
                except SeatError as trouble:
                    raise MaybePublished(key) from trouble
                if may_be_published and not is_answer:
                    raise MaybePublished(key) from error
                await asyncio.to_thread(self.build_runner.store.remove, key)
                raise
            else:
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


async def receive(
    header: build_service_pb2.BuildHeader, chunks: Chunks, folder: Path
) -> dict[str, Path]:
    """Write the model and the files that follow it to ``folder``; return where they are, by hash.

    Raises ``ModelTruncated`` when they end early, ``Malformed`` when one is longer or other than the
    header says, and ``DiskFull``.
    """
    expected = [(header.model_sha256, header.model_size_bytes)]
    expected += [(each.sha256, each.size_bytes) for each in header.attachments]
    received: dict[str, Path] = {}
    try:
        for number, (sha256, size_bytes) in enumerate(expected):
            path = folder / f"received-{number}"
            await _receive_file(path, sha256, size_bytes, chunks, is_model=number == 0)
            received[sha256] = path
        while (rest := await chunks()) is not None:
            if rest:
                raise Malformed("model_chunk", "over the bytes that the header announces")
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull("no room for the model") from error
        raise
    return received


async def _receive_file(
    path: Path, sha256: str, size_bytes: int, chunks: Chunks, *, is_model: bool
) -> None:
    what = "the model" if is_model else f"the file {sha256[:12]}"
    digest, received = hashlib.sha256(), 0
    with path.open("xb") as file:
        while received < size_bytes and (chunk := await chunks()) is not None:
            received += len(chunk)
            if received > size_bytes:
                raise Malformed("model_chunk", f"over the {size_bytes} bytes of {what}")
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
    if received < size_bytes:
        raise ModelTruncated(f"{received} bytes of {what} came, of {size_bytes}")
    if digest.hexdigest() != sha256:
        field = "model_sha256" if is_model else "attachments"
        raise Malformed(field, "is not that of the bytes that came")


def _check_attachments(
    header: build_service_pb2.BuildHeader, plan: BuildPlan, bytes_max: int
) -> None:
    """Raise ``Malformed`` or ``SamplesTooLarge`` unless what is sent along is what the plan names."""
    named = [
        samples.sha256
        for samples in (plan.precision.calibration, plan.precision.samples)
        if samples.sha256
    ]
    sent = [each.sha256 for each in header.attachments]
    if sent != list(dict.fromkeys(named)):
        raise Malformed(
            "attachments", "are not the samples that the options name, in that order"
        )
    for each in header.attachments:
        if each.sha256 == header.model_sha256:
            raise Malformed("attachments", "name the model itself")
        if each.size_bytes <= 0:
            raise Malformed("attachments", f"{each.sha256[:12]} is empty")
        if each.size_bytes > bytes_max:
            raise SamplesTooLarge(
                f"the samples have {each.size_bytes} bytes, more than {bytes_max}"
            )


def _check_header(header: build_service_pb2.BuildHeader) -> None:
    if len(header.model_sha256) != 64 or set(header.model_sha256) - set("0123456789abcdef"):
        raise Malformed("model_sha256", "is not 64 lower-case hexadecimal digits")
    if header.model_size_bytes < 0:
        raise Malformed("model_size_bytes", "is negative")
    name = re.split(r"[/\\]", header.model_name)[-1]
    if not 0 < len(name) <= MODEL_NAME_CHARS_MAX or not name.isprintable():
        raise Malformed(
            "model_name", f"must have 1 to {MODEL_NAME_CHARS_MAX} characters, all printable"
        )
