"""Has a model compute in 16 bits, its branches and loops too, by a library that knows neither.

ONNX Runtime's converter takes the graphs of a model for one: it looks for a weight of a body among
those of all, puts casts into the main graph for what only a body has, and passes by the bodies of
nodes that are kept. So it gets each graph by itself. In place of a node with bodies stands one that
is not converted, and that takes what the bodies take from outside. Each body is a model of its own,
whose inputs and outputs are in 32 bits. Where casts then stand on both sides of a border, they go.

Of a weight that nodes in 16 bits and nodes in 32 take, the latter get a copy: the converter would
round it for both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from seatkeeper.builder.conversion.detours import without_detours, without_unused
from seatkeeper.builder.conversion.libraries import half_converter
from seatkeeper.builder.conversion.scopes import (
    MADE_NAMES,
    bodies_of,
    captured,
    defined_in,
    graphs_in,
    new_name,
    put_in_order,
    rename,
)

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
_STAND_IN, _STORED = "StandIn", "Stored"
_DOMAIN = "seatkeeper"
_WIDENING = "_cast_to_fp32_node"
"""What the converter ends the names of casts to 32 bits with, but for those to outputs."""


_FIRST_STATE = {"Loop": 2, "Scan": 0}
"""From which input on a node's are those of its body."""


@dataclass
class _Body:
    """A node with bodies, while another stands for it."""

    node: NodeProto
    is_kept: bool
    captured: list[str]
    """What its bodies take from outside: inputs of the other, behind the node's own."""


