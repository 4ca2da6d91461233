"""What a build is expected to take, by the builds that are in the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from seatkeeper.artifacts.errors import ModelExternalData
from seatkeeper.artifacts.estimate import (
    Estimate,
    PastBuild,
    PrecisionAdvice,
    advise_precision,
    estimate,
    past_build,
    planned_build,
)
from seatkeeper.artifacts.model_shape import ModelShape, shape_of_file
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.client.builds.external_data import needed_bytes
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import engine_service_pb2 as pb

HISTORY_READ_MAX = 5_000
"""Most engines of the catalogue that are looked at."""
HISTORY_SECONDS_MAX = 3.0
"""Longest that is waited for them; then those that came are what is known."""


class Engines(Protocol):
    """The catalogue."""

    def list(self) -> AsyncIterator[pb.PublishedEngine]:
        """Yield every published engine."""
        ...


async def read_history(engines: Engines, backend: str) -> Sequence[PastBuild]:
    """Return the builds by a backend that the catalogue knows, the newest first.

    At most `HISTORY_READ_MAX`, and those that came within `HISTORY_SECONDS_MAX`.
    """
    found: list[tuple[float, PastBuild]] = []
    seen = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(HISTORY_SECONDS_MAX):
            async for engine in engines.list():
                seen += 1
                manifest = build_pb2.EngineManifest.FromString(engine.manifest.manifest)
                past = past_build(manifest)
                if past is not None and manifest.options.backend == backend:
                    found.append((manifest.built_at.ToNanoseconds(), past))
                if seen >= HISTORY_READ_MAX:
                    break
    return [past for _, past in sorted(found, key=lambda each: each[0], reverse=True)]


async def expected(
    model: Path, model_sha256: str, plan: BuildPlan, history: Sequence[PastBuild]
) -> tuple[Estimate | None, PrecisionAdvice | None]:
    """Return what building a model would take, and in what precision like ones ended.

    None where nothing is known of it. Raises ``OSError`` for a file that cannot be read.
    """
    shape: ModelShape | None = await asyncio.to_thread(_shape, model)
    if shape is None:
        return None, None
    planned = planned_build(model_sha256, shape, plan)
    advice = advise_precision(planned, history, plan.precision.tolerance)
    return estimate(planned, history), advice


def _shape(model: Path) -> ModelShape | None:
    outside: dict[str, int] = {}
    with suppress(ModelExternalData):  # the build refuses it, and says why
        outside = needed_bytes(model)
    return shape_of_file(model, outside.values())
