"""ONNX Runtime on the processor: runs a model in the place of its engine, where there is no GPU."""

from __future__ import annotations

from pathlib import Path

from seatkeeper.artifacts.errors import (
    BackendMissing,
    EngineDamaged,
    EngineInaccurate,
    RunnerUnavailable,
)
from seatkeeper.artifacts.summary import ModelValue
from seatkeeper.builder.conversion.accuracy import Outputs
from seatkeeper.builder.conversion.libraries import Untyped, first_line, onnxruntime
from seatkeeper.builder.conversion.samples import Feeds


class OnnxRunner:
    """Runs an ONNX model as it is written."""

    name = "ONNX Runtime on the processor, a model in the engine's place"

    def __init__(self, path: Path) -> None:
        """Load it. Raises ``RunnerUnavailable``, or ``EngineDamaged`` for what is no model."""
        try:
            library = onnxruntime()
        except BackendMissing as error:
            raise RunnerUnavailable(error.message) from error
        options = library.SessionOptions()
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            self._session: Untyped = library.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # it raises types of its own for each status
            raise EngineDamaged(
                f"ONNX Runtime does not load it: {first_line(error)}"
            ) from error
        self.inputs = tuple(_value(each) for each in self._session.get_inputs())
        self._outputs = [each.name for each in self._session.get_outputs()]

    def run(self, feeds: Feeds) -> Outputs:
        """Compute the outputs of one sample."""
        try:
            computed = self._session.run(self._outputs, dict(feeds))
        except Exception as error:
            raise EngineInaccurate(f"it does not run: {first_line(error)}") from error
        return dict(zip(self._outputs, computed, strict=True))


def _value(found: Untyped) -> ModelValue:
    dims = tuple(size if isinstance(size, int) else None for size in found.shape)
    kind = found.type.removeprefix("tensor(").removesuffix(")").upper()
    return ModelValue(name=found.name, dims=dims, dtype=kind)
