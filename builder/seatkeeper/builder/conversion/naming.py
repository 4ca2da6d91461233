"""Names of nodes: every node has one, so that it can be spoken of."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence

from onnx import ModelProto, NodeProto

from seatkeeper.artifacts.errors import OptionInvalid
from seatkeeper.artifacts.precision import LOWEST_FIRST, KeepRule, Precision
from seatkeeper.builder.conversion.scopes import bodies_of, graphs_in

NAMES_COMPARED_MAX = 5_000
"""Names that one which is not there is compared with, to say which are like it."""
NAMES_SHOWN = 5
EMPTY: Mapping[str, str] = {}
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


def elsewhere(original: ModelProto, clean: ModelProto) -> dict[str, str]:
    """Return why a node of a model cannot be kept by its name, by that, where it cannot."""
    why = {
        node.name: "is folded into others before anything is converted"
        for node in original.graph.node
    }
    for node in clean.graph.node:
        for body in bodies_of(node):
            inside = f"is in a branch or loop of {node.name!r}, which is kept as a whole"
            names = (each.name for graph in graphs_in(body) for each in graph.node)
            why |= dict.fromkeys(names, inside)
    return {name: reason for name, reason in why.items() if name}


def matching(
    nodes: Iterable[NodeProto], rules: Sequence[KeepRule], others: Mapping[str, str] = EMPTY
) -> dict[str, str]:
    """Return in which precision nodes are to be kept, by name; where rules differ, the higher.

    Raises ``OptionInvalid`` for a rule that no node's name matches. ``others`` says of names of
    nodes that are not there why they are not.
    """
    names = [node.name for node in nodes]
    kept: dict[str, str] = {}
    for rule in sorted(rules, key=lambda rule: LOWEST_FIRST.index(rule.precision)):
        found = like(rule.pattern, names)
        if not found:
            raise OptionInvalid(_no_match(rule.pattern, names, others))
        kept |= dict.fromkeys(found, rule.precision)
    return kept


def like(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a pattern matches: ``*`` is any characters, and ``?`` is one.

    All others are themselves; upper and lower case differ.
    """
    # The brackets of a class would be the only other special characters; names have them.
    return fnmatch.filter(names, pattern.replace("[", "[[]"))


def _no_match(pattern: str, names: Sequence[str], others: Mapping[str, str]) -> str:
    for name in like(pattern, others):
        return f"node {name!r}, which is like {pattern!r}, {others[name]}: it cannot be kept"
    literal = pattern.replace("*", "").replace("?", "")
    near = difflib.get_close_matches(literal, names[:NAMES_COMPARED_MAX], NAMES_SHOWN, 0.3)
    shown = ", ".join(map(repr, near or names[:NAMES_SHOWN]))
    return f"no node has a name like {pattern!r}; {'the nearest' if near else 'the first'} are {shown}"


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
