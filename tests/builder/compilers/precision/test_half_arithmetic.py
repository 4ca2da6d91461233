"""What a model in 16 bits computes, although the processor that measures it has no such arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from tests.builder.models import constant, model, node, value

from seatkeeper.artifacts.errors import AccuracyTooLow, ConversionFailed, SamplesInvalid
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.artifacts.precision import KeepRule, Precision, PrecisionPlan, Samples
from seatkeeper.artifacts.precision_report import worst
from seatkeeper.builder.conversion.accuracy import Reference, runner
from seatkeeper.builder.conversion.brain_float import BrainFloat
from seatkeeper.builder.conversion.conversion import Conversion, SampleFiles
from seatkeeper.builder.conversion.half import Half
from seatkeeper.builder.conversion.magnitudes import beyond
from seatkeeper.builder.conversion.naming import named
from seatkeeper.builder.conversion.rounding import rounded
from seatkeeper.builder.conversion.samples import check_variety
from seatkeeper.builder.model import check_model

Floats = npt.NDArray[np.float32]
SAMPLES = [
    np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32) for seed in (1, 2)
]
FEEDS = [{"x": sample} for sample in SAMPLES]
SENT = Samples(sha256="ab" * 32)


def chain(*operators: str, factor: float = 1.0) -> ModelProto:
    """Return a model that takes ``x`` through operators; binary ones multiply or divide by a factor."""
    nodes, last = [], "x"
    for number, operator in enumerate(operators):
        given = [last, last] if operator == "Square" else [last]
        given = [last, "k"] if operator in {"Mul", "Div", "Add"} else given
        last = "y" if number == len(operators) - 1 else f"t{number}"
        kind = "Mul" if operator == "Square" else operator
        nodes.append(node(kind, given, last, name=f"/{operator.lower()}{number}"))
    return model(*nodes, inputs=[value("x", [4, 8])], constants=[constant("k", [factor])])


def error(converted: ModelProto, net: ModelProto) -> float:
    return worst(Reference.of(net, FEEDS).compare(converted)).relative_l2


def rounding(values: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float16).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    x=arrays.arrays(np.float32, (4, 8), elements=st.floats(-300, 300, width=32)),
    factor=st.floats(0.015625, 1000, width=32),
)
def test_each_node_gives_what_sixteen_bits_hold(x: Floats, factor: float) -> None:
    half = Half().apply(named(chain("Mul", "Square", "Add", factor=factor)))
    found = runner(half)({"x": x})["y"]
    with np.errstate(over="ignore", invalid="ignore"):
        k = rounding(np.array([factor], np.float32))
        product = rounding(rounding(x) * k)
        expected = rounding(rounding(product * product) + k)
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_what_overflows_on_the_way_is_seen_although_the_end_is_small() -> None:
    net = chain("Mul", "Square", "Sqrt", "Div", factor=1000.0)
    assert not np.isfinite(error(Half().apply(named(net)), net))


def test_what_overflows_in_a_branch_is_seen() -> None:
    def branch(name: str, factor: float) -> GraphProto:
        return helper.make_graph(
            [
                helper.make_node("Mul", ["x", f"{name}k"], [f"{name}b"]),
                helper.make_node("Div", [f"{name}b", f"{name}k"], [f"{name}y"]),
            ],
            name,
            [],
            [value(f"{name}y", [4, 8])],
            [numpy_helper.from_array(np.array([factor], np.float32), f"{name}k")],
        )

    net = model(
        helper.make_node(
            "If",
            ["yes"],
            ["y"],
            name="/if",
            then_branch=branch("a", 6e4),
            else_branch=branch("b", 1.0),
        ),
        inputs=[value("x", [4, 8])],
        constants=[numpy_helper.from_array(np.array(True), "yes")],
    )
    assert not np.isfinite(error(Half().apply(named(net)), net))


def test_a_model_without_sixteen_bits_is_left_as_it_is() -> None:
    net = chain("Mul", "Sqrt")
    assert rounded(net) is net


def converted(
    net: ModelProto,
    folder: Path,
    *,
    keep: tuple[KeepRule, ...] = (),
    precision: Precision = Precision.FP16,
    auto: bool = False,
    tolerance: float = 0.01,
) -> tuple[float, tuple[str, ...], dict[str, int]]:
    data = folder / "data.npz"
    np.savez(data, x=np.stack(SAMPLES))
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=("SM86",),
        precision=PrecisionPlan(
            precision=Precision.AUTO if auto else precision,
            calibration=SENT if precision is Precision.INT8_FP16 else Samples(),
            samples=SENT,
            keep=keep,
            tolerance=tolerance,
        ),
    )
    summary = check_model(net.SerializeToString(), plan)
    files = SampleFiles(data if plan.precision.calibration.are_there else None, data)
    found = Conversion.of(net, summary, plan, files, folder, lambda _: None).converted(
        precision
    )
    nodes = {share.precision: share.nodes for share in found.shares if share.nodes}
    return worst(found.errors).relative_l2, found.kept, nodes


def test_what_sixteen_bits_do_not_hold_on_the_samples_stays_in_thirty_two(
    tmp_path: Path,
) -> None:
    net = chain("Mul", "Square", "Sqrt", "Div", factor=1000.0)
    found, kept, nodes = converted(net, tmp_path)
    assert found < 0.01
    assert kept == ("/sqrt2", "/square1"), "who takes it, as well as who gives it"
    assert nodes == {"fp16": 2, "fp32": 2}


def test_what_is_kept_so_is_no_more_than_needed(tmp_path: Path) -> None:
    assert converted(chain("Mul", "Square", "Sqrt", "Div", factor=10.0), tmp_path)[1] == ()


def test_eight_bits_beside_sixteen_keep_it_too(tmp_path: Path) -> None:
    weights = np.random.default_rng(3).normal(size=(8, 8)).astype(np.float32)
    net = chain("Mul", "Square", "Sqrt", "Div", factor=1000.0)
    net.graph.node[-1].output[0] = "d"
    net.graph.node.append(node("MatMul", ["d", "w"], name="/product"))
    net.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    found, kept, nodes = converted(net, tmp_path, precision=Precision.INT8_FP16, tolerance=0.2)
    assert found < 0.2
    assert {"/sqrt2", "/square1"} == {*kept}
    assert nodes["int8"] == 1


def test_what_is_inaccurate_all_the_same_is_named_with_what_is_large(tmp_path: Path) -> None:
    net = chain("Mul", "Square", "Sqrt", "Div", factor=1000.0)
    with pytest.raises(
        AccuracyTooLow, match=r"most harm is done by .*; over what 16 bits hold go '/sqrt2'"
    ):
        converted(net, tmp_path, tolerance=1e-6)


def test_where_the_largest_numbers_cannot_be_found_none_are(tmp_path: Path) -> None:
    net = named(chain("Mul", "Square"))
    assert beyond(net, [{"x": np.ones((3, 3), np.float32)}], 1.0) == frozenset()
    assert beyond(net, FEEDS, 1.0) == {"/mul0", "/square1"}
    assert beyond(net, FEEDS, 1e9) == frozenset()


def test_nodes_that_are_kept_hand_on_all_their_bits(tmp_path: Path) -> None:
    net = chain("Mul", "Square", "Sqrt", "Div", factor=1000.0)
    found, _, nodes = converted(net, tmp_path, keep=(KeepRule(pattern="*"),))
    assert (found, nodes) == (0.0, {"fp32": 4})
    middle = (KeepRule(pattern="/s*"),)
    found, _, nodes = converted(net, tmp_path, keep=middle)
    assert 0 < found < 0.01
    assert nodes == {"fp16": 2, "fp32": 2}


def test_a_constant_that_sixteen_bits_do_not_hold_goes_from_node_to_node(
    tmp_path: Path,
) -> None:
    assert converted(chain("Mul", "Div", factor=1e6), tmp_path)[0] == 0.0


def test_weights_up_to_what_sixteen_bits_hold_are_not_cut_off(tmp_path: Path) -> None:
    net = chain("Mul", factor=30_000.0)
    small = [{"x": sample / 100} for sample in SAMPLES]
    (found,) = Reference.of(net, small).compare(Half().apply(named(net)))
    assert found.relative_l2 < 0.001


def test_casts_that_are_the_model_s_own_stay() -> None:
    net = named(
        model(
            node("Cast", ["x"], "h", name="/down", to=TensorProto.FLOAT16),
            node("Cast", ["h"], "w", name="/up", to=TensorProto.FLOAT),
            node("Relu", ["w"], "y", name="/relu"),
            inputs=[value("x", [4, 8])],
        )
    )
    kept = Half(["/down", "/up", "/relu"]).apply(net)
    assert {"/down", "/up"} <= {each.name for each in kept.graph.node}


def test_nodes_kept_from_bfloat16_hand_on_all_their_bits() -> None:
    net = named(chain("Mul", "Sqrt", "Div", factor=3.0))
    kept = BrainFloat([each.name for each in net.graph.node]).apply(net)
    assert [each.op_type for each in kept.graph.node] == ["Mul", "Sqrt", "Div"]


@pytest.mark.parametrize("operators", [("Abs", "Neg", "Sqrt")])
def test_a_model_that_computes_no_number_is_compared_with_none(operators: tuple[str]) -> None:
    with pytest.raises(SamplesInvalid, match="'y' has no number but NaN"):
        Reference.of(chain(*operators), FEEDS)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([np.zeros((1, 8)), np.zeros((1, 8))], "one value throughout"),
        ([np.ones((1, 8))], "one value throughout"),
        ([np.arange(8.0), np.arange(8.0)], "all 2 samples are the same"),
    ],
)
def test_samples_that_say_nothing_are_refused(samples: list[Floats], said: str) -> None:
    with pytest.raises(SamplesInvalid, match=said):
        check_variety([{"x": sample} for sample in samples])


def test_one_input_may_be_the_same_throughout() -> None:
    check_variety([{"x": sample, "mask": np.ones((1, 8))} for sample in SAMPLES])
    check_variety([{"x": np.array(1, np.float32)}])


def test_a_model_of_whole_numbers_has_nothing_to_convert() -> None:
    net = model(
        node("Add", ["x", "x"], name="/add"),
        inputs=[value("x", [4], TensorProto.INT64)],
        outputs=[value("y", [4], TensorProto.INT64)],
    )
    with pytest.raises(ConversionFailed, match="nothing is in 32 bits"):
        Half().apply(named(net))


def many_rounded(length: int) -> ModelProto:
    """A chain that loses a digit in one place: what is added is taken away again."""
    nodes, last = [], "x"
    for number in range(length):
        nodes.append(node("Mul", [last, "k"], f"t{number}", name=f"/mul{number}"))
        last = f"t{number}"
    nodes += [
        node("Add", [last, "much"], "u", name="/add"),
        node("Sub", ["u", "much"], "y", name="/sub"),
    ]
    constants = [constant("k", [1.1]), constant("much", [300.0])]
    return model(*nodes, inputs=[value("x", [4, 8])], constants=constants)


def test_auto_keeps_what_does_most_harm_to_sixteen_bits_before_it_gives_them_up(
    tmp_path: Path,
) -> None:
    net = many_rounded(10)
    with pytest.raises(AccuracyTooLow, match="'/add'"):
        converted(net, tmp_path)
    found, kept, nodes = converted(net, tmp_path, auto=True)
    assert found < 0.01
    assert {"/add", "/sub"} >= {*kept} >= {"/add"}
    assert nodes["fp16"] >= 10


def test_auto_does_not_call_it_fp16_when_most_must_be_kept(tmp_path: Path) -> None:
    with pytest.raises(AccuracyTooLow):
        converted(many_rounded(0), tmp_path, auto=True, tolerance=1e-9)
