"""What the agent and its worker say to each other.

The agent writes a job to a file. The worker answers with one JSON object a line, on a pipe of
its own: any number of ``progress``, then ``done`` or ``error``. The worker reads what strangers
sent, so the agent believes nothing in its report that it has not checked.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from seatkeeper.artifacts.errors import BuildError, error_from_fields, error_to_fields
from seatkeeper.artifacts.plan import BuildPlan, plan_from_options, plan_to_options
from seatkeeper.artifacts.summary import ModelLimits
from seatkeeper.builder.progress import STEP_CHARS_MAX, Progress
from seatkeeper.v1 import build_pb2, build_service_pb2

REPORT_LINE_BYTES_MAX = 16 << 20
INT32_MAX = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class BuildLimits:
    """What one build may take of the agent's host."""

    timeout: timedelta = timedelta(minutes=90)
    """Wall time from the start of the worker to its end."""
    stall_timeout: timedelta = timedelta(minutes=2)
    """How long every thread of the worker may sleep before it counts as dead."""
    memory_bytes: int = 16 << 30
    """Memory that the worker may write to. Python and the libraries take about 200 MiB of it.

    It limits data, not address space, because a GPU driver reserves far more than it uses. The
    worker is killed when it is seen over the limit, and refused more at a quarter above it.
    """
    stack_bytes: int = 64 << 20
    """Stack of the worker. At the usual 8 MiB the compiler dies of a chain of 3,000 nodes."""
    engine_bytes_max: int = 8 << 30
    """Largest engine, and largest file that the worker may write."""
    files_bytes_max: int = 32 << 30
    """All files of the worker, together."""
    cpu_time: timedelta | None = None
    """Processor time of the worker and what it starts; None: the timeout, on every processor."""
    processes_max: int = 64
    """Processes that the worker may be, itself included. Compilers start threads, not processes."""
    isolate: bool = False
    """Whether it runs without a network, in namespaces of its own. The kernel must allow it."""
    model: ModelLimits = field(default_factory=ModelLimits)
    """What a model may have."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time that the worker may use."""
        if self.cpu_time is not None:
            return self.cpu_time.total_seconds()
        return self.timeout.total_seconds() * (os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """What one worker shall do, as it reads it."""

    parent_pid: int
    """Who started the worker; it does not outlive them."""
    backend: str
    """The backend to load."""
    model_path: str = ""
    """The model to compile; empty to say only what the backend can do."""
    external_files: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the files beside it that hold weights, by their paths in the model's folder."""
    engine_path: str = ""
    """Where to write the engine."""
    calibration_path: str = ""
    """Samples to calibrate with; empty: there are none, or they are random. So the next."""
    samples_path: str = ""
    """Samples to measure accuracy with."""
    ranges_path: str = ""
    """Folder of the ranges that calibration finds; empty: they are not kept."""
    timings_path: str = ""
    """Folder of what the compiler timed; empty: it is not kept."""
    plugin_paths: tuple[str, ...] = ()
    """Libraries of plugins to load, which the agent has checked."""
    options_hex: str = ""
    """A serialised ``BuildOptions``, in hexadecimal."""
    memory_bytes: int
    """Where the kernel refuses it more; a quarter above the build's limit."""
    stack_bytes: int
    engine_bytes_max: int
    cpu_seconds: int = sys.maxsize
    """Processor time after which the kernel ends it; more than the build's limit."""
    processes_max: int = 64
    isolate: bool = False
    """Whether it is to enter namespaces of its own first."""
    model_limits: ModelLimits

    def plan(self) -> BuildPlan:
        """Return the plan to build."""
        return plan_from_options(
            build_pb2.BuildOptions.FromString(bytes.fromhex(self.options_hex))
        )

    def to_json(self) -> str:
        """Return the text of the job's file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerJob:
        """Return the job that ``to_json`` wrote."""
        fields = json.loads(text)
        read = {
            "model_limits": ModelLimits(**fields["model_limits"]),
            "plugin_paths": tuple(fields["plugin_paths"]),
        }
        return cls(**fields | read)


def options_hex(plan: BuildPlan) -> str:
    """Return the plan as a job carries it."""
    return plan_to_options(plan).SerializeToString(deterministic=True).hex()


@dataclass(frozen=True)
class Done:
    """The worker did its job."""

    fields: Mapping[str, Any]
    """What it found out; unchecked."""
    peak_memory_bytes: int = 0
    """Most memory of the host that it had. It says so of itself; the agent, which sees it and what it
    started ten times a second, of both: the more of the two counts."""


Report = Progress | Done | BuildError


def report_to_line(report: Report) -> bytes:
    """Return a report as one line."""
    fields: dict[str, Any]
    match report:
        case Progress():
            fields = {"progress": asdict(report)}
        case Done():
            fields = {
                "done": dict(report.fields),
                "peak_memory_bytes": report.peak_memory_bytes,
            }
        case BuildError():
            fields = {"error": error_to_fields(report)}
    return json.dumps(fields).encode() + b"\n"


def report_from_line(line: bytes) -> Report:
    """Return the report that a line carries.

    Raises ``ValueError`` for a line that is not one.
    """
    try:
        match json.loads(line):
            case {"progress": dict(fields)}:
                return _progress_from_fields(fields)
            case {"done": dict(fields), "peak_memory_bytes": int(peak)}:
                return Done(fields, peak)
            case {"error": dict(fields)}:
                return error_from_fields({name: str(fields[name]) for name in fields})
            case _:
                raise ValueError("no report is called that")
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("a report has wrong fields") from error


def _progress_from_fields(fields: dict[str, Any]) -> Progress:
    if fields["phase"] not in build_service_pb2.BuildPhase.values():
        raise ValueError("no phase has that number")
    return Progress(
        phase=fields["phase"],
        step=str(fields["step"])[:STEP_CHARS_MAX],
        steps_done=max(0, min(int(fields["steps_done"]), INT32_MAX)),
        steps=max(0, min(int(fields["steps"]), INT32_MAX)),
    )
