"""Models with branches and loops, and weights that their graphs share, in every conversion.

What comes of one is a model by ONNX's own checker, runs, and computes what the model computed; or it
is an error of ours that says why.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.builder.branching import Branching
from tests.builder.models import model, node, value

from seatkeeper.artifacts.errors import AccuracyTooLow, ConversionFailed, OptionInvalid
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.artifacts.precision import (
    NO_SAMPLES,
    QUANTISED,
    KeepRule,
    Precision,
    PrecisionPlan,
    Samples,
)
from seatkeeper.artifacts.precision_report import worst
from seatkeeper.builder.conversion.accuracy import runner
from seatkeeper.builder.conversion.clean import Clean
from seatkeeper.builder.conversion.conversion import Conversion, Converted, SampleFiles
from seatkeeper.builder.conversion.scopes import graphs_in
from seatkeeper.builder.model import check_model

SENT = Samples(sha256="cd" * 32)
FLAGS = np.array([True, False, False, True, True, False])
ALL_IN_8_BITS = (KeepRule(pattern="*", precision="int8"),)
MOST_ERROR = {Precision.FP16: 0.02, Precision.BF16: 0.0}
MOST_ERROR_OF_8_BITS = 0.5
"""These networks are far too small for 8 bits. What is wired wrongly differs by more, or not at all."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("branches")
    x = np.random.default_rng(3).normal(0, 1, (6, 2, 4)).astype(np.float32)
    np.savez(made / "data.npz", x=x, flag=FLAGS)
    return made


def converted(
    net: ModelProto, precision: Precision, folder: Path, *, keep: Sequence[KeepRule] = ()
) -> Converted:
    is_quantised = precision in QUANTISED
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=("SM89",),
        precision=PrecisionPlan(
            precision=precision,
            calibration=SENT if is_quantised else NO_SAMPLES,
            samples=SENT if is_quantised else NO_SAMPLES,
            tolerance=1.0,
            keep=(*keep, *(ALL_IN_8_BITS if is_quantised else ())),
            accept_unchecked=precision is Precision.BF16,
        ),
    )
    data = folder / "data.npz" if is_quantised else None
    summary = check_model(net.SerializeToString(), plan)
    files = SampleFiles(data, data)
    conversion = Conversion.of(net, summary, plan, files, folder, lambda step: None)
    (result,) = conversion.results()
    return result


def check_is_sound(found: Converted, net: ModelProto, *, is_large: bool = False) -> None:
    """The result is a model, takes and gives what the model did, and runs.

    It computes the same unless its numbers are so large that 16 bits do not hold what comes of them.
    """
    onnx.checker.check_model(found.model, full_check=True)
    constants = {each.name for each in net.graph.initializer}
    takes = [v.name for v in net.graph.input if v.name not in constants]
    assert [v.name for v in found.model.graph.input if v.name not in constants] == takes
    assert [v.name for v in found.model.graph.output] == [v.name for v in net.graph.output]
    if not found.is_unchecked:
        runner(found.model)
        most = MOST_ERROR.get(found.precision, MOST_ERROR_OF_8_BITS)
        assert is_large or worst(found.errors).relative_l2 <= most


def runs(net: ModelProto) -> bool:
    try:
        run = runner(net)
        for flag in (True, False):
            run({"x": np.ones((2, 4), np.float32), "flag": np.array(flag)})
    except Exception:  # ONNX Runtime does not run all that is a model
        return False
    return True


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(is_large=st.booleans(), choices=st.data())
def test_any_model_with_bodies_in_sixteen_bits(
    precision: Precision, is_large: bool, choices: Any, folder: Path
) -> None:
    sizes = (0.5, 0.5, 1e5) if is_large else (0.5,)
    net = Branching(lambda those: choices.draw(st.sampled_from(those)), sizes).model()
    assume(runs(net))
    names = [each.name for each in Clean().apply(copy.deepcopy(net)).graph.node if each.name]
    kept = choices.draw(st.sampled_from(["", *names]))
    keep = [KeepRule(pattern=kept)] if kept else []
    # A model may have casts of its own to 16 bits of the other kind.
    with raising_only("is not converted to bf16" if precision is Precision.BF16 else None):
        try:
            found = converted(net, precision, folder, keep=keep)
        except AccuracyTooLow:
            if not is_large:
                raise
            return
        check_is_sound(found, net, is_large=is_large)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT8_FP16, Precision.FP8])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.data())
