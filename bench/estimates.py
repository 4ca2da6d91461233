"""How far off estimates are: each build of a list is estimated from the others, and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.models.building import Subject
from bench.report import median
from seatkeeper.artifacts.estimate import PastBuild, Planned, estimate
from seatkeeper.builder.compile import CompiledEngine


@dataclass(frozen=True)
class Errors:
    """What estimates without the build itself got wrong."""

    estimated: int
    """Builds that there was an estimate of."""
    error_pct: float
    """Median of the error over the truth."""
    coverage_pct: float
    """Part of the builds that were in their interval, which is to hold four of five."""


def past_build_of(
    what: Subject, engine: CompiledEngine, precision: str, targets: int = 1
) -> PastBuild | None:
    """Return a build as its manifest would describe it; None when it was not measured."""
    if engine.costs is None:
        return None
    planned = Planned(
        model_sha256=hashlib.sha256(what.model).hexdigest(),
        shape=engine.costs.shape,
        precision="model" if precision == "fp32" else precision,
        targets=targets,
        profiles=int(bool(what.profile)),
    )
    return PastBuild(
        planned=planned,
        seconds=engine.build_time.total_seconds(),
        seat_seconds=engine.build_time.total_seconds(),
        peak_memory_bytes=float(max(1, engine.costs.peak_memory_bytes)),
        got=engine.precision.precision if engine.precision else precision,
        refused=(),
    )


def leave_one_out(builds: Sequence[PastBuild]) -> Errors:
    """Estimate each build from all others."""
    return _errors(builds, lambda build, other: other is not build)


def leave_model_out(builds: Sequence[PastBuild]) -> Errors:
    """Estimate each build from those of other models: what a model costs that is new."""

    def is_other(build: PastBuild, other: PastBuild) -> bool:
        return other.planned.model_sha256 != build.planned.model_sha256

    return _errors(builds, is_other)


def _errors(
    builds: Sequence[PastBuild], counts: Callable[[PastBuild, PastBuild], bool]
) -> Errors:
    off: list[float] = []
    within = 0
    for build in builds:
        found = estimate(build.planned, [other for other in builds if counts(build, other)])
        if found is None:
            continue
        off.append(100 * abs(found.seconds.likely - build.seconds) / build.seconds)
        within += found.seconds.low <= build.seconds <= found.seconds.high
    if not off:
        return Errors(0, 0.0, 0.0)
    return Errors(len(off), median(off), 100 * within / len(off))
