"""What the library does to nodes beside those that are quantised, and what is done about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from tests.builder.compilers.precision.test_conversion import (
    INT8,
    conversion,
    nodes_in,
    only,
)
from tests.builder.models import model, node, value

from seatkeeper.artifacts.errors import ConversionFailed
from seatkeeper.artifacts.precision import KeepRule, Precision
from seatkeeper.artifacts.precision_report import worst
from seatkeeper.builder.conversion.apart import Apart

SIDE = 192


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(3).normal(0, 1, (20, 1, 3, 8, 8)).astype(np.float32))
    return path


def square(name: str) -> TensorProto:
    """Weights of 36,864 numbers, some rows much larger than others."""
    random = np.random.default_rng(7)
    values = random.normal(0, SIDE**-0.5, (SIDE, SIDE)) * np.exp(random.normal(0, 1, (SIDE, 1)))
    return numpy_helper.from_array(values.astype(np.float32), name)


def shared() -> ModelProto:
    """Two products with the same weights, one transposed, and a sum that takes them, too."""
    return model(
        node("Flatten", ["x"], "flat", name="/flat"),
        node("MatMul", ["flat", "w"], "a", name="/first"),
        node("Tanh", ["a"], "b", name="/tanh"),
        node("Gemm", ["b", "w"], "c", name="/second", transB=1),
        node("ReduceMax", ["w"], "d", name="/most", keepdims=0),
        node("Add", ["c", "d"], "y", name="/add"),
        inputs=[value("x", ["batch", 3, 8, 8])],
        constants=[square("w")],
    )


def inputs_of(net: ModelProto) -> dict[str, list[str]]:
    return {each.name: [*each.input] for each in net.graph.node}


def test_weights_are_copied_for_each_axis_and_for_what_is_kept() -> None:
    net = Apart(["/most"]).apply(shared())
    taken = inputs_of(net)
    assert taken["/most"] == ["w"]
    own = {taken["/first"][1], taken["/second"][1]}
    assert len(own | {"w"}) == 3
    assert {tensor.name for tensor in net.graph.initializer} == own | {"w"}


def test_what_is_not_kept_shares_the_weights_of_one_axis() -> None:
    net = Apart().apply(shared())
    taken = inputs_of(net)
    assert taken["/most"] == ["w"]
    assert taken["/first"][1] == "w"
    assert {tensor.name for tensor in net.graph.initializer} == {"w", taken["/second"][1]}


def test_weights_that_no_other_takes_are_not_copied() -> None:
    net = model(
        node("MatMul", ["x", "w"], "a", name="/first"),
        node("MatMul", ["a", "w"], "y", name="/second"),
        inputs=[value("x", [1, SIDE])],
        constants=[square("w")],
    )
    before = net.SerializeToString()
    assert Apart().apply(net).SerializeToString() == before
    assert inputs_of(Apart(["/first"]).apply(net))["/first"] == ["x", "w"]
    assert len(net.graph.initializer) == 2


def test_what_a_kept_node_takes_is_not_rounded_to_sixteen_bits_either(
    tmp_path: Path, data: Path
) -> None:
    rules = (KeepRule(pattern="/second"),)
    wanted = replace(INT8, precision=Precision.INT8_FP16, keep=rules, tolerance=0.3)
    found = only(conversion(shared(), wanted, tmp_path, data).results())
    assert nodes_in(found)["int8"] == 1
    constants = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    name = inputs_of(found.model)["/second"][1]
    np.testing.assert_array_equal(constants[name], numpy_helper.to_array(square("w")))


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_kept_node_computes_with_weights_that_are_not_rounded(
    tmp_path: Path, data: Path, precision: Precision
) -> None:
    rules = (KeepRule(pattern="/second"),)
    wanted = replace(INT8, precision=precision, keep=rules, tolerance=0.3)
    found = only(conversion(shared(), wanted, tmp_path, data, "SM89").results())
    assert nodes_in(found)[precision] == 1
    constants = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    name = inputs_of(found.model)["/second"][1]
    np.testing.assert_array_equal(constants[name], numpy_helper.to_array(square("w")))


def test_the_bias_of_a_product_keeps_its_factor(tmp_path: Path, data: Path) -> None:
    bias = numpy_helper.from_array(np.arange(SIDE, dtype=np.float32), "b")
    net = model(
        node("Flatten", ["x"], "flat", name="/flat"),
        node("Gemm", ["flat", "w", "b"], "y", name="/head", beta=3.0, alpha=0.5),
        inputs=[value("x", ["batch", 3, 8, 8])],
        constants=[square("w"), bias],
    )
    found = only(conversion(net, INT8, tmp_path, data).results())
    assert nodes_in(found)["int8"] == 1
    assert worst(found.errors).relative_l2 < 0.02


def test_a_model_in_which_nothing_came_to_be_in_eight_bits_is_refused(
    tmp_path: Path, data: Path
) -> None:
    net = model(
        node("Gelu", ["x"], "a", name="/gelu", domain="com.microsoft"),
        node("Conv", ["a", "w"], "y", name="/conv"),
        inputs=[value("x", ["batch", 3, 8, 8])],
        constants=[
            numpy_helper.from_array(np.ones((8, 3, 1, 1), dtype=np.float32), "w"),
        ],
    )
    with pytest.raises(ConversionFailed, match="none of its nodes can be converted to int8"):
        only(conversion(net, replace(INT8, keep=()), tmp_path, data).results())