def test_any_model_with_bodies_in_eight_bits(
    precision: Precision, choices: Any, folder: Path
) -> None:
    net = Branching(lambda those: choices.draw(st.sampled_from(those)), sizes=[0.5]).model()
    assume(runs(net))
    with raising_only("there is nothing to convert"):
        check_is_sound(converted(net, precision, folder), net)


@contextmanager
def raising_only(reason: str | None) -> Iterator[None]:
    """Let an error of ours pass that has this reason; no other, and none at all without one."""
    try:
        yield
    except ConversionFailed as error:
        if reason is None or reason not in error.message:
            raise


def body(name: str, nodes: Sequence[Any], constants: Sequence[TensorProto] = ()) -> Any:
    output = nodes[-1].output[0]
    return helper.make_graph(list(nodes), name, [], [value(output, [2, 4])], list(constants))


def weights(name: str, *, scale: float = 0.5, seed: int = 1) -> TensorProto:
    values = np.random.default_rng(seed).normal(0, scale, (4, 4)).astype(np.float32)
    return numpy_helper.from_array(values, name)


def branching(
    then: Any, otherwise: Any, *nodes: Any, constants: Sequence[TensorProto]
) -> ModelProto:
    return model(
        *nodes,
        node("If", ["flag"], "y", name="/if", then_branch=then, else_branch=otherwise),
        inputs=[value("x", [2, 4]), value("flag", [], TensorProto.BOOL)],
        outputs=[value("y", [2, 4])],
        constants=constants,
    )


def shared() -> ModelProto:
    """A weight that the main graph and both bodies take, and one that both bodies name the same."""
    return branching(
        body(
            "a",
            [node("MatMul", ["h", "w"], "p"), node("MatMul", ["p", "own"], "a")],
            [weights("own", seed=2)],
        ),
        body(
            "b",
            [node("MatMul", ["x", "w"], "q"), node("MatMul", ["q", "own"], "b")],
            [weights("own", seed=3)],
        ),
        node("MatMul", ["x", "w"], "h", name="/main"),
        constants=[weights("w")],
    )


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8_FP16])
def test_a_weight_that_bodies_share_with_the_main_graph(
    precision: Precision, folder: Path
) -> None:
    found = converted(shared(), precision, folder)
    check_is_sound(found, shared())


def test_weights_of_bodies_are_stored_in_sixteen_bits_each_once(folder: Path) -> None:
    found = converted(shared(), Precision.FP16, folder)
    constants = [
        each.data_type for graph in graphs_in(found.model.graph) for each in graph.initializer
    ]
    assert constants == [TensorProto.FLOAT16] * 3
    bodies = [*graphs_in(found.model.graph)][1:]
    for each in bodies:
        products = [n for n in each.node if n.op_type == "MatMul"]
        assert products[0].input[1] == "w", "no cast stands between a weight and its body"


def test_what_is_kept_has_its_weights_as_they_were(folder: Path) -> None:
    keep = [KeepRule(pattern="/main")]
    found = converted(shared(), Precision.FP16, folder, keep=keep)
    check_is_sound(found, shared())
    (main,) = (n for n in found.model.graph.node if n.name == "/main")
    constants = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    assert np.array_equal(constants[main.input[1]], numpy_helper.to_array(weights("w")))
    assert constants["w"].dtype == np.float16


def test_a_kept_branch_is_kept_with_its_bodies(folder: Path) -> None:
    found = converted(shared(), Precision.FP16, folder, keep=[KeepRule(pattern="/if")])
    check_is_sound(found, shared())
    for each in [*graphs_in(found.model.graph)][1:]:
        assert [t.data_type for t in each.initializer] == [TensorProto.FLOAT]
        assert not [n for n in each.node if n.op_type == "Cast"]


