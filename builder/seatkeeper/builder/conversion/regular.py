"""The form in which a model is converted, so that the libraries need to know no other."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    inliner,
    numpy_helper,
)

from seatkeeper.builder.conversion.scopes import (
    defined_in,
    graphs_in,
    name_apart,
    new_name,
    rename,
    taken_by,
)

_FORMS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
"""Attributes of ``Constant`` in place of ``value``, and the types of their tensors."""


def with_plain_constants(model: ModelProto) -> ModelProto:
    """Have constants be tensors, and no function be called. ``model`` itself is changed.

    The libraries give numbers that are not in a tensor no type, or another.
    """
    if model.functions:
        with suppress(Exception):  # it raises whatever it meets, and only helps
            model = inliner.inline_local_functions(model)
    for graph in graphs_in(model.graph):
        for node in graph.node:
            if node.op_type == "Constant" and not node.domain:
                _have_tensor(node)
    return model


def _have_tensor(node: NodeProto) -> None:
    for attribute in node.attribute:
        if (dtype := _FORMS.get(attribute.name)) is not None:
            content = np.array(helper.get_attribute_value(attribute), dtype)
            attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(content)))


def regular(model: ModelProto) -> ModelProto:
    """Return the model with no name defined twice, and bodies that give what their nodes give.

    A constant that is an output is nothing else. ``model`` itself is changed.
    """
    name_apart(model.graph)
    taken = {name for graph in graphs_in(model.graph) for name in defined_in(graph)}
    _set_constants_apart(model.graph, taken)
    for graph in [*graphs_in(model.graph)][1:]:
        _give_by_nodes(graph, taken)
    return model


def _set_constants_apart(graph: GraphProto, taken: set[str]) -> None:
    """Have nodes take copies of the constants that are outputs."""
    inputs = {each.name for each in graph.input}
    constants = {each.name: each for each in graph.initializer if each.name not in inputs}
    for output in graph.output:
        name = output.name
        if (constant := constants.get(name)) is not None and _is_taken(graph, name):
            given = TensorProto.FromString(constant.SerializeToString())
            rename(graph, {name: new_name(name, taken)})
            output.name = name
            graph.initializer.append(given)


def _is_taken(graph: GraphProto, name: str) -> bool:
    return any(name in taken_by(node) for node in graph.node)


def _give_by_nodes(body: GraphProto, taken: set[str]) -> None:
    """Have a body give what its own nodes give, each once, under a name of its own."""
    made = {name for node in body.node for name in node.output}
    given: set[str] = set()
    for output in body.output:
        if (source := output.name) not in made or source in given:
            output.name = new_name(source, taken)
            body.node.append(_copy(source, output.name))
        given.add(output.name)


def _copy(source: str, target: str) -> NodeProto:
    return helper.make_node("Identity", [source], [target], name=f"{target}/copy")


@dataclass(frozen=True)
class AsTheyAre:
    """What a graph gives without computing it, inputs and constants, apart from what is converted.

    No library knows what to do with it.
    """

    outputs: list[ValueInfoProto]
    """All of them, in their order."""
    constants: list[TensorProto]

    @classmethod
    def out_of(cls, graph: GraphProto) -> AsTheyAre:
        """Take it out of a ``regular`` graph."""
        made = {name for node in graph.node for name in node.output}
        outputs = [*graph.output]
        names = {each.name for each in outputs} - made - {each.name for each in graph.input}
        constants = [each for each in graph.initializer if each.name in names]
        for each in constants:
            graph.initializer.remove(each)
        del graph.output[:]
        graph.output.extend(each for each in outputs if each.name in made)
        return cls(outputs, constants)

    def put_back(self, graph: GraphProto) -> None:
        """Put it back into what became of the graph."""
        del graph.output[:]
        graph.output.extend(self.outputs)
        graph.initializer.extend(self.constants)
