"""Weights that kept nodes share with others get a copy for those that are quantised.

The library puts a dequantisation between a weight and all who take it. For an embedding with the
weights of the last product that is well, as the table is small then; but a node that is kept would
compute with what 8 bits left of them. And it rounds a weight along one axis, whatever nodes need.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from seatkeeper.builder.conversion.quantise import quantisable

_Place = tuple[NodeProto, int]


class Apart:
    """Gives the nodes that are to be quantised weights that no node in ``keep`` takes.

    At most one copy of a weight is made for each axis.
    """

    name = "weights"

    def __init__(self, keep: Collection[str] = ()) -> None:
        self._keep = frozenset(keep)

    def apply(self, model: ModelProto) -> ModelProto:
        """Keep the promise of ``BuildStep.apply``. Raises nothing."""
        graph = model.graph
        wanted = {*quantisable(model)} - self._keep
        places: dict[str, dict[int, list[_Place]]] = defaultdict(lambda: defaultdict(list))
        for node in graph.node:
            if node.name in wanted:
                for place, name in enumerate(node.input[:2]):
                    places[name][_axis(node)].append((node, place))
        kept = self._taken_by_kept(graph)
        constants = [each for each in graph.initializer if each.name in places]
        names = {name for node in graph.node for name in (*node.input, *node.output)}
        names |= {each.name for each in graph.initializer}
        for constant in constants:
            by_axis = [*places[constant.name].values()]
            for axis in by_axis if constant.name in kept else by_axis[1:]:
                own = TensorProto()
                own.CopyFrom(constant)
                while own.name in names:
                    own.name += "'"
                names.add(own.name)
                graph.initializer.append(own)
                for node, place in axis:
                    node.input[place] = own.name
        return model

    def _taken_by_kept(self, graph: GraphProto) -> set[str]:
        """Return the names of what kept nodes take, themselves or by a cast to another width."""
        taken = {name for node in graph.node if node.name in self._keep for name in node.input}
        casts = [node for node in graph.node if node.op_type == "Cast"]
        return taken | {cast.input[0] for cast in casts if cast.output[0] in taken}


def _axis(node: NodeProto) -> int:
    """Return which axis of a weight the library takes for its channels."""
    is_transposed = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if node.op_type == "Conv" or is_transposed else 1