def test_a_rule_for_a_node_in_a_branch_names_what_can_be_kept(folder: Path) -> None:
    net = shared()
    net.graph.node[1].attribute[0].g.node[0].name = "/inside"
    with pytest.raises(OptionInvalid, match=r"'/inside'.* is in a branch or loop of '/if'"):
        converted(net, Precision.FP16, folder, keep=[KeepRule(pattern="/inside")])


def test_bodies_with_weights_that_sixteen_bits_do_not_hold(folder: Path) -> None:
    net = branching(
        body("a", [node("MatMul", ["x", "w"], "p"), node("Tanh", ["p"], "a")]),
        body(
            "b",
            [node("MatMul", ["x", "v"], "q"), node("Tanh", ["q"], "b")],
            [weights("v", scale=1e6)],
        ),
        constants=[weights("w", scale=1e6)],
    )
    for precision in (Precision.FP16, Precision.BF16):
        found = converted(net, precision, folder)
        check_is_sound(found, net)
        kept = [t for g in graphs_in(found.model.graph) for t in g.initializer]
        largest = max(np.abs(numpy_helper.to_array(t).astype(np.float32)).max() for t in kept)
        assert largest > 1e5, "nothing was cut off"


def test_an_input_that_nothing_takes_stays_in_its_place(folder: Path) -> None:
    net = model(
        node("MatMul", ["x", "w"], "y", name="/product"),
        inputs=[value("flag", [], TensorProto.BOOL), value("x", [2, 4]), value("last", [3])],
        outputs=[value("y", [2, 4])],
        constants=[weights("w")],
    )
    check_is_sound(converted(net, Precision.FP16, folder), net)


def test_outputs_that_are_inputs_or_constants_stay_as_they_are(folder: Path) -> None:
    net = model(
        node("MatMul", ["x", "w"], "y", name="/product"),
        inputs=[value("x", [2, 4]), value("flag", [], TensorProto.BOOL)],
        outputs=[value("w", [4, 4]), value("y", [2, 4]), value("x", [2, 4])],
        constants=[weights("w")],
    )
    for precision in (Precision.FP16, Precision.BF16, Precision.INT8):
        found = converted(net, precision, folder)
        check_is_sound(found, net)
        if precision is not Precision.BF16:
            given = runner(found.model)(
                {"x": np.ones((2, 4), np.float32), "flag": np.array(True)}
            )
            assert np.array_equal(given["w"], numpy_helper.to_array(weights("w")))


def test_names_as_the_library_gives_them_are_no_trouble(folder: Path) -> None:
    net = model(
        node("MatMul", ["x", "w"], "graph_input_cast_0", name="graph_input_cast0"),
        node("Max", ["graph_input_cast_0", "x"], "graph_output_cast_0", name="a"),
        node("Relu", ["graph_output_cast_0"], "graph_input_cast_1", name="graph_output_cast0"),
        inputs=[value("x", [2, 4]), value("flag", [], TensorProto.BOOL)],
        outputs=[value("graph_input_cast_1", [2, 4])],
        constants=[weights("w")],
    )
    for precision in (Precision.FP16, Precision.BF16, Precision.INT8_FP16):
        check_is_sound(converted(net, precision, folder), net)


def test_numbers_of_constants_that_are_no_tensors(folder: Path) -> None:
    net = model(
        node("Constant", [], "half", value_float=0.5),
        node("Mul", ["x", "half"], "y", name="/halved"),
        inputs=[value("x", [2, 4]), value("flag", [], TensorProto.BOOL)],
        outputs=[value("y", [2, 4])],
    )
    check_is_sound(converted(net, Precision.FP16, folder), net)


def test_a_library_that_changes_the_model_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        @staticmethod
        def slim(net: ModelProto, **_options: Any) -> ModelProto:
            for each in net.graph.node:
                if each.op_type == "MatMul":
                    each.input[0] = "x"
                    each.input[1] = "w2"
            net.graph.initializer.append(weights("w2", seed=9))
            return net

    monkeypatch.setattr("seatkeeper.builder.conversion.clean.onnxslim", lambda: Broken)
    found = converted(shared(), Precision.FP16, folder)
    check_is_sound(found, shared())
