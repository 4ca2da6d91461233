"""What precision each part of a converted model computes in, whatever was asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import onnx
from onnx import ModelProto, TensorProto

from seatkeeper.artifacts.precision_report import PrecisionShare

_NAMES: Mapping[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "int4",
}
_QUANTISATION = frozenset({"QuantizeLinear", "DequantizeLinear"})
_COMPUTING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def shares(model: ModelProto) -> tuple[PrecisionShare, ...]:
    """Return how many nodes compute in each precision, and how many bytes of weights are stored in it.

    A convolution or product whose inputs all come from dequantisation computes in 8 bits, of whole
    numbers or of floating point: TensorRT fuses them. Nodes on whole
    numbers, and those whose type is not known, are left out.
    """
    types = types_of(model)
    quantised = {
        output: _NAMES.get(types.get(node.input[0], 0), "int8")
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for output in node.output
    }
    nodes: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in _QUANTISATION or node.op_type == "Cast":
            continue  # they only stand between those that compute
        if node.op_type in _COMPUTING and {*node.input[:2]} <= quantised.keys():
            nodes[quantised[node.input[0]]] += 1
        elif (name := _NAMES.get(types.get(node.output[0] if node.output else "", 0))) in {
            "fp32",
            "fp16",
            "bf16",
            "fp64",
        }:
            nodes[name] += 1
    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        if (name := _NAMES.get(tensor.data_type)) is not None:
            weights[name] += _stored_bytes(tensor)
    names = sorted({*nodes, *weights})
    return tuple(
        PrecisionShare(precision=name, nodes=nodes[name], weight_bytes=weights[name])
        for name in names
    )


def _stored_bytes(tensor: TensorProto) -> int:
    if tensor.data_location == TensorProto.EXTERNAL:
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        return math.prod(tensor.dims) * item
    return len(tensor.raw_data) or tensor.ByteSize()


def types_of(model: ModelProto) -> dict[str, int]:
    """Return the element types of a model's tensors, by name, as far as they can be inferred."""
    with suppress(Exception):  # it only helps, and raises whatever it meets
        model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    known = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    return known | {tensor.name: tensor.data_type for tensor in graph.initializer}
