"""Small models with branches and loops, whose graphs share weights in every way that ONNX allows.

Every value is 2x4, every matrix 4x4, so that any may stand anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)
from tests.builder.models import model, node, value

SHAPE = [2, 4]
NESTED_MAX = 2
Choose = Callable[[Sequence[Any]], Any]
"""Returns one of what it is given."""


@dataclass
class Branching:
    """A model being made, of what ``choose`` chooses."""

    choose: Choose
    sizes: Sequence[float] = (0.5,)
    """How large weights may be."""
    numbers: Any = field(default_factory=count)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def model(self) -> ModelProto:
        """Return the model; it takes ``x`` and ``flag``, and gives ``y`` and maybe more."""
        graph = _Graph(self, [], depth=0)
        graph.values += ["x"]
        for _ in range(self.choose([1, 2, 3, 4])):
            graph.add_node()
        outputs = [graph.values[-1], *self._more_outputs(graph)]
        inputs = [value("x", SHAPE), value("flag", [], TensorProto.BOOL)]
        if graph.constants and self.choose([True, False, False]):
            # As in old files: a weight that may be given as an input.
            first = graph.constants[0]
            inputs.append(value(first.name, [*first.dims], first.data_type))
        return model(
            *graph.nodes,
            inputs=inputs,
            outputs=[value(name, graph.shape_of(name)) for name in dict.fromkeys(outputs)],
            constants=graph.constants,
            opset=self.choose([13, 17, 21]),
        )

    def _more_outputs(self, graph: _Graph) -> list[str]:
        """Return what is given beside: a value on its way, an input, or a weight."""
        kind = self.choose(["none", "none", "value", "input", "weight"])
        if kind == "value":
            return [self.choose(graph.values)]
        weights = [each.name for each in graph.constants if each.data_type == TensorProto.FLOAT]
        if kind == "weight" and weights:
            return [self.choose(weights)]
        return ["x"] if kind == "input" else []

    def name(self, kind: str) -> str:
        return f"{kind}_{next(self.numbers)}"


@dataclass
class _Graph:
    """A graph of the model: the main one, or a body."""

    making: Branching
    outer: list[_Graph]
    depth: int
    values: list[str] = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add_node(self) -> None:
        kinds = [
            "product",
            "product",
            "sum",
            "relu",
            "max",
            "constant",
            "gemm",
            "cast",
            "range",
        ]
        if self.depth < NESTED_MAX:
            kinds += ["if", "if", "loop", "scan"]
        getattr(self, f"_{self._choose(kinds)}")()

    def shape_of(self, name: str) -> list[int]:
        dims = {each.name: list(each.dims) for each in self.constants}
        return dims.get(name, SHAPE)

    def _choose(self, those: Sequence[Any]) -> Any:
        return self.making.choose(those)

    def _value(self) -> str:
        """Return a value of this graph or, in a body, of one around it."""
        graphs = [each for each in (self, *self.outer) if each.values]
        return str(self._choose(self._choose(graphs).values))

    def _weight(self, *dims: int) -> str:
        """Return a weight of its own, or one that another node or graph has already."""
        there = [
            each.name
            for graph in (self, *self.outer)
            for each in graph.constants
            if [*each.dims] == [*dims] and each.data_type == TensorProto.FLOAT
        ]
        if there and self._choose([True, True, False]):
            return str(self._choose(there))
        # Graphs side by side may use a name for weights of their own.
        name = self.making.name("w")
        if self.depth and self._choose([True, False]):
            name = f"w_of_level_{self.depth}_{'x'.join(map(str, dims))}"
            if name in there:
                return name
        size = self._choose(self.making.sizes)
        values = self.making.random.normal(0, size, dims).astype(np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def _give(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        is_like_made = self._choose([False, False, False, True])
        output = self.making.name("graph_input_cast" if is_like_made else "v")
        named = self._choose([True, True, False])
        made = helper.make_node(operator, inputs, [output], **attributes)
        made.name = f"/{operator}.{output}" if named else ""
        self.nodes.append(made)
        self.values.append(output)
        return output

    def _product(self) -> None:
        self._give("MatMul", [self._value(), self._weight(4, 4)])

    def _gemm(self) -> None:
        self._give("Gemm", [self._value(), self._weight(4, 4), self._weight(4)], transB=1)

    def _sum(self) -> None:
        self._give(
            "Add", [self._value(), self._choose([self._value, lambda: self._weight(4)])()]
        )

    def _relu(self) -> None:
        self._give(self._choose(["Relu", "Tanh", "Identity"]), [self._value()])

    def _max(self) -> None:
        """Add what is left in 32 bits."""
        self._give("Max", [self._value(), self._weight(4)])

    def _constant(self) -> None:
        """Add a constant that is a node, in one of its forms."""
        content: dict[str, Any] = self._choose(
            [
                {"value_float": 0.25},
                {"value_floats": [0.5, -0.5, 0.25, 1.0]},
                {"value": numpy_helper.from_array(np.full([4], 0.3, np.float32))},
            ]
        )
        given = self._give("Constant", [], **content)
        self.values.pop()
        self._give("Mul", [self._value(), given])

    def _cast(self) -> None:
        """Add a cast of the model's own, there and back."""
        # One that loses nothing, such as to 64 bits, ONNX Runtime takes away from under bodies.
        there = self._give("Cast", [self._value()], to=TensorProto.FLOAT16)
        self.values.pop()
        self._give("Cast", [there], to=TensorProto.FLOAT)

    def _range(self) -> None:
        """Add numbers that are counted in a type of their own."""
        limits = [self.making.name("limit") for _ in range(3)]
        for limit, number in zip(limits, (0.0, 0.4, 0.1), strict=True):
            self.constants.append(numpy_helper.from_array(np.array(number, np.float32), limit))
        steps = self._give("Range", limits)
        self.values.pop()
        self._give("Add", [self._value(), steps])

    def _body(self, *inputs: str) -> _Graph:
        body = _Graph(self.making, [self, *self.outer], self.depth + 1)
        body.values += inputs
        for _ in range(self._choose([1, 2])):
            body.add_node()
        return body

    def _if(self) -> None:
        bodies = {}
        for which in ("then_branch", "else_branch"):
            body = self._body()
            bodies[which] = body.graph(which, [], [value(body.values[-1], SHAPE)])
        self._give("If", ["flag"], **bodies)

    def _loop(self) -> None:
        turn, go_on, state = (self.making.name(kind) for kind in ("turn", "go", "state"))
        body = self._body(state)
        still, seen = self.making.name("still"), self.making.name("seen")
        body.nodes.append(node("Identity", [go_on], still))
        body.nodes.append(node("Identity", [body.values[-1]], seen))
        result = self._choose([body.values[-1], body.values[-1], state])
        graph = body.graph(
            "body",
            [
                value(turn, [], TensorProto.INT64),
                value(go_on, [], TensorProto.BOOL),
                self._choose([value(state, SHAPE), ValueInfoProto(name=state)]),
            ],
            [
                value(still, [], TensorProto.BOOL),
                value(result, SHAPE),
                value(seen, SHAPE),
            ],
        )
        turns, last, all_seen = (self.making.name(kind) for kind in ("turns", "v", "all"))
        self.constants.append(numpy_helper.from_array(np.array(2, np.int64), turns))
        self.nodes.append(
            helper.make_node("Loop", [turns, "", self._value()], [last, all_seen], body=graph)
        )
        self.values.append(last)
        self._give("Gather", [all_seen, turns.replace("turns", "one")])
        self.constants.append(
            numpy_helper.from_array(np.array(1, np.int64), turns.replace("turns", "one"))
        )

    def _scan(self) -> None:
        state, row = self.making.name("state"), self.making.name("row")
        body = self._body(state)
        seen = self.making.name("seen")
        body.nodes.append(node("Identity", [row], seen))
        graph = body.graph(
            "body",
            [value(state, SHAPE), value(row, SHAPE[1:])],
            [value(body.values[-1], SHAPE), value(seen, SHAPE[1:])],
        )
        first, rows = self.making.name("v"), self.making.name("rows")
        self.nodes.append(
            helper.make_node(
                "Scan",
                [self._value(), self._value()],
                [first, rows],
                num_scan_inputs=1,
                body=graph,
            )
        )
        self.values += [first, rows]

    def graph(self, name: str, inputs: list[Any], outputs: list[Any]) -> GraphProto:
        return helper.make_graph(self.nodes, name, inputs, outputs, self.constants)
