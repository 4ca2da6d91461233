"""Graphs in graphs: the bodies of `If`, `Loop` and `Scan`, and what they take from outside."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, count

from onnx import GraphProto, NodeProto

MADE_NAMES = ("graph_input_cast_", "graph_output_cast_")
"""What ONNX Runtime's converter begins the names of values with that it makes, whatever there is."""


def bodies_of(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that a node has."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs_in(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph, and those in it, the outer first."""
    yield graph
    for node in graph.node:
        for body in bodies_of(node):
            yield from graphs_in(body)


def defined_in(graph: GraphProto) -> Iterator[str]:
    """Yield the names that a graph defines, but for those of its bodies."""
    yield from (each.name for each in graph.input)
    yield from (each.name for each in graph.initializer)
    yield from (each.values.name for each in graph.sparse_initializer)
    yield from (name for node in graph.node for name in node.output if name)


def captured(graph: GraphProto) -> list[str]:
    """Return the names that a body takes from the graphs around it, each once."""
    own = {*defined_in(graph)}
    taken = chain(
        chain.from_iterable(map(taken_by, graph.node)), (each.name for each in graph.output)
    )
    return [name for name in dict.fromkeys(taken) if name not in own]


def taken_by(node: NodeProto) -> Iterator[str]:
    """Yield the names that a node takes, also what its bodies take from outside."""
    yield from filter(None, node.input)
    for body in bodies_of(node):
        yield from captured(body)


def rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename values of a graph, wherever it and its bodies take them."""
    if not names:
        return
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for tensor in (*graph.initializer, *(each.values for each in graph.sparse_initializer)):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        for places in (node.input, node.output):
            for place, name in enumerate(places):
                if name in names:
                    places[place] = names[name]
        for body in bodies_of(node):
            # What it defines by the same name is another value.
            own = {*defined_in(body)}
            rename(body, {old: new for old, new in names.items() if old not in own})


def put_in_order(graph: GraphProto) -> None:
    """Have every node stand behind those whose results it or its bodies take, as ONNX demands.

    Otherwise the order is as it was. Nodes in a circle are left at the end.
    """
    for node in graph.node:
        for body in bodies_of(node):
            put_in_order(body)
    makers = {name: n for n, node in enumerate(graph.node) for name in node.output if name}
    missing = [
        {makers[name] for name in taken_by(node) if name in makers} for node in graph.node
    ]
    if all(number > max(needed, default=-1) for number, needed in enumerate(missing)):
        return
    takers: dict[int, list[int]] = {}
    for number, needed in enumerate(missing):
        for maker in needed:
            takers.setdefault(maker, []).append(number)
    ready = [number for number, needed in enumerate(missing) if not needed]
    order: list[int] = []
    while ready:
        order.append(number := heapq.heappop(ready))
        for taker in takers.get(number, ()):
            missing[taker].discard(number)
            if not missing[taker]:
                heapq.heappush(ready, taker)
    order += sorted({*range(len(missing))} - {*order})
    nodes = [NodeProto.FromString(graph.node[n].SerializeToString()) for n in order]
    del graph.node[:]
    graph.node.extend(nodes)


def name_apart(graph: GraphProto) -> None:
    """Have no name defined twice, in whatever graphs; inputs and outputs of ``graph`` keep theirs.

    Graphs side by side may use a name for a value of each. What the converter to 16 bits would call
    so is renamed, too: a model may come out of it.
    """
    taken = {name for each in graphs_in(graph) for name in defined_in(each)}
    taken |= {each.name for each in graph.output}
    _name_apart(graph, {each.name for each in (*graph.input, *graph.output)}, set(), taken)


def _name_apart(
    graph: GraphProto, fixed: Collection[str], seen: set[str], taken: set[str]
) -> None:
    names = {
        name: new_name(f"its_{name}" if name.startswith(MADE_NAMES) else name, taken)
        for name in dict.fromkeys(defined_in(graph))
        if name not in fixed and (name in seen or name.startswith(MADE_NAMES))
    }
    rename(graph, names)
    seen |= {*defined_in(graph)}
    for node in graph.node:
        for body in bodies_of(node):
            _name_apart(body, (), seen, taken)


def new_name(like: str, taken: set[str]) -> str:
    """Return a name that is not ``taken``, and add it."""
    name = next(each for n in count(1) if (each := f"{like}'{n}") not in taken)
    taken.add(name)
    return name
