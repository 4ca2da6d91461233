"""Compares a converted model with the model as it was, by ONNX Runtime on the processor.

What is compared is the model that the compiler gets, not the engine: an engine runs on its GPU alone.

Formulas, over all elements of an output and all samples, ``a`` as it was and ``b`` converted:
relative L2 error ``|a - b| / |a|``, with the Euclidean norm, as in Higham, Accuracy and Stability
of Numerical Algorithms, section 1.2; cosine error ``1 - a.b / (|a| |b|)``. Where ``a`` is zero
throughout, the relative error is that of ``b`` against 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from seatkeeper.artifacts.errors import ConversionFailed, ModelInvalid, SamplesInvalid
from seatkeeper.artifacts.precision_report import OutputAccuracy, worst
from seatkeeper.builder.conversion.libraries import Untyped, first_line, onnxruntime
from seatkeeper.builder.conversion.rounding import rounded
from seatkeeper.builder.conversion.samples import Feeds

Outputs = Mapping[str, npt.NDArray[np.generic]]
Run = Callable[[Feeds], Outputs]
CLASSES_MIN = 2
SAME = 1e-2
"""Most relative L2 error between two forms of one model; of a small output, 0.0003 was seen."""


@dataclass(slots=True)
class _Sums:
    """What has been summed over the samples of one output."""

    difference: float = 0.0
    before: float = 0.0
    after: float = 0.0
    product: float = 0.0
    max_abs: float = 0.0
    rows: int = 0
    rows_agreeing: int = 0
    is_broken: bool = False

    def add(self, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> None:
        known = np.isfinite(before)
        if not np.isfinite(after[known]).all():
            self.is_broken = True
            return
        self._add_rows(before, after)
        a, b = before[known], after[known]
        self.difference += float(np.square(a - b).sum())
        self.before += float(np.square(a).sum())
        self.after += float(np.square(b).sum())
        self.product += float((a * b).sum())
        self.max_abs = max(self.max_abs, float(np.abs(a - b).max(initial=0.0)))

    def _add_rows(
        self, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]
    ) -> None:
        if before.ndim < 2 or before.shape[-1] < CLASSES_MIN:
            return
        places = [each.reshape(-1, each.shape[-1]).argmax(axis=1) for each in (before, after)]
        self.rows += len(places[0])
        self.rows_agreeing += int((places[0] == places[1]).sum())

    def error(self, output: str) -> OutputAccuracy:
        norms = math.sqrt(self.before * self.after)
        relative = math.sqrt(self.difference) / (math.sqrt(self.before) or 1.0)
        return OutputAccuracy(
            output=output,
            relative_l2=math.nan if self.is_broken else relative,
            max_abs=math.nan if self.is_broken else self.max_abs,
            cosine_error=max(0.0, 1 - self.product / norms) if norms else relative,
            top1_agreement=self.rows_agreeing / self.rows if self.rows else None,
        )


@dataclass
class Reference:
    """The model as it was, run once on each sample."""

    samples: Sequence[Feeds]
    outputs: list[Outputs] = field(default_factory=list)

    @classmethod
    def of(cls, model: ModelProto, samples: Sequence[Feeds]) -> Reference:
        """Run ``model``.

        Raises ``ModelInvalid`` when ONNX Runtime cannot, and ``SamplesInvalid`` for samples on which
        it computes nothing that another could be compared with.
        """
        try:
            run = runner(model)
            outputs = [run(sample) for sample in samples]
        except MemoryError:
            raise
        except Exception as error:  # it raises types of its own for each status
            raise ModelInvalid(
                "the model does not run on the samples, so no other can be compared with it: "
                f"{first_line(error)}"
            ) from error
        if why := nothing_to_compare(outputs):
            raise SamplesInvalid(
                f"accuracy cannot be measured with these samples: of the model as it was, {why}; give "
                "others, as --samples"
            )
        return cls(samples, outputs)

    def is_same(self, model: ModelProto) -> bool:
        """Return whether a model computes the same, but for the order in which numbers are added."""
        try:
            return worst(self.compare(model)).is_within(SAME)
        except ConversionFailed:
            return False

    def compare(self, converted: ModelProto) -> tuple[OutputAccuracy, ...]:
        """Return how each output of the converted model differs.

        Raises ``ConversionFailed`` when ONNX Runtime cannot run it.
        """
        sums = {name: _Sums() for name in self.outputs[0]}
        try:
            run = runner(converted)
            for sample, before in zip(self.samples, self.outputs, strict=True):
                after = run(sample)
                for name, values in before.items():
                    sums[name].add(*map(_as_numbers, (values, after[name])))
        except MemoryError:
            raise
        except Exception as error:
            raise ConversionFailed(
                f"the converted model does not run: {first_line(error)}"
            ) from error
        return tuple(each.error(name) for name, each in sums.items())


def nothing_to_compare(outputs: Sequence[Outputs]) -> str:
    """Return why outputs cannot be compared with any others; empty: they can.

    What is NaN or infinite in them differs from nothing, so some number must be neither.
    """
    sizes = 0
    for name in outputs[0] if outputs else ():
        values = [_as_numbers(each[name]) for each in outputs]
        size = sum(each.size for each in values)
        if size and not any(np.isfinite(each).any() for each in values):
            return f"output {name!r} has no number but NaN and infinity"
        sizes += size
    return "" if sizes else "every output is empty"


def compare_outputs(
    expected: Sequence[Outputs], computed: Sequence[Outputs]
) -> tuple[OutputAccuracy, ...]:
    """Return how each expected output differs from what was computed, over all samples.

    Both have the same samples, and of each output as many elements; they may be shaped otherwise.
    """
    sums = {name: _Sums() for name in expected[0]}
    for before, after in zip(expected, computed, strict=True):
        for name, values in before.items():
            numbers = _as_numbers(values)
            sums[name].add(numbers, _as_numbers(after[name]).reshape(numbers.shape))
    return tuple(each.error(name) for name, each in sums.items())


def runner(model: ModelProto) -> Run:
    """Return what runs a model, as it is written: without the optimisations of ONNX Runtime.

    Those are not TensorRT's, and of a quantised model they compute something else (0.21 for 0.02).
    What is in 16 bits is rounded to them, node by node.
    """
    library = onnxruntime()
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session: Untyped = library.InferenceSession(
        rounded(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Feeds) -> Outputs:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return run


def _as_numbers(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return np.asarray(values).astype(np.float64)