@dataclass
class Sixteen:
    """Converts one model. Raises whatever the library meets."""

    keep: Collection[str]
    """Names of nodes of the main graph that stay in 32 bits, with their bodies."""
    large: Collection[str] = ()
    """Names of constants, in whatever graph, that 16 bits do not hold: who takes them stays, too."""
    operators: Collection[str] = ()
    """What stays in 32 bits beside what the library leaves there."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """For the library."""
    _like: ModelProto = field(default_factory=ModelProto)
    """The model, for its versions."""
    _before: set[str] = field(default_factory=set)
    """Names of nodes that the model came with."""
    _taken: set[str] = field(default_factory=set)
    """Names of values."""
    _stored: set[str] = field(default_factory=set)
    """Weights that nodes in 16 bits take."""

    def apply(self, model: ModelProto) -> ModelProto:
        """Return the model in 16 bits. It must be ``regular``, and is not to be used any more."""
        self._like.ir_version = model.ir_version
        self._like.opset_import.extend(model.opset_import)
        graphs = [*graphs_in(model.graph)]
        self._before = {node.name for graph in graphs for node in graph.node}
        self._taken = {name for graph in graphs for name in defined_in(graph)}
        hidden = self._hide_names(model.graph)
        self._double_weights(model.graph)
        result = self._converted(model, self.keep, {})
        if len(graphs) > 1:
            self._open_borders(result.graph, {})
        if hidden:
            made = [name for name in defined_in(result.graph) if name in hidden.values()]
            rename(result.graph, {name: new_name(name, self._taken) for name in made})
            rename(result.graph, hidden)
        put_in_order(result.graph)
        return result

    def _hide_names(self, graph: GraphProto) -> dict[str, str]:
        """Rename inputs and outputs called as the library calls its own; return the way back."""
        fixed = {each.name for each in (*graph.input, *graph.output)}
        hidden = {
            name: new_name(f"its_{name}", self._taken)
            for name in sorted(fixed)
            if name.startswith(MADE_NAMES)
        }
        rename(graph, hidden)
        self._taken -= hidden.keys()
        return {new: old for old, new in hidden.items()}

    def _is_kept(self, node: NodeProto, keep: Collection[str]) -> bool:
        blocked = (*self.operators, *half_converter().DEFAULT_OP_BLOCK_LIST)
        is_large = not {*node.input, *node.output}.isdisjoint(self.large)
        return node.name in keep or node.op_type in blocked or is_large

    # Weights -----------------------------------------------------------------------------------

    def _double_weights(self, graph: GraphProto) -> None:
        """Give nodes in 32 bits weights of their own."""
        uses: dict[str, list[tuple[NodeProto, int, bool]]] = defaultdict(list)
        for node, is_kept in self._nodes(graph, self.keep, is_kept=False):
            wide = half_converter().ALWAYS_FLOAT_INPUTS.get(node.op_type, ())
            for place, name in enumerate(node.input):
                uses[name].append((node, place, is_kept or place in wide))
        for each in graphs_in(graph):
            for constant in [c for c in each.initializer if c.data_type == FLOAT]:
                wide_uses = [use for use in uses[constant.name] if use[2]]
                if len(wide_uses) < len(uses[constant.name]):
                    self._stored.add(constant.name)
                    if wide_uses:
                        self._give_copy(each, constant, wide_uses)

    def _give_copy(
        self,
        graph: GraphProto,
        constant: TensorProto,
        uses: Iterable[tuple[NodeProto, int, bool]],
    ) -> None:
        copy = graph.initializer.add()
        copy.CopyFrom(constant)
        copy.name = new_name(constant.name, self._taken)
        for node, place, _ in uses:
            node.input[place] = copy.name

    def _nodes(
        self, graph: GraphProto, keep: Collection[str], *, is_kept: bool
    ) -> Iterator[tuple[NodeProto, bool]]:
        """Yield all nodes, and whether they stay in 32 bits."""
        for node in graph.node:
            stays = is_kept or self._is_kept(node, keep)
            yield node, stays
            for body in bodies_of(node):
                yield from self._nodes(body, (), is_kept=stays)

    # Graphs ------------------------------------------------------------------------------------

    def _converted(
        self, model: ModelProto, keep: Collection[str], outside: Mapping[str, ValueInfoProto]
    ) -> ModelProto:
        """Return a model with the bodies of its nodes. ``outside``: what there is around it."""
        graph = model.graph
        has_bodies = any(any(True for _ in bodies_of(node)) for node in graph.node)
        taken_out: dict[str, _Body] = {}
        if has_bodies:
            model = onnx.shape_inference.infer_shapes(model)
            graph = model.graph
            outside = {**outside, **_values(graph)}
            taken_out = self._take_out(graph, keep, outside)
        kept = [node.name for node in graph.node if node.op_type == _STAND_IN]
        kept += [node.name for node in graph.node if self._is_listed(node, keep)]
        result: ModelProto = half_converter().convert_float_to_float16(
            model,
            keep_io_types=True,
            disable_shape_infer=has_bodies,  # it would fail for what stands in
            node_block_list=sorted(kept) or None,
            **self.options,
        )
        without_detours(result, self._before)
        if has_bodies:
            self._put_back(result.graph, taken_out)
        return result

    def _is_listed(self, node: NodeProto, keep: Collection[str]) -> bool:
        """Return whether the library must have the name of a node for it to stay."""
        if not self._is_kept(node, keep):
            return False
        if not node.name:
            node.name = new_name(f"{node.op_type}/kept", self._before)
        return True

    def _take_out(
        self, graph: GraphProto, keep: Collection[str], outside: Mapping[str, ValueInfoProto]
    ) -> dict[str, _Body]:
        """Put others in the place of nodes with bodies, and convert these. Return them by name."""
        taken_out: dict[str, _Body] = {}
        stored: dict[str, None] = {}
        for place, node in enumerate(graph.node):
            if not any(True for _ in bodies_of(node)):
                continue
            names = [*dict.fromkeys(n for body in bodies_of(node) for n in captured(body))]
            body = _Body(_copied(node), self._is_kept(node, keep), names)
            if not body.is_kept:
                stored |= dict.fromkeys(names)
                for inner in bodies_of(body.node):
                    _give_types(node, inner, outside)
                    self._convert_body(inner, outside)
            name = new_name(f"{node.name}/{_STAND_IN}", self._before)
            taken_out[name] = body
            graph.node[place].CopyFrom(
                helper.make_node(
                    _STAND_IN, [*node.input, *names], node.output, name=name, domain=_DOMAIN
                )
            )
        # What bodies have in 16 bits is stored so, though what stands for them is in 32.
        own = {each.name for each in graph.initializer} & self._stored & stored.keys()
        graph.node.append(
            helper.make_node(_STORED, sorted(own), [], name=_STORED, domain=_DOMAIN)
        )
        return taken_out

    def _convert_body(self, body: GraphProto, outside: Mapping[str, ValueInfoProto]) -> None:
        names = [name for name in captured(body) if name in outside]
        model = ModelProto()
        model.CopyFrom(self._like)
        model.graph.CopyFrom(body)
        model.graph.input.extend(outside[name] for name in names)
        graph = self._converted(model, (), outside).graph
        made = [name for name in defined_in(graph) if name not in self._taken]
        rename(graph, {name: new_name(name, self._taken) for name in made})
        del graph.input[len(body.input) :]
        body.CopyFrom(graph)

    def _put_back(self, graph: GraphProto, taken_out: Mapping[str, _Body]) -> None:
        for place in reversed(range(len(graph.node))):
            standing = graph.node[place]
            if standing.op_type == _STORED and standing.domain == _DOMAIN:
                del graph.node[place]
            elif (body := taken_out.get(standing.name)) is not None:
                node = body.node
                own = len(node.input)
                names = dict(zip(body.captured, standing.input[own:], strict=True))
                for inner in bodies_of(node):
                    rename(inner, {old: new for old, new in names.items() if old != new})
                node.input[:] = standing.input[:own]
                node.output[:] = standing.output
                standing.CopyFrom(node)

    # Borders -----------------------------------------------------------------------------------

    def _open_borders(self, graph: GraphProto, outside: Mapping[str, str]) -> None:
        """Have bodies take what is in 16 bits as it is. ``outside``: where that is, of 32 bits."""
        casts = [n for n in graph.node if n.op_type == "Cast" and n.name not in self._before]
        narrowing = {
            cast.output[0]: outside[cast.input[0]]
            for cast in casts
            if cast.input[0] in outside and _to(cast) == FLOAT16
        }
        for cast in [cast for cast in casts if cast.output[0] in narrowing]:
            graph.node.remove(cast)
        rename(graph, narrowing)
        known = {c.output[0]: c.input[0] for c in casts if c.name.endswith(_WIDENING)}
        for node in graph.node:
            for body in bodies_of(node):
                self._open_borders(body, {**outside, **known})
        without_unused(graph, {cast.name for cast in casts})


def _values(graph: GraphProto) -> dict[str, ValueInfoProto]:
    """Return what is known of a graph's values, by name."""
    known = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
    for constant in graph.initializer:
        known[constant.name] = helper.make_tensor_value_info(
            constant.name, constant.data_type, constant.dims
        )
    return known


def _give_types(
    node: NodeProto, body: GraphProto, outside: Mapping[str, ValueInfoProto]
) -> None:
    """Give what a body takes of a node the type of that, where it has none."""
    first = _FIRST_STATE.get(node.op_type)
    if first is None:
        return
    for place, name in enumerate(node.input[first:], first):
        value = body.input[place]
        kind = outside[name].type.tensor_type.elem_type if name in outside else 0
        if not value.type.WhichOneof("value"):
            value.type.tensor_type.elem_type = kind


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _to(cast: NodeProto) -> int:
    return next(attribute.i for attribute in cast.attribute if attribute.name == "to")
