"""Checks a model before the compiler sees it.

The compilers' parsers accept empty files, read the host's files for a model, take a scalar for
an input without a shape, and die of what they cannot hold. What is refused here is refused with
the name of the input, node or operator at fault; what passes may still be refused by the
compiler. Needs ``onnx``. Run it where a crash or a huge allocation is harmless: in the worker.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from seatkeeper.artifacts.errors import (
    InputUnsupported,
    ModelInvalid,
    ModelNotOnnx,
    ModelTooComplex,
    ModelTruncated,
    OpsetUnsupported,
)
from seatkeeper.artifacts.plan import NAME_CHARS_MAX, QUOTE_CHARS_MAX, RANK_MAX, BuildPlan
from seatkeeper.artifacts.summary import (
    ModelLimits,
    ModelSummary,
    ModelValue,
    check_file_size,
    check_model_size,
    check_profiles,
)
from seatkeeper.builder._tensors import check_tensor, constant_dims, item_bits
from seatkeeper.builder._wire import Shape, shape_of
from seatkeeper.builder.external import NO_EXTERNAL_DATA, ExternalData, is_external

OPERATORS_MAX = 200
OUTPUT_RANK_MAX = 64

_DEFAULT_DOMAINS = ("", "ai.onnx")
_INPUT_TYPES_REFUSED = frozenset(
    {
        TensorProto.UNDEFINED,
        TensorProto.STRING,
        TensorProto.COMPLEX64,
        TensorProto.COMPLEX128,
    }
)


def check_model(
    model: bytes,
    plan: BuildPlan,
    limits: ModelLimits | None = None,
    external: ExternalData = NO_EXTERNAL_DATA,
) -> ModelSummary:
    """Return what the model is, if the compiler may see it.

    ``external`` are the files that were sent with it. Raises a ``ModelError`` that names what is
    wrong with the model, or a ``PlanError`` when the plan's profiles do not fit its inputs.
    """
    limits = limits or ModelLimits()
    check_file_size(len(model), limits)
    check_model_size(len(model) + external.size_bytes, limits)
    parsed = _parse(model)
    opset = _check_opset(parsed, limits)
    graphs, nodes = _graphs_and_nodes(parsed)
    _check_nodes(parsed, nodes, limits)
    parameters_bytes = _check_constants(
        _all_tensors(nodes, graphs, parsed), nodes, limits, external
    )
    inputs = _check_values(parsed.graph, limits)
    outputs = tuple(_describe(value) for value in parsed.graph.output)
    check_profiles(inputs, plan.profiles)
    operators = Counter(_operator(node)[:NAME_CHARS_MAX] for node in nodes)
    return ModelSummary(
        inputs=inputs,
        outputs=outputs,
        operators=tuple(
            sorted(operators.items(), key=lambda item: (-item[1], item[0]))[:OPERATORS_MAX]
        ),
        opset=opset,
        nodes=len(nodes),
        parameters_bytes=parameters_bytes,
    )


def load_external_data(model: ModelProto, external: ExternalData) -> None:
    """Put what is outside into the model itself, which then names no file any more.

    For a model that was checked and that, with all its weights, one protobuf message holds.
    """
    graphs, nodes = _graphs_and_nodes(model)
    for where, tensor in _all_tensors(nodes, graphs, model):
        if is_external(tensor):
            raw = external.place(where, tensor).read()
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = raw


def _parse(model: bytes) -> ModelProto:
    parsed = ModelProto()
    try:
        parsed.ParseFromString(model)
    except DecodeError as error:
        match shape_of(model):
            case Shape.TRUNCATED:
                raise ModelTruncated(f"the model breaks off at byte {len(model)}") from error
            case Shape.WHOLE:
                # Protobuf says the same when memory runs out, so see whether it has.
                bytearray(2 * len(model))
                raise ModelInvalid("the model is damaged inside") from error
            case Shape.FOREIGN:
                raise ModelNotOnnx("the file is not an ONNX model") from error
    if not parsed.HasField("graph"):
        if parsed.ir_version > 0:
            raise ModelTruncated("the model ends before its graph")
        raise ModelNotOnnx("the file is not an ONNX model: it has no graph")
    return parsed


def _check_opset(model: ModelProto, limits: ModelLimits) -> int:
    versions = [
        opset.version for opset in model.opset_import if opset.domain in _DEFAULT_DOMAINS
    ]
    if not model.opset_import:
        # Files are written in the order of the fields, and the opsets follow the graph.
        raise ModelTruncated("the model ends after its graph, before its opset")
    newest = limits.opset_max or onnx.defs.onnx_opset_version()
    for version in versions:
        if not 1 <= version <= newest:
            raise OpsetUnsupported(f"opset {version} is not 1 to {newest}")
    return max(versions, default=0)


def _all_graphs(root: GraphProto) -> list[GraphProto]:
    """Return the graph and every graph within its nodes. Protobuf limits the depth."""
    graphs = [root]
    for graph in graphs:
        for node in graph.node:
            graphs.extend(_subgraphs(node))
    return graphs


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _graphs_and_nodes(model: ModelProto) -> tuple[list[GraphProto], list[NodeProto]]:
    """Return all graphs and all nodes of a model, those of its functions among them."""
    graphs = _all_graphs(model.graph)
    for function in model.functions:
        for node in function.node:
            for graph in _subgraphs(node):
                graphs.extend(_all_graphs(graph))
    nodes = [node for function in model.functions for node in function.node]
    for graph in graphs:
        nodes.extend(graph.node)
    return graphs, nodes


def _check_nodes(model: ModelProto, nodes: list[NodeProto], limits: ModelLimits) -> None:
    if len(nodes) > limits.nodes_max:
        raise ModelTooComplex(f"the model has {len(nodes)} nodes, more than {limits.nodes_max}")
    if not model.graph.output:
        raise ModelInvalid("the model has no outputs")
    if not model.graph.node:
        raise ModelInvalid("the model has no nodes")
    for node in nodes:
        for name in (node.name, node.op_type, *node.input, *node.output):
            if isinstance(name, bytes):
                raise ModelInvalid(f"a node has a name that is not UTF-8: {name[:100]!r}")
        if not node.op_type:
            raise ModelInvalid(f"node {node.name!r} has no operator")
    _check_produced_once(model.graph)


def _check_produced_once(graph: GraphProto) -> None:
    produced = {tensor.name for tensor in graph.initializer}
    produced |= {sparse.values.name for sparse in graph.sparse_initializer}
    produced |= {value.name for value in graph.input}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in produced:
                raise ModelInvalid(f"{_where(node)} makes {name!r}, which already exists")
            produced.add(name)
    for value in graph.output:
        if value.name not in produced:
            raise ModelInvalid(f"nothing makes the output {_short(value.name)}")


def _check_constants(
    tensors: Iterable[tuple[str, TensorProto]],
    nodes: Iterable[NodeProto],
    limits: ModelLimits,
    external: ExternalData,
) -> int:
    """Return the bytes of all stored constants, after a look at each."""
    total_bytes = 0
    shapes: dict[str, tuple[int, ...]] = {}
    for where, tensor in tensors:
        place = external.place(where, tensor) if is_external(tensor) else None
        if isinstance(tensor.name, bytes):
            raise ModelInvalid(f"{where} has a name that is not UTF-8")
        total_bytes += check_tensor(where, tensor, limits.constant_bytes_max, place)
        if (dims := constant_dims(tensor, place)) is not None:
            shapes[tensor.name] = dims
    for node in nodes:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                held = attribute.t
                place = external.place(_where(node), held) if is_external(held) else None
                if (dims := constant_dims(held, place)) is not None:
                    shapes[node.output[0]] = dims
                elif attribute.name == "value_ints":
                    shapes[node.output[0]] = tuple(attribute.ints)
    for node in nodes:
        _check_made_constant(node, shapes, limits.constant_bytes_max)
    return total_bytes


def _check_made_constant(
    node: NodeProto, shapes: dict[str, tuple[int, ...]], bytes_max: int
) -> None:
    position = {"ConstantOfShape": 0, "Expand": 1}.get(node.op_type)
    if position is None or len(node.input) <= position:
        return
    dims = shapes.get(node.input[position], ())
    filling = [
        attribute.t.data_type for attribute in node.attribute if attribute.name == "value"
    ]
    item_bytes = max(1, item_bits(filling[0] if filling else TensorProto.FLOAT) // 8)
    if math.prod(dims) * item_bytes > bytes_max:
        raise ModelTooComplex(
            f"{_where(node)} makes a constant of {math.prod(dims) * item_bytes} bytes, more than"
            f" {bytes_max}"
        )


def _all_tensors(
    nodes: Iterable[NodeProto], graphs: Iterable[GraphProto], model: ModelProto
) -> Iterator[tuple[str, TensorProto]]:
    for graph in graphs:
        for tensor in graph.initializer:
            yield f"constant {_short(tensor.name)}", tensor
        for sparse in graph.sparse_initializer:
            yield f"sparse constant {_short(sparse.values.name)}", sparse.values
            yield f"sparse constant {_short(sparse.values.name)}", sparse.indices
    for node in nodes:
        for attribute in node.attribute:
            for tensor in _attribute_tensors(attribute):
                yield f"{_where(node)}, attribute {_short(attribute.name)},", tensor
    for function in model.functions:
        for attribute in function.attribute_proto:
            for tensor in _attribute_tensors(attribute):
                yield f"function {_short(function.name)}", tensor
    if model.training_info:
        raise ModelInvalid("the model carries training state; export it for inference")


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for tensor in (*sparse, *attribute.sparse_tensors):
        yield tensor.values
        yield tensor.indices


def _check_values(graph: GraphProto, limits: ModelLimits) -> tuple[ModelValue, ...]:
    constants = {tensor.name for tensor in graph.initializer}
    for kind, values in (("inputs", graph.input), ("outputs", graph.output)):
        names = [value.name for value in values]
        for name, count in Counter(names).items():
            if isinstance(name, bytes) or not name:
                raise ModelInvalid(f"one of the {kind} has a name that is empty or not UTF-8")
            if len(name) > NAME_CHARS_MAX:
                raise ModelInvalid(f"one of the {kind} has a name of {len(name)} characters")
            if count > 1:
                raise ModelInvalid(f"{name!r} is {count} times among the {kind}")
    # Old exporters list every constant among the inputs; the compilers leave those out, too.
    inputs = [value for value in graph.input if value.name not in constants]
    for kind, count in (("inputs", len(inputs)), ("outputs", len(graph.output))):
        if count > limits.values_max:
            raise ModelTooComplex(
                f"the model has {count} {kind}, more than {limits.values_max}"
            )
    for value in inputs:
        _check_input(value)
    return tuple(_describe(value) for value in inputs)


def _check_input(value: ValueInfoProto) -> None:
    tensor_type = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise InputUnsupported(f"input {value.name!r} is not a tensor")
    if tensor_type.elem_type in _INPUT_TYPES_REFUSED:
        dtype = _dtype(tensor_type.elem_type)
        raise InputUnsupported(f"input {value.name!r} has elements of type {dtype}")
    if not tensor_type.HasField("shape"):
        raise InputUnsupported(f"input {value.name!r} does not say how many dimensions it has")
    if len(tensor_type.shape.dim) > RANK_MAX:
        raise InputUnsupported(f"input {value.name!r} has more than {RANK_MAX} dimensions")
    for axis, dim in enumerate(tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value == 0:
            raise InputUnsupported(f"input {value.name!r}: dimension {axis} is 0")


def _describe(value: ValueInfoProto) -> ModelValue:
    tensor_type = value.type.tensor_type
    return ModelValue(
        name=value.name,
        # Some exporters write -1 for a free size.
        dims=tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
            for dim in tensor_type.shape.dim[:OUTPUT_RANK_MAX]
        ),
        dtype=_dtype(tensor_type.elem_type),
    )


def _dtype(elem_type: int) -> str:
    try:
        return TensorProto.DataType.Name(elem_type)
    except ValueError:
        return f"number {elem_type}"


def _operator(node: NodeProto) -> str:
    domain = "" if node.domain in _DEFAULT_DOMAINS else f"{node.domain}."
    return f"{domain}{node.op_type}"


def _where(node: NodeProto) -> str:
    name = f" {_short(node.name)}" if node.name else ""
    return f"node{name} ({_operator(node)[:QUOTE_CHARS_MAX]})"


def _short(name: str | bytes) -> str:
    return repr(name[:QUOTE_CHARS_MAX])
