"""Converts convolutions and matrix products to 8 bits, in the form that TensorRT accepts.

TensorRT wants symmetric ranges for activations and weights, weights by channel, zero points of 0, and
a bias that is not quantised. ONNX Runtime's defaults are otherwise, and are refused.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from seatkeeper.artifacts.errors import ConversionFailed, SamplesInvalid
from seatkeeper.artifacts.precision import CalibrationMethod
from seatkeeper.builder.conversion.clean import opset_of
from seatkeeper.builder.conversion.libraries import (
    Untyped,
    first_line,
    only_errors_logged,
    quantiser,
)
from seatkeeper.builder.conversion.samples import Feeds

OPSET_MIN = 13
_QUANTISATION = frozenset({"QuantizeLinear", "DequantizeLinear"})
OPERATORS = ("Conv", "Gemm", "MatMul")
"""Quantising every operator of a transformer ruins it (a relative error of 0.47 was measured)."""
FEW_WEIGHTS = 1 << 14
"""Under so many, 8 bits save less than the code of the kernel that they need: 0.2 MB each were seen."""
SHARE_OF_WEIGHTS = 0.75
"""The largest nodes with this share of what is not kept count as having many, however few they are."""
_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
"""Of weights that the library quantises; others it leaves as they are, without a word."""
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "AddQDQPairToWeight": False,
}


class Quantise:
    """Puts quantisation before and behind nodes of ``OPERATORS`` that are not in ``keep``.

    Ranges are found by running the model on ``samples``, or read from the file ``ranges`` if that is
    there, and left in it if it is not. ``folder`` is for the files that the library passes the model
    in; nothing is left there. ``to`` is what errors call the result.
    """

    name = "int8"

    def __init__(
        self,
        samples: Sequence[Feeds],
        folder: Path,
        *,
        method: CalibrationMethod = CalibrationMethod.MINMAX,
        keep: Collection[str] = (),
        ranges: Path | None = None,
        to: str = "int8",
    ) -> None:
        self._samples = samples
        self._ranges = ranges
        self._to = to
        self._folder = folder
        self._method = method
        self._keep = frozenset(keep)

    def apply(self, model: ModelProto) -> ModelProto:
        """Keep the promise of ``BuildStep.apply``."""
        if (opset := opset_of(model)) < OPSET_MIN:
            raise ConversionFailed(
                f"opset {opset} has no quantisation by channel, and cannot be raised to {OPSET_MIN}: "
                "export the model with a newer one"
            )
        if there := [n for n in model.graph.node if n.op_type in _QUANTISATION]:
            raise ConversionFailed(
                f"it is quantised already, by {len(there)} nodes such as {there[0].name!r}: build it "
                "as it is, with precision `model`"
            )
        wanted = [name for name in quantisable(model) if name not in self._keep]
        if not wanted:
            raise ConversionFailed(
                f"there is nothing to convert to {self._to}: no Conv, Gemm or MatMul with constant "
                "weights that is not kept, outside branches and loops"
            )
        library = quantiser()
        target = self._folder / "quantised.onnx"
        gemms = {node.name: copy.deepcopy(node) for node in model.graph.node if _is_gemm(node)}
        try:
            with only_errors_logged():
                self._quantise(library, model, target, wanted)
            result = onnx.load(str(target))
        except MemoryError:
            raise
        except Exception as error:  # it raises whatever it meets in the graph
            raise ConversionFailed(
                f"it cannot be converted to {self._to}: {first_line(error)}"
            ) from error
        finally:
            target.unlink(missing_ok=True)
        for node in filter(_is_gemm, result.graph.node):
            # The library sets `beta` to 1, as if it had quantised the bias with it.
            if node.name in wanted:
                del node.attribute[:]
                node.attribute.extend(gemms[node.name].attribute)
        return result

    def _quantise(
        self, library: Untyped, model: ModelProto, target: Path, wanted: Sequence[str]
    ) -> None:
        if self._ranges is not None and not _are_usable(library, self._ranges):
            self._ranges.unlink(missing_ok=True)
        methods = {
            CalibrationMethod.MINMAX: library.CalibrationMethod.MinMax,
            CalibrationMethod.ENTROPY: library.CalibrationMethod.Entropy,
            CalibrationMethod.PERCENTILE: library.CalibrationMethod.Percentile,
        }
        library.quantize_static(
            model,
            str(target),
            _reader(library, self._samples),
            quant_format=library.QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_quantize=list(wanted),
            per_channel=True,
            activation_type=library.QuantType.QInt8,
            weight_type=library.QuantType.QInt8,
            calibrate_method=methods[self._method],
            extra_options=dict(_OPTIONS),
            calibration_cache_path=self._ranges,
        )


def _are_usable(library: Untyped, ranges: Path) -> bool:
    """Return whether a file of ranges is there and can be read. What is damaged is found again."""
    try:
        return bool(library.load_tensors_data(ranges).data)
    except Exception:  # it raises whatever it meets in the file
        return False


def _is_gemm(node: NodeProto) -> bool:
    return node.op_type == "Gemm"


def quantisable(model: ModelProto) -> list[str]:
    """Return the names of the nodes that can be in 8 bits: of ``OPERATORS``, with constant weights.

    Products of two values that are computed, as in attention, lose too much.
    """
    return list(_weights(model))


def with_few_weights(
    model: ModelProto, least: int = FEW_WEIGHTS, kept: Collection[str] = ()
) -> frozenset[str]:
    """Return the quantisable nodes that 8 bits save little in, and that cost accuracy most.

    Those with fewer than ``least`` weights, but not the largest that have ``SHARE_OF_WEIGHTS``; and
    convolutions of each channel by itself, where there are others. Nodes in ``kept`` are out of
    8 bits anyway: they are not returned, and their weights count for nothing.
    """
    weights = {name: size for name, size in _weights(model).items() if name not in kept}
    by_channel = _by_channel(model) & weights.keys()
    others = [name for name in weights if name not in by_channel] or list(weights)
    total, found = sum(weights[name] for name in others), 0
    many: set[str] = set()
    for name in sorted(others, key=lambda name: -weights[name]):
        if weights[name] < least and found >= SHARE_OF_WEIGHTS * total:
            break
        many.add(name)
        found += weights[name]
    return frozenset(weights.keys() - many)


def _weights(model: ModelProto) -> dict[str, int]:
    """Return the quantisable nodes, in the order in which they run, and how many weights each has."""
    shapes = _shapes(model)
    return {
        node.name: max(math.prod(shapes[name]) for name in node.input[:2] if name in shapes)
        for node in model.graph.node
        if node.op_type in OPERATORS and shapes.keys() & {*node.input[:2]}
    }


def _by_channel(model: ModelProto) -> set[str]:
    """Return the convolutions of each channel by itself, as in MobileNets, one result of it or more."""
    shapes = _shapes(model)
    return {
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and (dims := shapes.get(node.input[1]))
        and dims[1] == 1
        and any(each.name == "group" and each.i > 1 for each in node.attribute)
    }


def _shapes(model: ModelProto) -> dict[str, Sequence[int]]:
    """Return the sizes of the constants whose type the library quantises, by name."""
    shapes: dict[str, Sequence[int]] = {
        tensor.name: tensor.dims
        for tensor in model.graph.initializer
        if tensor.data_type in _TYPES
    }
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors = [each.t for each in node.attribute if each.name == "value"]
            if tensors and tensors[0].data_type in _TYPES:
                shapes[node.output[0]] = tensors[0].dims
    return shapes


def _reader(library: object, samples: Sequence[Feeds]) -> object:
    if not samples:
        raise SamplesInvalid("there is no sample to calibrate with")

    class Reader(library.CalibrationDataReader):  # type: ignore[misc, name-defined]  # the library has no types
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> Feeds | None:
            return next(self._left, None)

    return Reader()
