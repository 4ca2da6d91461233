"""What runs an engine, or stands in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from seatkeeper.artifacts.errors import RunnerUnavailable
from seatkeeper.artifacts.summary import ModelValue
from seatkeeper.builder.conversion.accuracy import Outputs
from seatkeeper.builder.conversion.samples import Feeds
from seatkeeper.builder.running.onnx_runner import OnnxRunner
from seatkeeper.builder.running.tensorrt_runner import TensorRtRunner


class EngineRunner(Protocol):
    """Runs one engine. Not for use by several threads."""

    @property
    def name(self) -> str:
        """What runs it, and where, as reports have it."""
        ...

    @property
    def inputs(self) -> Sequence[ModelValue]:
        """What it wants."""
        ...

    def run(self, feeds: Feeds) -> Outputs:
        """Compute the outputs of one sample. Raises ``EngineInaccurate`` when it cannot."""
        ...


RUNNERS: Mapping[str, Callable[[Path], EngineRunner]] = {
    "onnxruntime": OnnxRunner,
    "tensorrt": lambda path: TensorRtRunner("tensorrt", path),
    "tensorrt_rtx": lambda path: TensorRtRunner("tensorrt_rtx", path),
}
"""By name: what opens a file to run it. Each raises ``RunnerUnavailable`` where it cannot run here."""


def open_runner(name: str, path: Path) -> EngineRunner:
    """Return what runs the file. Raises ``RunnerUnavailable``, or ``EngineDamaged``."""
    opening = RUNNERS.get(name)
    if opening is None:
        raise RunnerUnavailable(f"there is no runner {name[:100]!r}, only {', '.join(RUNNERS)}")
    return opening(path)
