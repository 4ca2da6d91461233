"""Nodes that are kept in 32 bits hand on 32 bits.

ONNX Runtime's converter casts what a kept node gives to 16 bits, and back for a kept node behind it. So
what was kept because 16 bits do not hold it would pass through them all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from seatkeeper.builder.conversion.scopes import bodies_of


def without_detours(model: ModelProto, before: Collection[str]) -> None:
    """Remove the converter's casts from 32 bits to 16 and back again.

    ``before``: the names of the nodes that it was given; casts among these are the model's own.
    """
    _straighten(model.graph, {*before})


def _straighten(graph: GraphProto, before: Collection[str]) -> None:
    for node in graph.node:
        for inner in bodies_of(node):
            _straighten(inner, before)
    inserted = [
        node for node in graph.node if node.op_type == "Cast" and node.name not in before
    ]
    narrowing = {each.output[0]: each for each in inserted if _to(each) != TensorProto.FLOAT}
    given = {value.name for value in graph.output}
    fixed = given | {value.name for value in graph.input}
    renamed: dict[str, str] = {}
    for cast in inserted:
        first = narrowing.get(cast.input[0])
        if first is None or _to(cast) != TensorProto.FLOAT:
            continue
        source = first.input[0]
        if cast.output[0] not in given:
            renamed[cast.output[0]] = source
        elif source not in fixed | renamed.keys():
            renamed[source] = cast.output[0]
        else:
            cast.input[0] = source  # the name is fixed on both sides
            continue
        graph.node.remove(cast)
    _rename(graph, renamed)
    without_unused(graph, {each.name for each in inserted})


def _rename(graph: GraphProto, renamed: dict[str, str]) -> None:
    """Rename what nodes take and give, also what graphs in them take from outside."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                while name in renamed:
                    name = renamed[name]
                names[place] = name
        for inner in bodies_of(node):
            _rename(inner, renamed)


def without_unused(graph: GraphProto, inserted: Collection[str]) -> None:
    """Remove the nodes of a graph among ``inserted`` whose result neither it nor its bodies take."""
    used = {*_taken(graph), *(value.name for value in graph.output)}
    unused = [
        each for each in graph.node if each.name in inserted and each.output[0] not in used
    ]
    for node in unused:
        graph.node.remove(node)


def _taken(graph: GraphProto) -> Iterator[str]:
    """Yield the names that nodes take, also what graphs in them give of the graph around them."""
    for node in graph.node:
        yield from node.input
        for inner in bodies_of(node):
            yield from _taken(inner)
            yield from (value.name for value in inner.output)


def _to(node: NodeProto) -> int:
    return next(attribute.i for attribute in node.attribute if attribute.name == "to")
