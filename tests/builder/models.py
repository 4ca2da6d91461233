"""Models for the tests: small, good and bad."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

Dims = Sequence[int | str] | None


def light_model(name: str) -> bytes:
    """One of the real networks that come with ``onnx``, its weights made by nodes."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return (folder / f"light_{name}.onnx").read_bytes()


def value(name: str, dims: Dims, dtype: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def node(
    operator: str,
    inputs: Sequence[str],
    output: str = "y",
    *,
    name: str = "",
    domain: str = "",
    **attributes: object,
) -> NodeProto:
    made = helper.make_node(operator, inputs, [output], name=name, domain=domain)
    made.attribute.extend(
        helper.make_attribute(key, content) for key, content in attributes.items()
    )
    return made


def model(
    *nodes: NodeProto,
    inputs: Sequence[ValueInfoProto] = (),
    outputs: Sequence[ValueInfoProto] | None = None,
    constants: Sequence[TensorProto] = (),
    opset: int = 17,
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes) or [node("Relu", ["x"])],
        "graph",
        list(inputs) or [value("x", [1, 4])],
        [value("y", None)] if outputs is None else list(outputs),
        list(constants),
    )
    domains = {"": opset} | {item.domain: 1 for item in nodes if item.domain}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def relu() -> bytes:
    """The smallest model that builds."""
    return model().SerializeToString()


@cache
def relu_chain(length: int) -> bytes:
    """A chain so long that compiling it recurses deeply, and takes the square of its length."""
    names = ["x", *(f"t{index}" for index in range(length - 1)), "y"]
    nodes = [
        node("Relu", [names[index]], names[index + 1], name=f"relu_{index}")
        for index in range(length)
    ]
    return model(*nodes, inputs=[value("x", [4, 4])]).SerializeToString()


def dynamic_relu(*dims: int | str) -> ModelProto:
    return model(inputs=[value("x", dims or ("batch", 4))])


def constant(name: str, values: Sequence[float], dtype: int = TensorProto.FLOAT) -> TensorProto:
    return helper.make_tensor(name, dtype, [len(values)], values)


def external_constant(name: str, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1, 4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def with_weights_outside(files: dict[str, bytes], **entries: str) -> ModelProto:
    """A sum of products of ``x``, each with a matrix of 16 rows that is one of the files.

    ``entries`` are more of what each tensor says of its place.
    """
    width = 16
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    total = "x"
    for number, (path, content) in enumerate(files.items()):
        dims = [width, len(content) // 4 // width]
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": path, "offset": "0", "length": str(len(content))} | entries
        for key, text in place.items():
            tensor.external_data.add(key=key, value=text)
        constants.append(tensor)
        nodes.append(node("MatMul", ["x", f"w{number}"], f"p{number}", name=f"/p{number}"))
        nodes.append(node("ReduceSum", [f"p{number}"], f"s{number}", name=f"/s{number}"))
        nodes.append(node("Add", [total, f"s{number}"], f"t{number}", name=f"/t{number}"))
        total = f"t{number}"
    nodes[-1].output[0] = "y"
    return model(*nodes, inputs=[value("x", [1, width])], constants=constants)


def weights_of(count: int, seed: int = 1) -> bytes:
    """So many numbers, as they are stored."""
    values = np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)
    return values.tobytes()


def branching_lstm() -> bytes:
    """A recurrent network in the branches of an `If`, which TensorRT-RTX 1.7 dies of in itself."""
    random = np.random.default_rng(1)

    def branch(name: str, *state: str) -> GraphProto:
        cell = helper.make_node(
            "LSTM",
            ["seq", "W", "R", "", "", *state],
            ["", f"{name}_h"],
            hidden_size=4,
            name=f"/{name}",
        )
        out = helper.make_node("Identity", [f"{name}_h"], [f"{name}_y"])
        return helper.make_graph([cell, out], name, [], [value(f"{name}_y", None)])

    return model(
        node("ReduceSum", ["state"], "sum", keepdims=0),
        node("Cast", ["sum"], "warm", to=TensorProto.BOOL),
        node(
            "If", ["warm"], then_branch=branch("a", "state", "state"), else_branch=branch("b")
        ),
        inputs=[value("seq", [5, 1, 3]), value("state", [1, 1, 4])],
        constants=[
            numpy_helper.from_array(random.normal(size=(1, 16, 3)).astype(np.float32), "W"),
            numpy_helper.from_array(random.normal(size=(1, 16, 4)).astype(np.float32), "R"),
        ],
    ).SerializeToString()


def conv_net(*, opset: int = 11, scale: float = 1.0) -> ModelProto:
    """A small network with weights: convolution, convolution, mean, product; ``x`` is ?x3x8x8."""
    random = np.random.default_rng(7)

    def weights(name: str, *dims: int) -> TensorProto:
        values = random.normal(0, scale / np.sqrt(np.prod(dims[1:])), dims)
        return numpy_helper.from_array(values.astype(np.float32), name)

    return model(
        node("Conv", ["x", "w1", "b1"], "c1", name="/first", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "r1", name="/relu"),
        node("Conv", ["r1", "w2"], "c2", name="/second", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c2"], "p", name="/pool"),
        node("Flatten", ["p"], "f", name="/flat"),
        node("Gemm", ["f", "w3"], "y", name="/head"),
        inputs=[value("x", ["batch", 3, 8, 8])],
        outputs=[value("y", ["batch", 5])],
        constants=[
            weights("w1", 8, 3, 3, 3),
            weights("b1", 8),
            weights("w2", 8, 8, 3, 3),
            weights("w3", 8, 5),
        ],
        opset=opset,
    )


def int4_net() -> ModelProto:
    """A product whose weights are stored in 4 bits, by blocks: round to nearest."""
    weights = TensorProto(name="w", dims=[4, 6], data_type=TensorProto.INT4)
    weights.raw_data = bytes(range(0x10, 0x70, 8))
    scales = numpy_helper.from_array(np.full((2, 6), 0.1, np.float32), "scale")
    return model(
        node("DequantizeLinear", ["w", "scale"], "d", name="/weights", axis=0, block_size=2),
        node("MatMul", ["x", "d"], name="/product"),
        inputs=[value("x", ["batch", 4])],
        constants=[weights, scales],
        opset=21,
    )
