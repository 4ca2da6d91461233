"""Converts a model from 32 to 16 bits."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from seatkeeper.artifacts.errors import ConversionFailed
from seatkeeper.builder.conversion.detours import node_names, without_detours
from seatkeeper.builder.conversion.libraries import first_line, half_converter
from seatkeeper.builder.conversion.shares import types_of

FP16_MAX = 65504.0
"""Largest finite number of 16 bits."""


class Half:
    """Has nodes compute in 16 bits; inputs and outputs keep their types.

    Nodes in ``keep`` stay in 32 bits, and so do those with a constant that 16 bits do not hold.
    """

    name = "fp16"

    def __init__(self, keep: Collection[str] = ()) -> None:
        self._keep = frozenset(keep)

    def apply(self, model: ModelProto) -> ModelProto:
        """Keep the promise of ``BuildStep.apply``."""
        if TensorProto.FLOAT not in types_of(model).values():
            raise ConversionFailed("there is nothing to convert to fp16: nothing is in 32 bits")
        keep = self._keep | set(overflowing(model))
        before = [*node_names(model.graph)]
        try:
            converted: ModelProto = half_converter().convert_float_to_float16(
                model,
                max_finite_val=FP16_MAX,  # otherwise it cuts weights off at 10,000
                keep_io_types=True,
                node_block_list=sorted(keep) or None,
            )
        except Exception as error:  # it raises whatever it meets in the graph
            raise ConversionFailed(
                f"it cannot be converted to fp16: {first_line(error)}"
            ) from error
        without_detours(converted, before)
        return converted


def overflowing(model: ModelProto) -> Iterator[str]:
    """Yield the names of nodes with a constant of 32 bits that 16 bits do not hold."""
    large = {tensor.name for tensor in model.graph.initializer if _is_large(tensor)}
    for node in model.graph.node:
        if large.intersection(node.input) or any(map(_is_large, _constants(node))):
            yield node.name


def _constants(node: NodeProto) -> Iterator[TensorProto]:
    return (each.t for each in node.attribute if each.HasField("t"))


def _is_large(tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT:
        return False
    values = numpy_helper.to_array(tensor)
    with np.errstate(invalid="ignore"):
        return bool((np.abs(values[np.isfinite(values)]) > FP16_MAX).any())
