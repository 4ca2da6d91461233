"""Converts a model from 32 bits to bfloat16: 16 bits with the range of 32 and 8 bits of precision."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from seatkeeper.artifacts.errors import ConversionFailed
from seatkeeper.builder.conversion.libraries import first_line
from seatkeeper.builder.conversion.scopes import graphs_in
from seatkeeper.builder.conversion.sixteen import Sixteen

BFLOAT16 = TensorProto.BFLOAT16
FLOAT16 = TensorProto.FLOAT16
OPERATORS_KEPT = frozenset({"ConvTranspose"})
"""What TensorRT-RTX 1.7 does not build in bfloat16, and would refuse the whole model for."""


class BrainFloat:
    """Has nodes compute in bfloat16; inputs and outputs keep their types.

    Nodes in ``keep`` stay in 32 bits. Where casts are to stand is what ONNX Runtime's converter to
    float16 finds; values come from the model itself, so none is cut to the range of float16.
    """

    name = "bf16"

    def __init__(self, keep: Collection[str] = ()) -> None:
        self._keep = frozenset(keep)

    def apply(self, model: ModelProto) -> ModelProto:
        """Keep the promise of ``BuildStep.apply``."""
        if FLOAT16 in _types(model.graph):
            raise ConversionFailed("it computes in fp16 already, and is not converted to bf16")
        values = dict(_values(model))
        try:
            converted = Sixteen(self._keep, operators=OPERATORS_KEPT).apply(model)
        except MemoryError:
            raise
        except Exception as error:  # the library raises whatever it meets in the graph
            raise ConversionFailed(
                f"it cannot be converted to bf16: {first_line(error)}"
            ) from error
        _retype(converted.graph, values)
        return converted


def _values(model: ModelProto) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
    """Yield the constants of 32 bits, in whatever graph, by the names of what has them."""
    for graph in graphs_in(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                yield tensor.name, numpy_helper.to_array(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.t.data_type == TensorProto.FLOAT and node.output:
                    yield node.output[0], numpy_helper.to_array(attribute.t)


def _retype(graph: GraphProto, values: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Have what is float16 be bfloat16."""
    for tensor in graph.initializer:
        _retype_tensor(tensor, values.get(tensor.name))
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.elem_type == FLOAT16:
            value.type.tensor_type.elem_type = BFLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _retype_tensor(attribute.t, values.get(next(iter(node.output), "")))
            if attribute.name == "to" and attribute.i == FLOAT16:
                attribute.i = BFLOAT16
            if attribute.HasField("g"):
                _retype(attribute.g, values)


def _retype_tensor(tensor: TensorProto, value: npt.NDArray[np.generic] | None) -> None:
    if tensor.data_type != FLOAT16:
        return
    known = numpy_helper.to_array(tensor) if value is None else value
    dtype = helper.tensor_dtype_to_np_dtype(BFLOAT16)
    tensor.CopyFrom(
        numpy_helper.from_array(known.astype(np.float32).astype(dtype), tensor.name)
    )


def _types(graph: GraphProto) -> Iterator[int]:
    """Yield the types that a graph stores, casts to, takes and gives."""
    yield from (tensor.data_type for tensor in graph.initializer)
    yield from (v.type.tensor_type.elem_type for v in (*graph.input, *graph.output))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to":
                yield attribute.i
            if attribute.HasField("g"):
                yield from _types(attribute.g)
