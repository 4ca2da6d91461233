"""Has a processor without arithmetic of 16 bits compute as a model in 16 bits says.

ONNX Runtime has few kernels of 16 bits for processors. It computes the others in 32, and leaves out the
casts between them: so weights are rounded, and nothing that is computed is, and nothing overflows. Here
each such node is written in 32 bits, and what it gives is cast to 16 and back, in casts of our own,
which it leaves alone. Within a node, sums are in 32 bits, as in TensorRT's kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
_LEFT_ALONE = frozenset({"Cast", "If", "Loop", "Scan"})
"""Casts round as they are; what others contain is looked at by itself."""
Types = Mapping[str, int]
_UNKNOWN = 0


def rounded(model: ModelProto) -> ModelProto:
    """Return a model whose nodes of 16 bits give what arithmetic of 16 bits gives.

    The model itself where it has none. A node whose output has no known type is left as it is.
    """
    inferred = model
    with suppress(Exception):  # it raises whatever it meets; then some types are not known
        inferred = onnx.shape_inference.infer_shapes(model)
    if not _is_half(inferred.graph):
        return model
    result = ModelProto()
    result.CopyFrom(inferred)
    _Rewriting(result.graph, {}, count()).run()
    return result


def _is_half(graph: GraphProto) -> bool:
    return any(each == FLOAT16 for each in _types(graph).values()) or any(
        _is_half(inner) for node in graph.node for inner in _graphs(node)
    )


def _types(graph: GraphProto) -> dict[str, int]:
    known = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    return known | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _graphs(node: NodeProto) -> Iterable[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


class _Rewriting:
    """One graph being rewritten."""

    def __init__(self, graph: GraphProto, outside: Types, numbers: Iterator[int]) -> None:
        """``outside``: the types of what the graph may name and does not have itself."""
        self._graph = graph
        self._numbers = numbers
        self._types = {**outside, **_types(graph)}
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._wide: dict[str, str] = {}
        """By name, where the same is in 32 bits."""
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        """Rewrite the graph, and those in it."""
        for node in self._graph.node:
            for inner in _graphs(node):
                _Rewriting(inner, self._types, self._numbers).run()
            if self._is_half(node):
                self._write_wide(node)
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _is_half(self, node: NodeProto) -> bool:
        given = [self._types.get(name, _UNKNOWN) for name in node.output if name]
        return (
            node.op_type not in _LEFT_ALONE
            and FLOAT16 in (self._types.get(name) for name in node.input)
            and _UNKNOWN not in given
        )

    def _write_wide(self, node: NodeProto) -> None:
        """Write a node in 32 bits, and casts to 16 for what it gives."""
        wide = copy.deepcopy(node)
        for place, name in enumerate(node.input):
            if self._types.get(name) == FLOAT16:
                wide.input[place] = self._in_32_bits(name)
        self._nodes.append(wide)
        for place, name in enumerate(node.output):
            if self._types.get(name) == FLOAT16:
                wide.output[place] = self._new_name(name)
                self._nodes.append(_cast(wide.output[place], name, FLOAT16))

    def _in_32_bits(self, name: str) -> str:
        if name not in self._wide:
            self._wide[name] = self._new_name(name)
            if (weight := self._weights.get(name)) is not None:
                values = numpy_helper.to_array(weight).astype(np.float32)
                self._graph.initializer.append(
                    numpy_helper.from_array(values, self._wide[name])
                )
            else:
                self._nodes.append(_cast(name, self._wide[name], FLOAT))
        return self._wide[name]

    def _new_name(self, name: str) -> str:
        return f"{name}/32 bits/{next(self._numbers)}"


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=kind)
