"""One build: from a token and a model to a published engine.

The order is what keeps the promises. The token is verified and the grant is claimed before a byte of
the model is taken; while the claim stands the compiler runs; the engine is on this agent's disk before
it is in the catalogue; and it gets into the catalogue only by a transaction that compares the grant,
so a seat that was lost on the way publishes nothing, however late this agent learns of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from seatkeeper.builder.agent.claim import Claim
from seatkeeper.builder.agent.progress_feed import ProgressFeed
from seatkeeper.builder.agent.workshop import Workshop
from seatkeeper.builder.engines import DISK_FULL_ERRNOS
from seatkeeper.builder.errors import DiskFull, ModelTruncated
from seatkeeper.builder.manifest import build_manifest
from seatkeeper.builder.plan import BuildPlan, engine_key, plan_from_options
from seatkeeper.builder.progress import Progress
from seatkeeper.builder.summary import check_model_size
from seatkeeper.client import AsyncSeatClient
from seatkeeper.client.errors import EngineNotFound, SeatLost
from seatkeeper.client.tokens import TokenClaims
from seatkeeper.server.validate import Malformed
from seatkeeper.v1 import build_pb2, build_service_pb2

logger = logging.getLogger(__name__)

PUBLISHING = build_service_pb2.BUILD_PHASE_PUBLISHING
Chunks = Callable[[], Awaitable[bytes | None]]
"""Returns the model's next bytes; None: there are no more."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Build:
    """One build, checked as far as its header goes."""

    workshop: Workshop
    client: AsyncSeatClient
    agent_id: str
    header: build_service_pb2.BuildHeader
    claims: TokenClaims
    feed: ProgressFeed

    async def run(self, chunks: Chunks) -> build_service_pb2.BuildDone:
        """Build and publish. Raises a ``BuildError``, a ``SeatError``, ``Malformed`` or ``Failure``."""
        _check_header(self.header)
        check_model_size(self.header.model_size_bytes, self.workshop.limits.model)
        plan = plan_from_options(self.header.options)
        version = self.workshop.version(plan)
        key = engine_key(self.header.model_sha256, plan, version)
        async with self.workshop.only_build_of(key):
            if (published := await self._published(key)) is not None:
                return build_service_pb2.BuildDone(manifest=published, cached=True)
            async with (
                self.workshop.place(),
                Claim(self.client, self.agent_id, self.header.token, self.claims) as claim,
            ):
                signed = await while_seat_is_held(claim, self._build(plan, claim, chunks))
        return build_service_pb2.BuildDone(manifest=signed)

    async def _published(self, key: str) -> build_pb2.SignedManifest | None:
        """Return the engine's manifest when it is in the catalogue and its bytes are here."""
        if not self.workshop.store.has(key):
            return None
        try:
            return (await self.client.engines.get(key)).manifest
        except EngineNotFound:
            return None

    async def _build(
        self, plan: BuildPlan, claim: Claim, chunks: Chunks
    ) -> build_pb2.SignedManifest:
        staging = self.workshop.store.staging
        with tempfile.TemporaryDirectory(dir=staging, ignore_cleanup_errors=True) as folder:
            model = Path(folder) / "model.onnx"
            await receive(self.header, chunks, model)
            engine = await self.workshop.compile(
                model, plan, Path(folder) / "engine", self.feed.tell
            )
            model.unlink()
            self.feed.tell(Progress(phase=PUBLISHING))
            manifest = build_manifest(
                plan=plan,
                engine_sha256=engine.sha256,
                engine_size_bytes=engine.size_bytes,
                model_sha256=self.header.model_sha256,
                model_name=self.header.model_name,
                backend_version=engine.backend_version,
                agent_id=self.agent_id,
                pool=self.claims.pool,
                grant_id=self.claims.grant_id,
                fence=self.claims.fence,
                holder=self.claims.holder,
                project=self.claims.project,
                built_at=datetime.now(UTC),
                build_time=engine.build_time,
            )
            signed = self.workshop.key.sign(manifest)
            await asyncio.to_thread(self.workshop.store.publish, signed, engine.path)
        try:
            await self.client.engines.publish(signed, claim_id=claim.claim_id)
        except SeatLost:
            await asyncio.to_thread(self.workshop.store.remove, manifest.key)
            raise
        logger.info(
            "published",
            extra={"key": manifest.key, "fence": manifest.fence, "holder": manifest.holder},
        )
        return signed


async def while_seat_is_held(claim: Claim, work: Awaitable[Result]) -> Result:
    """Return what ``work`` returns; cancel it and raise ``SeatLost`` when the seat is lost."""
    task = asyncio.ensure_future(work)
    ends: set[asyncio.Future[Any]] = {task, claim.lost}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise SeatLost(claim.lost.result())
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def receive(header: build_service_pb2.BuildHeader, chunks: Chunks, model: Path) -> None:
    """Write the model that follows ``header`` to a file.

    Raises ``ModelTruncated`` when it ends early, ``Malformed`` when it is longer or other than
    the header says, and ``DiskFull``.
    """
    digest, received = hashlib.sha256(), 0
    try:
        with model.open("xb") as file:
            while (chunk := await chunks()) is not None:
                received += len(chunk)
                if received > header.model_size_bytes:
                    raise Malformed(
                        "model_chunk", f"over the {header.model_size_bytes} bytes of the header"
                    )
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull("no room for the model") from error
        raise
    if received < header.model_size_bytes:
        raise ModelTruncated(
            f"{received} bytes of the model came, of {header.model_size_bytes}"
        )
    if digest.hexdigest() != header.model_sha256:
        raise Malformed("model_sha256", "is not that of the bytes that came")


def _check_header(header: build_service_pb2.BuildHeader) -> None:
    if len(header.model_sha256) != 64 or set(header.model_sha256) - set("0123456789abcdef"):
        raise Malformed("model_sha256", "is not 64 lower-case hexadecimal digits")
    if header.model_size_bytes < 0:
        raise Malformed("model_size_bytes", "is negative")
    if not header.model_name or len(header.model_name) > 255:
        raise Malformed("model_name", "must have 1 to 255 characters")
