"""Bad models are refused before the compiler sees them, by the name of what is bad."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper
from tests.builder.models import (
    constant,
    dynamic_relu,
    external_constant,
    light_model,
    model,
    node,
    relu,
    relu_chain,
    value,
)

from seatkeeper.artifacts.errors import (
    BuildError,
    InputUnsupported,
    ModelExternalData,
    ModelInvalid,
    ModelNotOnnx,
    ModelTooComplex,
    ModelTooLarge,
    ModelTruncated,
    OpsetUnsupported,
    ProfileMismatch,
    ProfileMissingInput,
    ProfileUnknownInput,
)
from seatkeeper.artifacts.plan import BuildPlan, parse_profile
from seatkeeper.artifacts.summary import ModelLimits, ModelSummary, ModelValue
from seatkeeper.builder.model import check_model

SQUEEZENET = light_model("squeezenet")


def plan(*profiles: str) -> BuildPlan:
    return BuildPlan(
        backend="tensorrt_rtx", targets=("SM86",), profiles=tuple(map(parse_profile, profiles))
    )


def check(candidate: ModelProto | bytes, *profiles: str, **limits: int) -> ModelSummary:
    model_bytes = candidate if isinstance(candidate, bytes) else candidate.SerializeToString()
    return check_model(model_bytes, plan(*profiles), ModelLimits(**limits))


def test_a_good_model_is_described() -> None:
    summary = check(SQUEEZENET)
    assert summary.inputs == (ModelValue(name="data_0", dims=(1, 3, 224, 224), dtype="FLOAT"),)
    assert [output.name for output in summary.outputs] == ["softmaxout_1"]
    assert summary.nodes == 105
    assert summary.opset == 9
    assert dict(summary.operators)["Conv"] == 26
    assert summary.parameters_bytes > 0


def test_sizes_that_are_free_are_described_as_such() -> None:
    summary = check(dynamic_relu("batch", 4), "x=1x4:2x4:8x4")
    assert summary.inputs == (ModelValue(name="x", dims=(None, 4), dtype="FLOAT"),)


@settings(deadline=None)
@given(st.integers(1, len(SQUEEZENET) - 1))
def test_a_model_broken_off_anywhere_is_called_truncated(length: int) -> None:
    with pytest.raises(ModelTruncated):
        check(SQUEEZENET[:length])


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"hello world " * 50,
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"\xff" * 64,
        b"PK\x03\x04zip",
    ],
)
def test_what_is_no_onnx_is_called_so(garbage: bytes) -> None:
    with pytest.raises(ModelNotOnnx):
        check(garbage)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_model_passes_or_gets_a_typed_error(data: st.DataObject) -> None:
    """Whatever bytes come, nothing but a ``BuildError`` leaves the check."""
    damaged = bytearray(relu())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BuildError):
        assert check(bytes(damaged)).nodes >= 1


def test_a_model_over_the_limit_is_not_even_parsed() -> None:
    with pytest.raises(ModelTooLarge, match="has 101 bytes, more than 100"):
        check(b"\xff" * 101, bytes_max=100)


def loop_body_constant(tensor: TensorProto) -> ModelProto:
    """A model that hides a constant in a branch of an ``If``."""
    branch = helper.make_graph(
        [node("Constant", [], "c", value=tensor)], "branch", [], [value("c", [1, 4])]
    )
    return model(
        node("If", ["condition"], then_branch=branch, else_branch=branch),
        inputs=[value("condition", [], TensorProto.BOOL)],
    )


HIDDEN = external_constant("w", "../../etc/passwd")
FUNCTION = helper.make_function(
    "acme",
    "F",
    ["a"],
    ["b"],
    [node("Constant", [], "b", value=HIDDEN)],
    [helper.make_opsetid("", 17)],
)


def with_function() -> ModelProto:
    calling = model(node("F", ["x"], domain="acme"))
    calling.functions.append(FUNCTION)
    return calling


@pytest.mark.parametrize(
    "candidate",
    [
        model(node("Add", ["x", "w"]), constants=[external_constant("w", "../weights.bin")]),
        model(node("Add", ["x", "w"]), constants=[external_constant("w", "/etc/passwd")]),
        model(node("Add", ["x", "w"]), constants=[external_constant("w", "model.onnx")]),
        loop_body_constant(HIDDEN),
        with_function(),
    ],
    ids=["relative", "absolute", "bare name", "in a subgraph", "in a function"],
)
def test_weights_outside_the_file_are_refused_wherever_they_hide(candidate: ModelProto) -> None:
    with pytest.raises(ModelExternalData):
        check(candidate)


def test_external_data_is_refused_even_when_it_is_not_marked_as_such() -> None:
    tensor = external_constant("w", "weights.bin")
    tensor.data_location = TensorProto.DEFAULT
    with pytest.raises(ModelExternalData, match="'w'"):
        check(model(node("Add", ["x", "w"]), constants=[tensor]))


NAN = float("nan")
HUGE = constant("huge", [2**16, 2**20], TensorProto.INT64)
SHORT = TensorProto(name="w", dims=[1, 4], data_type=TensorProto.FLOAT, raw_data=b"\0" * 8)
TRAINED = model()
TRAINED.training_info.add()


@pytest.mark.parametrize(
    ("candidate", "error", "complaint"),
    [
        (model(outputs=[]), ModelInvalid, "no outputs"),
        (model(outputs=[value("z", [1])]), ModelInvalid, "nothing makes the output 'z'"),
        (
            model(inputs=[value("x", [1, 4]), value("x", [1, 4])]),
            ModelInvalid,
            "'x' is 2 times among the inputs",
        ),
        (
            model(node("Relu", ["x"]), node("Neg", ["x"])),
            ModelInvalid,
            r"\(Neg\) makes 'y', which already exists",
        ),
        (
            model(node("Add", ["x", "w"]), constants=[SHORT]),
            ModelInvalid,
            "constant 'w' has 8 bytes instead of 16",
        ),
        (
            model(node("Add", ["x", "w"]), constants=[constant("w", [1, NAN, 1, 1])]),
            ModelInvalid,
            "constant 'w' contains NaN",
        ),
        (
            model(
                node("Add", ["x", "w"]),
                inputs=[value("x", [4], TensorProto.FLOAT16)],
                constants=[constant("w", [1, NAN, 1, 1], TensorProto.FLOAT16)],
            ),
            ModelInvalid,
            "constant 'w' contains NaN",
        ),
        (TRAINED, ModelInvalid, "training state"),
        (model(opset=99), OpsetUnsupported, "opset 99"),
        (
            model(node("ConstantOfShape", ["huge"], name="fill"), constants=[HUGE]),
            ModelTooComplex,
            r"node 'fill' \(ConstantOfShape\) makes a constant of 274877906944 bytes",
        ),
        (
            model(
                node("Constant", [], "shape", value_ints=[2**16, 2**20]),
                node("Expand", ["x", "shape"]),
                inputs=[value("x", [1, 1])],
            ),
            ModelTooComplex,
            r"\(Expand\) makes a constant of 274877906944 bytes",
        ),
        (
            model(inputs=[value("x", [2], TensorProto.STRING)]),
            InputUnsupported,
            "input 'x' has elements of type STRING",
        ),
        (model(inputs=[value("x", None)]), InputUnsupported, "how many dimensions"),
        (model(inputs=[value("x", [0, 4])]), InputUnsupported, "dimension 0 is 0"),
        (model(inputs=[value("x", [1] * 9)]), InputUnsupported, "more than 8"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused_by_name(
    candidate: ModelProto, error: type[BuildError], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        check(candidate)


def test_infinity_is_a_fine_weight() -> None:
    mask = constant("w", [0.0, float("-inf"), float("inf"), 0.0])
    assert check(model(node("Add", ["x", "w"]), constants=[mask])).parameters_bytes == 16


def test_names_that_are_no_text_are_refused() -> None:
    with pytest.raises(ModelInvalid, match="not UTF-8"):
        check(light_model("resnet50").replace(b"gpu_0", b"\xff\xfe\xfa_0"))


def test_more_nodes_than_allowed_are_refused_in_subgraphs_too() -> None:
    assert check(relu_chain(10), nodes_max=10).nodes == 10
    with pytest.raises(ModelTooComplex, match="11 nodes, more than 10"):
        check(relu_chain(11), nodes_max=10)
    with pytest.raises(ModelTooComplex, match="3 nodes, more than 2"):
        check(loop_body_constant(constant("c", [1.0])), nodes_max=2)


@pytest.mark.parametrize(
    ("profiles", "error", "complaint"),
    [
        ([], ProfileMissingInput, "'x' has free sizes"),
        (["z=1x4:2x4:8x4"], ProfileUnknownInput, "names 'z'; the model's inputs are 'x', 'm'"),
        (["x=1x4:2x4:8x4"], ProfileMissingInput, "profile 0 has no shape for 'm'"),
        (["x=1:2:8,m=1"], ProfileMismatch, "gives 'x' 1 dimensions; the model has 2"),
        (["x=1x5:2x5:8x5,m=1"], ProfileMismatch, "dimension 1 of 'x'"),
        (["x=1x4:2x4:8x5,m=1"], ProfileMismatch, "the model fixes it to 4"),
        (["x=1x4:2x4:8x4,m=1:2:8", "x=1x4:2x4:8x4"], ProfileMissingInput, "profile 1 has no"),
    ],
)
def test_a_profile_must_fit_the_models_inputs(
    profiles: list[str], error: type[BuildError], complaint: str
) -> None:
    two_inputs = model(
        node("Mul", ["x", "m"]), inputs=[value("x", ["batch", 4]), value("m", ["one"])]
    )
    with pytest.raises(error, match=complaint):
        check(two_inputs, *profiles)


def test_minus_one_is_a_free_size_too() -> None:
    with pytest.raises(ProfileMissingInput):
        check(dynamic_relu(-1, 4))


def test_a_profile_may_repeat_an_inputs_fixed_sizes() -> None:
    assert check(relu(), "x=1x4").nodes == 1
