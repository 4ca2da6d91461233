"""Compiles a model in a process of its own, on behalf of an asyncio program."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from seatkeeper.artifacts.errors import BuildError, CompilerCrashed, EngineTooLarge
from seatkeeper.artifacts.manifest import BuildCosts
from seatkeeper.artifacts.model_shape import ModelShape
from seatkeeper.artifacts.plan import TARGETS, BuildPlan
from seatkeeper.artifacts.precision_report import PrecisionReport, report_from_fields
from seatkeeper.artifacts.summary import (
    ModelSummary,
    check_file_size,
    check_model_size,
    summary_from_fields,
)
from seatkeeper.builder._worker_process import private_folder, run_worker
from seatkeeper.builder.job import INT32_MAX, BuildLimits, Done, WorkerJob, options_hex
from seatkeeper.builder.progress import CONVERTING, OnProgress, PhaseTimes, Progress
from seatkeeper.v1 import build_service_pb2

TEXT_MAX = 500
INT64_MAX = 2**63 - 1
_FORWARDED = frozenset({"LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TZ"})
_FORWARDED_PREFIXES = ("CUDA_", "NVIDIA_")


@dataclass(frozen=True, kw_only=True)
class CompileJob:
    """One model to compile."""

    model_path: Path
    """The model. It is read while the job runs, and left alone."""
    plan: BuildPlan
    """What to make of it."""
    engine_path: Path
    """Where the engine shall be. Its folder holds the worker's files, too, while it runs."""
    calibration_path: Path | None = None
    """Samples to calibrate with, where the plan has some. So the next."""
    samples_path: Path | None = None
    """Samples to measure accuracy with."""
    external_files: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the files that hold weights, by their paths in the folder of ``model_path``."""
    ranges_path: Path | None = None
    """Folder of the ranges that calibration found before; those that are found now are left in it."""
    timings_path: Path | None = None
    """Folder of what the compiler timed before, where it uses that; what it timed now is left in it."""
    plugin_paths: tuple[Path, ...] = ()
    """Libraries of plugins to load: copies that nothing else writes to."""


@dataclass(frozen=True, kw_only=True)
class CompiledEngine:
    """An engine that was just compiled."""

    path: Path
    """The job's ``engine_path``."""
    sha256: str
    """Of its bytes, in lower-case hexadecimal."""
    size_bytes: int
    backend_version: str
    """Version of the library that made it; part of its key."""
    summary: ModelSummary
    """What the model was."""
    precision: PrecisionReport | None
    """What became of its precision; None: it was compiled as it was."""
    build_time: timedelta
    """Wall time from the start of the worker to the finished engine."""
    costs: BuildCosts | None = None
    """What it took; None when the worker could not measure the model."""
    conversion: str = ""
    """What may have converted the model: see ``conversion.version``."""


async def compile_engine(
    job: CompileJob,
    limits: BuildLimits,
    on_progress: OnProgress,
    environment: Mapping[str, str] | None = None,
) -> CompiledEngine:
    """Compile one model and return its engine.

    The compiler runs in a process of its own, so whatever it does costs this build alone, and
    cancelling this call kills it at once. Unless this returns, nothing is at ``engine_path``;
    in every case no other file is left. ``environment`` is all that the worker sees of ours:
    see ``worker_environment``. Raises a ``BuildError`` other than ``EngineError``s, and what
    ``on_progress`` raises.
    """
    model_bytes = job.model_path.stat().st_size
    check_file_size(model_bytes, limits.model)
    check_model_size(model_bytes + sum(job.external_files.values()), limits.model)
    clock = asyncio.get_running_loop().time
    began = clock()
    with private_folder(job.engine_path.parent) as folder:
        draft = folder / "engine"
        worker_job = _worker_job(limits, job.plan.backend, replace(job, engine_path=draft))
        phases = PhaseTimes(began, clock)

        def note(progress: Progress) -> None:
            phases.enter(progress.phase)
            on_progress(progress)

        done = await run_worker(worker_job, folder, limits, note, environment or {})
        summary, version, precision = _read_result(done)
        costs = _costs(done, phases.spent_in(CONVERTING))
        sha256, size_bytes = await asyncio.to_thread(_measure, draft, limits.engine_bytes_max)
        build_time = timedelta(seconds=clock() - began)
        draft.replace(job.engine_path)
    return CompiledEngine(
        path=job.engine_path,
        sha256=sha256,
        size_bytes=size_bytes,
        backend_version=version,
        summary=summary,
        precision=precision,
        build_time=build_time,
        costs=costs,
        conversion=str(done.fields.get("conversion", ""))[:TEXT_MAX],
    )


