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
from tests.builder.models import conv_net, int4_net, light_model, model, node, value

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
from seatkeeper.builder.conversion.half import too_large
from seatkeeper.builder.conversion.naming import like, named
from seatkeeper.builder.conversion.shares import shares
from seatkeeper.builder.model import check_model

SENT = Samples(sha256="cd" * 32)
WANTED = PrecisionPlan(precision=Precision.FP16, tolerance=0.02)
ALL = KeepRule(pattern="*", precision="int8")
"""These networks are small: of themselves, nodes with few weights stay as they are."""
INT8 = replace(WANTED, precision=Precision.INT8, calibration=SENT, tolerance=0.05, keep=(ALL,))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(3).normal(0, 1, (20, 1, 3, 8, 8)).astype(np.float32))
    return path


def conversion(
    net: ModelProto,
    wanted: PrecisionPlan,
    folder: Path,
    data: Path | None = None,
    target: str = "SM86",
) -> Conversion:
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=(target,),
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
    wanted = replace(INT8, keep=(ALL, KeepRule(pattern="/h*")))
    found = only(conversion(conv_net(), wanted, tmp_path, data).results())
    assert found.kept == ("/head",)
    assert nodes_in(found)["int8"] == 2


def test_a_rule_of_sixteen_bits_is_kept_by_each_precision_that_auto_tries(
    tmp_path: Path, data: Path
) -> None:
    rule = KeepRule(pattern="/h*", precision="fp16")
    wanted = replace(INT8, precision=Precision.AUTO, keep=(ALL, rule), tolerance=0.002)
    tried = conversion(conv_net(), wanted, tmp_path, data)
    assert next(tried.results()).precision is Precision.FP16
    assert [reason.partition(":")[0] for reason in tried.refused] == ["int8+fp16", "int8"]


def test_a_rule_that_names_no_node_is_refused(tmp_path: Path) -> None:
    wanted = replace(WANTED, keep=(KeepRule(pattern="/nothing*"),))
    with pytest.raises(OptionInvalid, match="no node has a name like '/nothing"):
        only(conversion(conv_net(), wanted, tmp_path).results())


def test_a_rule_that_is_nearly_a_node_s_name_is_refused_with_that(tmp_path: Path) -> None:
    wanted = replace(WANTED, keep=(KeepRule(pattern="/seccond"),))
    with pytest.raises(OptionInvalid, match="the nearest are '/second'"):
        only(conversion(conv_net(), wanted, tmp_path).results())


