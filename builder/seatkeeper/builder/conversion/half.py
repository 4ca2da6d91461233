"""Converts a model from 32 to 16 bits."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from seatkeeper.artifacts.errors import ConversionFailed
from seatkeeper.builder.conversion.libraries import first_line
from seatkeeper.builder.conversion.scopes import graphs_in
from seatkeeper.builder.conversion.shares import types_of
from seatkeeper.builder.conversion.sixteen import Sixteen

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
        # By itself the library cuts weights off at 10,000.
        options = {"max_finite_val": FP16_MAX}
        try:
            return Sixteen(self._keep, {*too_large(model)}, options=options).apply(model)
        except MemoryError:
            raise
        except Exception as error:  # the library raises whatever it meets in the graph
            raise ConversionFailed(
                f"it cannot be converted to fp16: {first_line(error)}"
            ) from error


def too_large(model: ModelProto) -> Iterator[str]:
    """Yield the names of constants of 32 bits that 16 bits do not hold, in whatever graph."""
    for graph in graphs_in(model.graph):
        yield from (tensor.name for tensor in graph.initializer if _is_large(tensor))
        for node in graph.node:
            if any(map(_is_large, _constants(node))):
                yield from node.output


def _constants(node: NodeProto) -> Iterator[TensorProto]:
    return (each.t for each in node.attribute if each.HasField("t"))


def _is_large(tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT:
        return False
    values = numpy_helper.to_array(tensor)
    with np.errstate(invalid="ignore"):
        return bool((np.abs(values[np.isfinite(values)]) > FP16_MAX).any())
