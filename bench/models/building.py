"""Builds a model of the list as an agent does: in a worker of its own, with its samples beside it."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.models.samples import Arrays
from seatkeeper.artifacts.errors import BuildError
from seatkeeper.artifacts.plan import BuildPlan, parse_profile
from seatkeeper.artifacts.precision import Precision, PrecisionPlan, Samples
from seatkeeper.builder.compile import CompiledEngine, CompileJob, compile_engine
from seatkeeper.builder.job import BuildLimits

CALIBRATION_SAMPLES = 24
ACCURACY_SAMPLES = 12


@dataclass(frozen=True)
class Subject:
    """A model and its samples, as they are built."""

    name: str
    model: bytes
    profile: str
    calibration: bytes = b""
    """An ``.npz`` file; empty: samples are noise. So the next."""
    accuracy: bytes = b""


@dataclass(frozen=True)
class Outcome:
    """What came of one build."""

    engine: CompiledEngine | None
    error: BuildError | None
    """Why there is none."""


def subject(name: str, model: bytes, profile: str, arrays: Arrays) -> Subject:
    """Return a model with samples: the first to calibrate with, the rest to measure accuracy with."""
    calibration = {key: each[:CALIBRATION_SAMPLES] for key, each in arrays.items()}
    accuracy = {key: each[CALIBRATION_SAMPLES:] for key, each in arrays.items()}
    return Subject(name, model, profile, _npz(calibration), _npz(accuracy))


async def built(
    what: Subject,
    precision: Precision,
    target: str = "SM86",
    *,
    tolerance: float = 0.01,
    repair: bool = False,
) -> Outcome:
    """Build once; what it leaves on the disk is gone when this returns."""
    plan = _plan(what, precision, target, tolerance, repair=repair)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = CompileJob(
            model_path=_written(folder / "model.onnx", what.model),
            plan=plan,
            engine_path=folder / "engine",
            calibration_path=_sample_file(
                folder / "calibration", plan.precision.calibration, what.calibration
            ),
            samples_path=_sample_file(
                folder / "accuracy", plan.precision.samples, what.accuracy
            ),
        )
        try:
            engine = await compile_engine(job, BuildLimits(), lambda progress: None)
        except BuildError as error:
            return Outcome(None, error)
    return Outcome(engine, None)


def _plan(
    what: Subject, precision: Precision, target: str, tolerance: float, *, repair: bool
) -> BuildPlan:
    is_converted = precision not in {Precision.MODEL, Precision.FP32}
    wanted = PrecisionPlan(
        precision=precision,
        calibration=_samples(what.calibration) if is_converted else Samples(),
        samples=_samples(what.accuracy) if what.accuracy and is_converted else Samples(),
        tolerance=tolerance,
        repair=repair,
    )
    return BuildPlan(
        backend="tensorrt_rtx",
        targets=(target,),
        profiles=(parse_profile(what.profile),) if what.profile else (),
        precision=wanted,
    )


def _samples(content: bytes) -> Samples:
    if not content:
        return Samples(is_random=True)
    return Samples(sha256=hashlib.sha256(content).hexdigest())


def _sample_file(path: Path, samples: Samples, content: bytes) -> Path | None:
    return _written(path, content) if samples.sha256 else None


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _npz(arrays: Arrays) -> bytes:
    with tempfile.TemporaryFile() as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]  # its own options have other types
        file.seek(0)
        return file.read()
