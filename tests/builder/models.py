"""Models for the tests: small, good and bad."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

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
