"""Converts convolutions and matrix products to floating point of 8 bits: 4 of exponent, 3 of fraction.

Where quantisation stands and in which ranges is as for whole numbers of 8 bits (``quantise``); the
largest number of a range becomes the largest of the type, 448, in place of 127.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from seatkeeper.builder.conversion.quantise import Quantise

FP8_MAX = 448.0
INT8_MAX = 127.0
_WEIGHTS = "_quantized"
"""What ONNX Runtime appends to the name of a weight that it quantised."""


class Float8:
    """Quantises as ``quantise`` does, to floating point."""

    name = "fp8"

    def __init__(self, quantise: Quantise) -> None:
        self._quantise = quantise

    def apply(self, model: ModelProto) -> ModelProto:
        """Keep the promise of ``BuildStep.apply``."""
        before = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
        }
        quantised = self._quantise.apply(model)
        constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
        done: set[str] = set()
        for node in quantised.graph.node:
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                _retype(node, constants, before, done)
        return quantised


def _retype(
    node: NodeProto,
    constants: Mapping[str, TensorProto],
    before: Mapping[str, npt.NDArray[np.generic]],
    done: set[str],
) -> None:
    content, scale, zero = node.input[:3]
    scales = numpy_helper.to_array(constants[scale])
    if scale not in done:  # those of a quantisation and its way back are the same
        done.add(scale)
        scales = (scales * np.float32(INT8_MAX / FP8_MAX)).astype(scales.dtype)
        constants[scale].CopyFrom(numpy_helper.from_array(scales, scale))
    constants[zero].CopyFrom(_float8(np.zeros(tuple(constants[zero].dims), np.float32), zero))
    weights = constants.get(content)
    if weights is None or weights.data_type != TensorProto.INT8:
        return
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    shape = [1] * len(weights.dims)
    if scales.ndim:
        shape[axis] = -1
    steps = scales.astype(np.float32).reshape(shape if scales.ndim else ())
    values = before.get(content.removesuffix(_WEIGHTS))
    if values is None:
        values = numpy_helper.to_array(weights) * (steps * np.float32(FP8_MAX / INT8_MAX))
    weights.CopyFrom(_float8(values.astype(np.float32) / steps, content))


def _float8(values: npt.NDArray[np.generic], name: str) -> TensorProto:
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    limited = np.clip(values.astype(np.float32), -FP8_MAX, FP8_MAX)
    return numpy_helper.from_array(limited.astype(dtype), name)
