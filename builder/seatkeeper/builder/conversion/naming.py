"""Names of nodes: every node has one, so that it can be spoken of."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Sequence

from onnx import ModelProto, NodeProto

from seatkeeper.artifacts.errors import OptionInvalid
from seatkeeper.artifacts.precision import LOWEST_FIRST, KeepRule, Precision

MADE_NODES = ("graph_input_cast", "graph_output_cast")


def named(model: ModelProto) -> ModelProto:
    """Return the model with a name for each node of its main graph, none twice.

    A node without one gets its operator's, and that of its first output.
    """
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        name = node.name or f"{node.op_type}({node.output[0] if node.output else number})"
        if name.startswith(MADE_NODES):
            name = f"its {name}"  # ONNX Runtime's converter gives its own nodes such names
        while name in seen:
            name = f"{name}'"
        seen.add(name)
        node.name = name
    return model


def matching(nodes: Iterable[NodeProto], rules: Sequence[KeepRule]) -> dict[str, str]:
    """Return in which precision nodes are to be kept, by name; where rules differ, the higher.

    Raises ``OptionInvalid`` for a rule that no node's name matches.
    """
    names = [node.name for node in nodes]
    kept: dict[str, str] = {}
    for rule in sorted(rules, key=lambda rule: LOWEST_FIRST.index(rule.precision)):
        found = fnmatch.filter(names, rule.pattern)
        if not found:
            raise OptionInvalid(
                f"no node has a name like {rule.pattern!r}; the first are "
                f"{', '.join(map(repr, names[:5]))}"
            )
        kept |= dict.fromkeys(found, rule.precision)
    return kept


def in_eight_bits(
    nodes: Iterable[NodeProto], able: Collection[str], rules: Sequence[KeepRule]
) -> set[str]:
    """Return the nodes that rules put in 8 bits. ``able``: the names of those that can be.

    Raises ``OptionInvalid`` for such a rule that matches none of these, though there are some.
    """
    nodes = list(nodes)
    for rule in rules:
        if (
            rule.precision == Precision.INT8
            and able
            and not {*able} & {*matching(nodes, [rule])}
        ):
            raise OptionInvalid(
                f"nothing like {rule.pattern!r} can be in 8 bits, only Conv, Gemm and MatMul with "
                "constant weights, outside branches and loops, such as "
                f"{', '.join(map(repr, [*able][:5]))}"
            )
    return {n for n, kind in matching(nodes, rules).items() if kind == Precision.INT8}