def test_a_rule_for_what_is_not_there_any_more_says_why(tmp_path: Path) -> None:
    net = conv_net()
    net.graph.node.insert(0, node("Identity", ["w2"], "copied", name="/copied"))
    net.graph.node[3].input[1] = "copied"
    wanted = replace(WANTED, keep=(KeepRule(pattern="/cop*"),))
    with pytest.raises(OptionInvalid, match=r"'/copied', which is like '/cop.*', is folded"):
        only(conversion(net, wanted, tmp_path).results())


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/layers.0/attn[1]/*", ["/layers.0/attn[1]/MatMul"]),
        ("/layers.?/attn[1]/MatMul", ["/layers.0/attn[1]/MatMul"]),
        ("/layers.0/attn1/MatMul", ["/layers.0/attn1/MatMul"]),
        ("*[!a]*", ["[!a] (x)\\d"]),
        ("*\\d", ["[!a] (x)\\d"]),
        ("/Layers*", []),
        ("*attn*", ["/layers.0/attn[1]/MatMul", "/layers.0/attn1/MatMul"]),
    ],
)
def test_in_a_pattern_only_stars_and_question_marks_are_special(
    pattern: str, found: list[str]
) -> None:
    names = ["/layers.0/attn[1]/MatMul", "/layers.0/attn1/MatMul", "[!a] (x)\\d"]
    assert like(pattern, names) == found


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert like("*a" * 255 + "*b", ["a" * 20_000]) == []


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
    assert set(too_large(net)) == {"w3"}
    found = only(conversion(net, WANTED, tmp_path).results())
    assert worst(found.errors).is_within(0.02)
    weights = next(t for t in found.model.graph.initializer if t.name == "w3")
    assert weights.data_type == TensorProto.FLOAT


def test_a_model_without_anything_to_quantise_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, x=np.random.default_rng(3).random((3, 1, 3, 8, 8), np.float32))
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


FP8 = replace(INT8, precision=Precision.FP8, tolerance=0.2)
BF16 = PrecisionPlan(precision=Precision.BF16, accept_unchecked=True)


def test_floating_point_of_eight_bits_is_measured_like_the_rest(
    tmp_path: Path, data: Path
) -> None:
    found = only(conversion(conv_net(), FP8, tmp_path, data, target="SM89").results())
    assert nodes_in(found)["fp8"] == 3
    assert 0 < worst(found.errors).relative_l2 < 0.15
    types = {t.data_type for t in found.model.graph.initializer}
    assert types == {TensorProto.FLOAT, TensorProto.FLOAT8E4M3FN}
    weights = next(t for t in found.model.graph.initializer if t.name == "w1_quantized")
    values = np.abs(numpy_helper.to_array(weights).astype(np.float32))
    assert (values.reshape(8, -1).max(axis=1) == 448).all(), "each channel has its whole range"
    assert not found.is_unchecked


def test_floating_point_of_eight_bits_that_is_too_inaccurate_names_its_nodes(
    tmp_path: Path, data: Path
) -> None:
    wanted = replace(FP8, tolerance=1e-4)
    with pytest.raises(AccuracyTooLow, match=r"in fp8, output 'y' differs by .*most harm"):
        only(conversion(conv_net(), wanted, tmp_path, data, target="SM89").results())


def test_bfloat16_is_converted_and_marked_as_not_measured(tmp_path: Path) -> None:
    tried = conversion(conv_net(), BF16, tmp_path)
    found = only(tried.results())
    assert nodes_in(found)["bf16"] >= 5
    assert found.errors == ()
    assert found.is_unchecked
    assert tried.report(found).is_unchecked
    graph = found.model.graph
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {
        TensorProto.FLOAT
    }
    weights = {t.name: t for t in graph.initializer}
    assert weights["w1"].data_type == TensorProto.BFLOAT16
    before = next(t for t in conv_net().graph.initializer if t.name == "w1")
    difference = numpy_helper.to_array(weights["w1"]).astype(
        np.float32
    ) - numpy_helper.to_array(before)
    assert np.abs(difference).max() < 2**-8


def test_bfloat16_holds_what_float16_does_not(tmp_path: Path) -> None:
    net = conv_net()
    head = next(t for t in net.graph.initializer if t.name == "w3")
    values = numpy_helper.to_array(head).copy()
    values[0, 0], values[0, 1] = 1e30, 1e-30
    head.CopyFrom(numpy_helper.from_array(values, "w3"))
    found = only(conversion(net, BF16, tmp_path).results())
    (weights,) = (t for t in found.model.graph.initializer if t.name == "w3")
    converted = numpy_helper.to_array(weights).astype(np.float32)
    assert np.allclose(converted[0, :2], [1e30, 1e-30], rtol=0.01)


def test_nodes_are_kept_out_of_bfloat16(tmp_path: Path) -> None:
    wanted = replace(BF16, keep=(KeepRule(pattern="/head"),))
    found = only(conversion(conv_net(), wanted, tmp_path).results())
    assert found.kept == ("/head",)
    weights = {t.name: t.data_type for t in found.model.graph.initializer}
    assert (weights["w3"], weights["w1"]) == (TensorProto.FLOAT, TensorProto.BFLOAT16)


def test_a_model_in_half_precision_is_not_converted_to_bfloat16(tmp_path: Path) -> None:
    half = only(conversion(conv_net(), WANTED, tmp_path).results()).model
    with pytest.raises(ConversionFailed, match="computes in fp16 already"):
        only(conversion(half, BF16, tmp_path).results())


def test_auto_takes_bfloat16_only_where_unchecked_is_accepted(tmp_path: Path) -> None:
    auto = replace(WANTED, precision=Precision.AUTO, tolerance=1e-9)
    first = next(conversion(conv_net(), auto, tmp_path).results())
    assert first.precision is Precision.FP32
    first = next(
        conversion(conv_net(), replace(auto, accept_unchecked=True), tmp_path).results()
    )
    assert (first.precision, first.is_unchecked) == (Precision.BF16, True)


# Models that come quantised ------------------------------------------------------------------


@pytest.fixture
def quantised(tmp_path: Path, data: Path) -> ModelProto:
    """As from training with quantisation in mind."""
    return only(conversion(conv_net(), INT8, tmp_path, data).results()).model


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT8_FP16, Precision.FP8])
def test_what_is_quantised_is_not_quantised_again(
    quantised: ModelProto, tmp_path: Path, data: Path, precision: Precision
) -> None:
    wanted = replace(INT8, precision=precision)
    with pytest.raises(ConversionFailed, match=r"quantised already, by .*build it as it is"):
        only(conversion(quantised, wanted, tmp_path, data, target="SM89").results())


def test_the_rest_of_a_quantised_model_is_converted_and_measured(
    quantised: ModelProto, tmp_path: Path, data: Path
) -> None:
    found = only(conversion(quantised, WANTED, tmp_path, data).results())
    assert nodes_in(found)["int8"] == 3
    assert nodes_in(found)["fp16"] > 0
    assert 0 < worst(found.errors).relative_l2 < 0.02


def test_auto_ends_at_a_quantised_model_as_it_is(
    quantised: ModelProto, tmp_path: Path, data: Path
) -> None:
    # So many more that no half of them can be kept that makes 16 bits exact.
    quantised.graph.initializer.append(
        numpy_helper.from_array(np.array(0.1, np.float32), "step")
    )
    last = quantised.graph.output[0].name
    for number in range(60):
        quantised.graph.node.append(node("Add", [last, "step"], f"further_{number}"))
        last = f"further_{number}"
    quantised.graph.output[0].name = last
    wanted = replace(INT8, precision=Precision.AUTO, tolerance=1e-9)
    tried = conversion(quantised, wanted, tmp_path, data)
    found = next(tried.results())
    assert (found.precision, found.model) == (Precision.MODEL, quantised)
    assert [reason.partition(":")[0] for reason in tried.refused] == [
        "int8+fp16",
        "int8",
        "fp16",
    ]


def test_weights_of_four_bits_have_a_share_and_the_rest_is_converted(tmp_path: Path) -> None:
    found = {share.precision: share for share in shares(int4_net())}
    assert found["int4"].weight_bytes == 12
    assert found["fp32"].nodes == 1
    assert unconverted(int4_net(), Precision.MODEL).precision == "model"
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=("SM86",),
        profiles=(parse_profile("x=2x4"),),
        precision=WANTED,
    )
    net = int4_net()
    summary = check_model(net.SerializeToString(), plan)
    tried = Conversion.of(net, summary, plan, SampleFiles(), tmp_path, lambda step: None)
    (half,) = tried.results()
    assert {s.precision: s.weight_bytes for s in half.shares}["int4"] == 12
    assert worst(half.errors).is_within(0.02)
