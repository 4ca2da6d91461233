"""From a model to one of another precision: what is changed, what is kept, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from tests.builder.models import conv_net, light_model, model, node, value

from seatkeeper.artifacts.errors import (
    AccuracyTooLow,
    ConversionFailed,
    OptionInvalid,
    SamplesInvalid,
)
from seatkeeper.artifacts.plan import BuildPlan, parse_profile
from seatkeeper.artifacts.precision import KeepRule, Precision, PrecisionPlan, Samples
from seatkeeper.artifacts.precision_report import worst
from seatkeeper.builder.conversion.clean import Clean, opset_of
from seatkeeper.builder.conversion.conversion import (
    Conversion,
    Converted,
    SampleFiles,
    unconverted,
)
from seatkeeper.builder.conversion.half import overflowing
from seatkeeper.builder.conversion.naming import named
from seatkeeper.builder.conversion.shares import shares
from seatkeeper.builder.model import check_model

SENT = Samples(sha256="cd" * 32)
WANTED = PrecisionPlan(precision=Precision.FP16, tolerance=0.02)
INT8 = replace(WANTED, precision=Precision.INT8, calibration=SENT, tolerance=0.05)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(3).normal(0, 1, (20, 1, 3, 8, 8)).astype(np.float32))
    return path


def conversion(
    net: ModelProto, wanted: PrecisionPlan, folder: Path, data: Path | None = None
) -> Conversion:
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=("SM86",),
        profiles=(parse_profile("x=1x3x8x8"),),
        precision=wanted,
    )
    summary = check_model(net.SerializeToString(), plan)
    steps: list[str] = []
    files = SampleFiles(data if wanted.calibration.sha256 else None)
    return Conversion.of(net, summary, plan, files, folder, steps.append)


def only(results: Iterator[Converted]) -> Converted:
    (result,) = results
    return result


def nodes_in(converted: Converted) -> dict[str, int]:
    return {share.precision: share.nodes for share in converted.shares if share.nodes}


def test_half_precision_keeps_the_types_of_inputs_and_outputs(tmp_path: Path) -> None:
    found = only(conversion(conv_net(), WANTED, tmp_path).results())
    graph = found.model.graph
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {
        TensorProto.FLOAT
    }
    assert {t.data_type for t in graph.initializer if t.dims} <= {
        TensorProto.FLOAT16,
        TensorProto.INT64,
    }
    assert 0 < worst(found.errors).relative_l2 < 0.01
    assert nodes_in(found)["fp16"] >= 5


def test_eight_bits_are_in_the_form_that_tensorrt_accepts(tmp_path: Path, data: Path) -> None:
    found = only(conversion(conv_net(), INT8, tmp_path, data).results())
    assert nodes_in(found)["int8"] == 3
    constants = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    quantising = [
        n for n in found.model.graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}
    ]
    assert quantising
    for each in quantising:
        assert not constants[each.input[2]].any(), "zero points are 0"
        assert constants[each.input[2]].dtype == np.int8
    by_channel = [n for n in quantising if constants[n.input[1]].size > 1]
    assert len(by_channel) == 3
    assert constants["b1"].dtype == np.float32, "a bias is not quantised"
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_eight_bits_beside_sixteen(tmp_path: Path, data: Path) -> None:
    wanted = replace(INT8, precision=Precision.INT8_FP16)
    found = only(conversion(conv_net(), wanted, tmp_path, data).results())
    assert nodes_in(found)["int8"] == 3
    assert nodes_in(found)["fp16"] > 0


def test_the_model_that_was_given_is_not_changed(tmp_path: Path, data: Path) -> None:
    net = conv_net()
    before = copy.deepcopy(net)
    conversion(net, INT8, tmp_path, data)
    assert net == before


def test_nodes_are_kept_by_their_names(tmp_path: Path, data: Path) -> None:
    wanted = replace(INT8, keep=(KeepRule(pattern="/h*"),))
    found = only(conversion(conv_net(), wanted, tmp_path, data).results())
    assert found.kept == ("/head",)
    assert nodes_in(found)["int8"] == 2


def test_a_rule_of_sixteen_bits_is_kept_by_each_precision_that_auto_tries(
    tmp_path: Path, data: Path
) -> None:
    rule = KeepRule(pattern="/h*", precision="fp16")
    wanted = replace(INT8, precision=Precision.AUTO, keep=(rule,), tolerance=0.002)
    tried = conversion(conv_net(), wanted, tmp_path, data)
    assert next(tried.results()).precision is Precision.FP16
    assert [reason.partition(":")[0] for reason in tried.refused] == ["int8+fp16", "int8"]


def test_a_rule_that_names_no_node_is_refused(tmp_path: Path) -> None:
    wanted = replace(WANTED, keep=(KeepRule(pattern="/nothing*"),))
    with pytest.raises(OptionInvalid, match="no node has a name like '/nothing"):
        only(conversion(conv_net(), wanted, tmp_path).results())


def test_what_is_too_inaccurate_is_refused_with_the_nodes_to_blame(
    tmp_path: Path, data: Path
) -> None:
    wanted = replace(INT8, tolerance=1e-4)
    with pytest.raises(
        AccuracyTooLow, match=r"in int8, output 'y' differs by .*most harm is done by '/"
    ):
        only(conversion(conv_net(), wanted, tmp_path, data).results())


def harmful() -> ModelProto:
    """A network of which one convolution has weights of very different sizes in one channel."""
    net = conv_net()
    second = next(t for t in net.graph.initializer if t.name == "w2")
    values = numpy_helper.to_array(second).copy()
    values[:, 0] *= 300
    second.CopyFrom(numpy_helper.from_array(values, "w2"))
    return net


def test_a_repair_keeps_what_does_harm_and_no_more(tmp_path: Path, data: Path) -> None:
    plain = replace(INT8, tolerance=0.01)
    with pytest.raises(AccuracyTooLow):
        only(conversion(harmful(), plain, tmp_path, data).results())
    found = only(conversion(harmful(), replace(plain, repair=True), tmp_path, data).results())
    assert worst(found.errors).is_within(0.01)
    assert 0 < len(found.kept) < 3
    assert nodes_in(found)["int8"] == 3 - len(found.kept)


def test_a_repair_that_would_keep_everything_is_none(tmp_path: Path, data: Path) -> None:
    with pytest.raises(AccuracyTooLow):
        only(
            conversion(
                conv_net(), replace(INT8, tolerance=1e-9, repair=True), tmp_path, data
            ).results()
        )


def test_auto_ends_at_the_first_that_is_accurate(tmp_path: Path, data: Path) -> None:
    wanted = replace(INT8, precision=Precision.AUTO, tolerance=0.002)
    tried = conversion(conv_net(), wanted, tmp_path, data)
    first = next(tried.results())
    assert first.precision is Precision.FP16
    assert [reason.partition(":")[0] for reason in tried.refused] == ["int8+fp16", "int8"]


def test_auto_always_has_the_model_as_it_was(tmp_path: Path, data: Path) -> None:
    wanted = replace(INT8, precision=Precision.AUTO, tolerance=1e-9)
    assert (
        next(conversion(conv_net(), wanted, tmp_path, data).results()).precision
        is Precision.FP32
    )


def test_accuracy_on_noise_proves_nothing(tmp_path: Path, data: Path) -> None:
    assert not conversion(conv_net(), WANTED, tmp_path).is_proven
    assert conversion(conv_net(), INT8, tmp_path, data).is_proven


def test_constants_that_sixteen_bits_do_not_hold_stay_in_thirty_two(tmp_path: Path) -> None:
    net = conv_net()
    head = next(t for t in net.graph.initializer if t.name == "w3")
    values = numpy_helper.to_array(head).copy()
    values[0, 0] = 70_000
    head.CopyFrom(numpy_helper.from_array(values, "w3"))
    assert set(overflowing(net)) == {"/head"}
    found = only(conversion(net, WANTED, tmp_path).results())
    assert worst(found.errors).is_within(0.02)
    weights = next(t for t in found.model.graph.initializer if t.name == "w3")
    assert weights.data_type == TensorProto.FLOAT


def test_a_model_without_anything_to_quantise_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, x=np.ones((3, 1, 3, 8, 8), np.float32))
    net = model(node("Relu", ["x"]), inputs=[value("x", ["n", 3, 8, 8])])
    with pytest.raises(ConversionFailed, match="nothing to convert to int8"):
        only(conversion(net, INT8, tmp_path, data).results())


def test_samples_that_do_not_fit_are_refused_before_anything_is_converted(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, other=np.ones((3, 1, 3, 8, 8), np.float32))
    with pytest.raises(SamplesInvalid, match="no array for input 'x'"):
        conversion(conv_net(), INT8, tmp_path, data)


def test_a_model_in_half_precision_is_not_fp32(tmp_path: Path) -> None:
    half = only(conversion(conv_net(), WANTED, tmp_path).results()).model
    with pytest.raises(ConversionFailed, match="compute in fp16 already"):
        unconverted(half, Precision.FP32)
    assert unconverted(half, Precision.MODEL).precision == "model"
    assert unconverted(conv_net(), Precision.FP32).shares


@pytest.mark.parametrize("opset", [7, 11, 13, 17, 21])
def test_cleaning_raises_the_opset_and_changes_no_value(opset: int) -> None:
    net = conv_net(opset=opset)
    clean = Clean().apply(copy.deepcopy(net))
    assert opset_of(clean) == 21
    onnx.checker.check_model(clean)


def test_every_node_gets_a_name_of_its_own() -> None:
    net = model(
        node("Relu", ["x"], "a"),
        node("Relu", ["a"], "b", name="n"),
        node("Relu", ["b"], name="n"),
    )
    names = [each.name for each in named(net).graph.node]
    assert names == ["Relu(a)", "n", "n'"]


def test_shares_are_of_what_is_there() -> None:
    found = {share.precision: share for share in shares(conv_net())}
    assert set(found) == {"fp32"}
    assert found["fp32"].nodes == 6
    light = shares(onnx.load_from_string(light_model("squeezenet")))
    assert sum(share.nodes for share in light) > 60