async def probe_backend(
    name: str,
    scratch: Path,
    limits: BuildLimits,
    environment: Mapping[str, str] | None = None,
) -> build_service_pb2.BackendInfo:
    """Return the version of a backend and the targets it can compile for on this host.

    The library is loaded in a worker, never in this process; ``scratch`` holds its files. Raises
    ``BackendMissing`` when it does not load, and what a crash of it becomes.
    """
    with private_folder(scratch) as folder:
        worker_job = _worker_job(limits, backend=name)
        done = await run_worker(
            worker_job, folder, limits, lambda progress: None, environment or {}
        )
    try:
        known = set(TARGETS[name])
        return build_service_pb2.BackendInfo(
            name=name,
            version=str(done.fields["version"]),
            targets=[target for target in done.fields["targets"] if target in known],
            precisions=[str(name) for name in done.fields["precisions"]],
            conversion=str(done.fields["conversion"])[:TEXT_MAX],
            features=[
                build_service_pb2.BackendFeature(name=each, lacking=str(lacking)[:TEXT_MAX])
                for each, lacking in sorted(done.fields["features"].items())
            ],
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise CompilerCrashed("the worker's result makes no sense") from error


async def probe_isolation(
    scratch: Path, limits: BuildLimits, environment: Mapping[str, str] | None = None
) -> str:
    """Return why workers cannot be isolated on this host; empty: they can."""
    try:
        with private_folder(scratch) as folder:
            worker_job = _worker_job(replace(limits, isolate=True), backend="")
            done = await run_worker(
                worker_job, folder, limits, lambda progress: None, environment or {}
            )
    except BuildError as error:
        return error.message
    return "" if done.fields.get("isolated") is True else str(done.fields.get("refusal"))


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of a process's environment its workers need: paths and the GPU's settings.

    A worker reads what strangers sent, so tokens and passwords must not be in its sight.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES)
    }


def _worker_job(limits: BuildLimits, backend: str, job: CompileJob | None = None) -> WorkerJob:
    common = WorkerJob(
        parent_pid=os.getpid(),
        backend=backend,
        memory_bytes=limits.memory_bytes + limits.memory_bytes // 4,
        stack_bytes=limits.stack_bytes,
        engine_bytes_max=limits.engine_bytes_max,
        cpu_seconds=math.ceil(limits.cpu_seconds) + 1,
        processes_max=limits.processes_max,
        isolate=limits.isolate,
        model_limits=limits.model,
    )
    if job is None:
        return common
    return replace(
        common,
        model_path=_absolute(job.model_path),
        external_files=dict(job.external_files),
        engine_path=_absolute(job.engine_path),
        calibration_path=_absolute(job.calibration_path),
        samples_path=_absolute(job.samples_path),
        ranges_path=_absolute(job.ranges_path),
        timings_path=_absolute(job.timings_path),
        plugin_paths=tuple(map(_absolute, job.plugin_paths)),
        options_hex=options_hex(job.plan),
    )


def _absolute(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())


def _read_result(done: Done) -> tuple[ModelSummary, str, PrecisionReport | None]:
    try:
        precision = done.fields.get("precision")
        return (
            summary_from_fields(done.fields["summary"]),
            str(done.fields["version"]),
            None if precision is None else report_from_fields(precision),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CompilerCrashed("the worker's result makes no sense") from error


def _costs(done: Done, convert_seconds: float) -> BuildCosts | None:
    try:
        fields = done.fields["shape"]
        shape = ModelShape(
            **{
                name: max(0, min(int(fields[name]), INT64_MAX))
                for name in ("nodes", "weight_bytes", "model_bytes")
            }
        )
    except (KeyError, TypeError, ValueError):
        return None
    return BuildCosts(
        shape=replace(shape, nodes=min(shape.nodes, INT32_MAX)),
        peak_memory_bytes=done.peak_memory_bytes,
        convert_time=timedelta(seconds=convert_seconds),
        processors=os.cpu_count() or 0,
    )


def _measure(engine: Path, bytes_max: int) -> tuple[str, int]:
    """Return the hash and the size of the file that a worker says is an engine."""
    try:
        descriptor = os.open(engine, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise CompilerCrashed("the worker left no engine") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CompilerCrashed("what the worker left is not a file")
        if status.st_size > bytes_max:
            raise EngineTooLarge(f"the engine has {status.st_size} bytes, over {bytes_max}")
        return hashlib.file_digest(file, "sha256").hexdigest(), status.st_size
