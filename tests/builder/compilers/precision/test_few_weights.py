"""Nodes with few weights are not quantised: their kernels are larger than what they save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from tests.builder.compilers.precision.test_conversion import INT8, conversion, nodes_in, only
from tests.builder.models import model, node, value

from seatkeeper.artifacts.errors import AccuracyTooLow, OptionInvalid
from seatkeeper.artifacts.precision import KeepRule, Precision
from seatkeeper.artifacts.precision_report import worst
from seatkeeper.builder.conversion.naming import named
from seatkeeper.builder.conversion.quantise import quantisable, with_few_weights

PLAIN = replace(INT8, keep=(), tolerance=0.1)


def weights(name: str, *dims: int, scale: float = 1.0) -> TensorProto:
    random = np.random.default_rng(sum(dims))
    values = scale * random.normal(0, 1 / np.sqrt(np.prod(dims[1:])), dims)
    return numpy_helper.from_array(values.astype(np.float32), name)


def mobile(*, middle: int = 128, last: int = 64) -> ModelProto:
    """A small convolution, one of each channel by itself, and one with many weights."""
    return model(
        node("Conv", ["x", "w1"], "a", name="/stem", pads=[1, 1, 1, 1]),
        node("Conv", ["a", "w2"], "b", name="/each", pads=[1, 1, 1, 1], group=16),
        node("Conv", ["b", "w3"], "c", name="/wide", pads=[1, 1, 1, 1]),
        node("Conv", ["c", "w4"], "d", name="/point"),
        node("GlobalAveragePool", ["d"], "y", name="/pool"),
        inputs=[value("x", ["batch", 3, 8, 8])],
        outputs=[value("y", ["batch", last, 1, 1])],
        constants=[
            weights("w1", 16, 3, 3, 3),
            weights("w2", 16, 1, 3, 3),
            weights("w3", middle, 16, 3, 3),
            weights("w4", last, middle, 1, 1),
        ],
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(3).normal(0, 1, (20, 1, 3, 8, 8)).astype(np.float32))
    return path


def test_those_with_few_weights_and_of_each_channel_are_left_out() -> None:
    net = named(mobile())
    assert with_few_weights(net) == {"/stem", "/each"}  # 432 and 144, of 27,200 in all
    assert with_few_weights(net, least=100) == {"/each"}
    assert [*quantisable(net)] == ["/stem", "/each", "/wide", "/point"]


def test_however_small_all_are_most_of_the_weights_are_quantised() -> None:
    small = named(mobile(middle=8))  # 432, 144, 1,152 and 512
    assert with_few_weights(small) == {"/stem", "/each"}
    alone = model(
        node("Conv", ["x", "w"], "y", name="/each", group=3),
        inputs=[value("x", [1, 3, 8, 8])],
        constants=[weights("w", 3, 1, 3, 3)],
    )
    assert with_few_weights(named(alone)) == set()


def test_each_channel_by_itself_may_give_several_and_groups_are_wider() -> None:
    net = model(
        node("Conv", ["x", "w1"], "a", name="/twice", group=3, pads=[1, 1, 1, 1]),
        node("Conv", ["a", "w2"], "b", name="/pairs", group=3),
        node("Conv", ["b", "w3"], "y", name="/point"),
        inputs=[value("x", [1, 3, 8, 8])],
        constants=[
            weights("w1", 6, 1, 3, 3),
            weights("w2", 3, 2, 1, 1),
            weights("w3", 2, 3, 1, 1),
        ],
    )
    assert with_few_weights(named(net)) == {"/twice"}  # 54, and the others have 6 each


def test_weights_in_constant_nodes_count_as_others_do() -> None:
    net = named(mobile())
    for tensor in net.graph.initializer:
        constant = node("Constant", [], tensor.name, name=f"/{tensor.name}", value=tensor)
        net.graph.node.insert(0, constant)
    del net.graph.initializer[:]
    assert with_few_weights(net) == {"/stem", "/each"}
    assert with_few_weights(net, least=100) == {"/each"}


def test_what_is_kept_anyway_is_not_counted() -> None:
    net = named(mobile())
    assert with_few_weights(net, kept=["/wide", "/point"]) == {"/each"}
    assert with_few_weights(net, kept=["/wide"]) == {"/stem", "/each"}
    assert with_few_weights(net, kept=["/stem", "/wide", "/point"]) == set()


def test_weights_of_64_bits_and_whole_numbers_are_not_quantised(
    tmp_path: Path, data: Path
) -> None:
    wide = numpy_helper.from_array(np.ones((256, 256)), "w2")
    net = model(
        node("Conv", ["x", "w1"], "a", name="/conv"),
        node("GlobalAveragePool", ["a"], "b", name="/pool"),
        node("Flatten", ["b"], "c", name="/flat"),
        node("Cast", ["c"], "d", name="/cast", to=TensorProto.DOUBLE),
        node("MatMul", ["d", "w2"], "e", name="/double"),
        node("Cast", ["e"], "y", name="/back", to=TensorProto.FLOAT),
        inputs=[value("x", ["batch", 3, 8, 8])],
        constants=[weights("w1", 256, 3, 1, 1), wide],
    )
    assert [*quantisable(named(net))] == ["/conv"]
    found = only(conversion(net, PLAIN, tmp_path, data).results())
    assert nodes_in(found)["int8"] == 1


def test_a_rule_that_puts_nothing_in_eight_bits_is_refused(tmp_path: Path, data: Path) -> None:
    for precision in (Precision.INT8, Precision.AUTO):
        rule = KeepRule(pattern="/pool", precision="int8")
        wanted = replace(PLAIN, precision=precision, keep=(rule,))
        with pytest.raises(
            OptionInvalid, match=r"'/pool' can be in 8 bits, only Conv.*'/stem'"
        ):
            only(conversion(mobile(), wanted, tmp_path, data).results())


def test_with_the_largest_kept_others_are_quantised(tmp_path: Path, data: Path) -> None:
    rules = (KeepRule(pattern="/wide"), KeepRule(pattern="/point"))
    found = only(conversion(mobile(), replace(PLAIN, keep=rules), tmp_path, data).results())
    assert nodes_in(found)["int8"] == 1
    assert found.kept == ("/point", "/wide")


def test_with_the_largest_kept_what_is_inaccurate_is_named(tmp_path: Path, data: Path) -> None:
    net = mobile(middle=512, last=32)  # 73,728 and 16,384
    strict = replace(PLAIN, keep=(KeepRule(pattern="/wide"),), tolerance=1e-5)
    with pytest.raises(AccuracyTooLow, match="most harm is done by '/point'"):
        only(conversion(net, strict, tmp_path, data).results())


def test_they_are_not_called_kept_and_a_rule_has_them_quantised(
    tmp_path: Path, data: Path
) -> None:
    found = only(conversion(mobile(), PLAIN, tmp_path, data).results())
    assert nodes_in(found)["int8"] == 2
    assert found.kept == ()
    rules = (KeepRule(pattern="/s*", precision="int8"), KeepRule(pattern="/w*"))
    ruled = only(conversion(mobile(), replace(PLAIN, keep=rules), tmp_path, data).results())
    assert nodes_in(ruled)["int8"] == 2
    assert ruled.kept == ("/wide",)


def test_where_accuracy_is_too_low_only_many_weights_are_quantised(
    tmp_path: Path, data: Path
) -> None:
    rough = numpy_helper.to_array(weights("w1", 64, 32, 3, 3)).copy()  # 18,432
    rough[:, 0] *= 300
    net = model(
        node("Conv", ["x", "w0"], "a", name="/stem", pads=[1, 1, 1, 1]),
        node("Conv", ["a", "w1"], "b", name="/rough", pads=[1, 1, 1, 1]),
        node("Conv", ["b", "w2"], "c", name="/wide", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c"], "y", name="/pool"),
        inputs=[value("x", ["batch", 3, 8, 8])],
        outputs=[value("y", ["batch", 256, 1, 1])],
        constants=[
            weights("w0", 32, 3, 3, 3),
            numpy_helper.from_array(rough, "w1"),
            weights("w2", 256, 64, 3, 3),  # 147,456
        ],
    )
    lenient = only(conversion(net, replace(PLAIN, tolerance=0.9), tmp_path, data).results())
    assert nodes_in(lenient)["int8"] == 2
    error = worst(lenient.errors).relative_l2
    strict = replace(PLAIN, tolerance=error * 0.9)
    found = only(conversion(net, strict, tmp_path, data).results())
    assert found.kept == ("/rough",)
    assert nodes_in(found)["int8"] == 1
    assert worst(found.errors).relative_l2 < error
