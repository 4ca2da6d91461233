"""The process that builds one model and is allowed to die of it.

``python -m seatkeeper.builder.worker JOB_FILE REPORT_FD``, started by ``compile`` in an empty
folder and a session of its own. It does not outlive its parent, and limits itself before it
looks at anything a stranger sent. What the libraries print goes to standard error,
whose end the parent keeps (``stderr_tail``); reports go to ``REPORT_FD``. It ends with status 0
whenever it could report.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from seatkeeper.artifacts.errors import (
    BackendMissing,
    BuildError,
    DiskFull,
    EngineTooLarge,
    FilesTooLarge,
    ModelError,
    OutOfMemory,
    WorkerKilled,
)
from seatkeeper.artifacts.model_shape import shape_of_file
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.artifacts.precision import CONVERTED, Precision
from seatkeeper.artifacts.precision_report import PrecisionReport
from seatkeeper.artifacts.store import DISK_FULL_ERRNOS, create_file
from seatkeeper.artifacts.summary import (
    CONVERTED_BYTES_MAX,
    ModelSummary,
    check_conversion_size,
    check_file_size,
    why_not_converted,
)
from seatkeeper.builder import _isolation
from seatkeeper.builder._watch import own_peak_bytes
from seatkeeper.builder.backends import Backend, load_backend
from seatkeeper.builder.conversion import libraries
from seatkeeper.builder.conversion.version import conversion
from seatkeeper.builder.job import Done, Report, WorkerJob, report_to_line
from seatkeeper.builder.progress import CHECKING, CONVERTING, Progress

PROGRESS_INTERVAL_SECONDS = 0.05
"""Least time between two progress reports of one phase: the compiler makes thousands of steps."""

THREADS_MAX = 2_048
"""Most threads of a worker and its children together."""


def main(arguments: list[str]) -> int:
    """Do the job in the file that is named first; report to the descriptor named second."""
    job = WorkerJob.from_json(Path(arguments[0]).read_text())
    descriptor = int(arguments[1])

    def report(what: Report) -> None:
        _write_all(descriptor, report_to_line(what))

    bind_to_parent(job.parent_pid)
    if job.isolate:
        try:
            _isolation.enter()
        except _isolation.IsolationRefused as error:
            refused = WorkerKilled(f"the kernel would not isolate the worker: {error}")
            report(refused if job.backend else Done({"isolated": False, "refusal": str(error)}))
            return 0
    confine(job)
    try:
        done = do_job(job, thinned(report, time.monotonic))
        # A short build is over between two looks of the agent.
        report(replace(done, peak_memory_bytes=own_peak_bytes()))
    except BuildError as error:
        report(error)
    except MemoryError:
        report(OutOfMemory(f"the build needs more than {job.memory_bytes} bytes"))
    except OSError as error:
        if error.errno == errno.EFBIG:
            report(
                FilesTooLarge(f"a file of the build needs over {job.engine_bytes_max} bytes")
            )
            return 0
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        report(DiskFull("no room for the engine while it was built"))
    return 0


def bind_to_parent(parent_pid: int) -> None:
    """Bind the life of this process to its parent's, and what it starts to itself."""
    _isolation.prctl(_isolation.PR_SET_PDEATHSIG, signal.SIGKILL)
    _isolation.prctl(_isolation.PR_SET_NO_NEW_PRIVS, 1)
    # Orphans of its children become its own, so that the agent finds them below it.
    _isolation.prctl(_isolation.PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent_pid:
        # The parent died before we asked to die with it.
        os._exit(1)


def confine(job: WorkerJob) -> None:
    """Limit this process, and with it every one that it starts."""
    # When the host runs out of memory, the kernel should take this process, not the agent.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, job.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, max(job.engine_bytes_max, CONVERTED_BYTES_MAX))
    _limit(resource.RLIMIT_CPU, job.cpu_seconds)
    if job.isolate:
        # Counts threads, those of this namespace only; elsewhere it would count all that the agent's
        # user runs. The kernel does not hold root to it: the agent counts processes as well.
        _limit(resource.RLIMIT_NPROC, job.processes_max + THREADS_MAX)
    _, stack_hard = resource.getrlimit(resource.RLIMIT_STACK)
    # The stack of a running process's main thread grows up to the limit of the moment.
    resource.setrlimit(resource.RLIMIT_STACK, (_lower(job.stack_bytes, stack_hard), stack_hard))


def do_job(job: WorkerJob, report: Callable[[Progress], None]) -> Done:
    """Compile, or say what the backend can do when the job names no model.

    A job without a backend asks only whether a worker can be isolated here, as this one is.
    """
    if not job.backend:
        return Done({"isolated": job.isolate, "refusal": ""})
    if not job.model_path:
        backend = load_backend(job.backend)
        return Done(
            {
                "version": backend.version,
                "targets": list(backend.targets),
                "precisions": precisions(),
                "conversion": conversion(),
                "features": dict(backend.features),
            }
        )
    plan = job.plan()
    report(Progress(phase=CHECKING))
    try:
        summary = checked(job, plan)
    except ImportError as error:
        raise BackendMissing(f"{error}: pip install '.[builder]' in a checkout") from error
    backend = load_backend(job.backend)
    backend.load_plugins([Path(path) for path in job.plugin_paths])
    if job.timings_path:
        backend.use_timings(Path(job.timings_path))
    fields: dict[str, Any] = {"version": backend.version, "summary": asdict(summary)}
    if (shape := shape_of_file(Path(job.model_path), job.external_files.values())) is not None:
        fields["shape"] = asdict(shape)
    if plan.precision.is_default:
        engine = backend.compile(Path(job.model_path), plan, report)
    else:
        engine, found_out = compile_converted(job, summary, backend, report)
        fields["precision"] = asdict(found_out)
        fields["conversion"] = conversion()
    if engine.nbytes > job.engine_bytes_max:
        raise EngineTooLarge(
            f"the engine has {engine.nbytes} bytes, over {job.engine_bytes_max}"
        )
    with create_file(Path(job.engine_path)) as file:
        file.write(engine)
    return Done(fields)


def precisions() -> list[str]:
    """Return what models can be built in here: as they are, without the libraries that convert."""
    unchanged = [Precision.MODEL, Precision.FP32]
    return [*unchanged, *CONVERTED, Precision.AUTO] if libraries.are_there() else [*unchanged]


def checked(job: WorkerJob, plan: BuildPlan) -> ModelSummary:
    """Return what the job's model is. Raises a ``ModelError`` or a ``PlanError``.

    What is read for it is not kept: the compiler reads the model for itself.
    """
    from seatkeeper.builder.external import ExternalData
    from seatkeeper.builder.model import check_model

    path = Path(job.model_path)
    check_file_size(path.stat().st_size, job.model_limits)
    external = ExternalData(path.parent, job.external_files)
    return check_model(path.read_bytes(), plan, job.model_limits, external)


def compile_converted(
    job: WorkerJob,
    summary: ModelSummary,
    backend: Backend,
    report: Callable[[Progress], None],
) -> tuple[memoryview, PrecisionReport]:
    """Convert the model as the plan says, and compile the first result that the compiler takes."""
    from onnx import ModelProto

    from seatkeeper.builder.conversion.conversion import Conversion, SampleFiles, unconverted
    from seatkeeper.builder.external import ExternalData
    from seatkeeper.builder.model import load_external_data

    plan, model_path = job.plan(), Path(job.model_path)
    wanted = plan.precision
    parsed = ModelProto.FromString(model_path.read_bytes())
    if not wanted.is_conversion:
        found_out = unconverted(parsed, wanted.precision)
        return backend.compile(model_path, plan, report), found_out
    size_bytes = model_path.stat().st_size + sum(job.external_files.values())
    check_conversion_size(wanted, size_bytes)
    if reason := why_not_converted(size_bytes):
        as_it_is = unconverted(parsed, Precision.MODEL)
        tried = [each for each in wanted.candidates(plan.targets) if each != Precision.FP32]
        found_out = replace(
            as_it_is,
            precision=Precision.FP32,
            refused=tuple(f"{each}: {reason}" for each in tried),
        )
        return backend.compile(model_path, plan, report), found_out
    load_external_data(parsed, ExternalData(model_path.parent, job.external_files))
    files = (
        Path(path) if path else None
        for path in (job.calibration_path, job.samples_path, job.ranges_path)
    )
    folder = Path(job.engine_path).parent
    conversion = Conversion.of(
        parsed,
        summary,
        plan,
        SampleFiles(*files),
        folder,
        lambda step: report(Progress(phase=CONVERTING, step=step)),
    )
    for number, converted in enumerate(conversion.results()):
        path = folder / f"converted-{number}.onnx"
        path.write_bytes(converted.model.SerializeToString())
        try:
            engine = backend.compile(path, plan, report)
        except ModelError as error:
            if not conversion.refuse(converted.precision, error):
                raise
            path.unlink()
        else:
            return engine, conversion.report(converted)
    raise AssertionError("the last of the results is compiled or its error raised")


def thinned(
    report: Callable[[Report], None], clock: Callable[[], float]
) -> Callable[[Progress], None]:
    """Return ``report`` without the progress that comes too soon after other progress.

    The first of each phase always goes through, and the first of it that has steps.
    """
    reported: set[tuple[int, bool]] = set()
    last_time = 0.0

    def report_some(progress: Progress) -> None:
        nonlocal last_time
        now, kind = clock(), (progress.phase, progress.steps > 0)
        if kind in reported and now - last_time < PROGRESS_INTERVAL_SECONDS:
            return
        reported.add(kind)
        last_time = now
        report(progress)

    return report_some


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    lowered = _lower(value, hard)
    resource.setrlimit(kind, (lowered, lowered))


def _lower(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    # The libraries' own teardown could still crash, and nothing of it is needed.
    os._exit(status)
