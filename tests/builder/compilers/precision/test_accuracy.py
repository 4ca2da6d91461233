"""How the difference of two models is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import ModelProto
from tests.builder.models import constant, model, node, value

from seatkeeper.artifacts.errors import ConversionFailed, ModelInvalid
from seatkeeper.artifacts.precision_report import OutputAccuracy, worst
from seatkeeper.builder.conversion.accuracy import Reference

Floats = npt.NDArray[np.float32]
DOUBLED = model(
    node("Mul", ["x", "two"]), inputs=[value("x", ["n", 4])], constants=[constant("two", [2.0])]
)


def scaled(factor: float) -> ModelProto:
    return model(
        node("Mul", ["x", "f"]),
        inputs=[value("x", ["n", 4])],
        constants=[constant("f", [factor])],
    )


def measured(factor: float, samples: Sequence[Floats]) -> OutputAccuracy:
    reference = Reference.of(DOUBLED, [{"x": sample} for sample in samples])
    (found,) = reference.compare(scaled(factor))
    return found


def test_the_error_is_relative_to_what_it_was() -> None:
    sample = np.array([[1, 2, 3, 4]], np.float32)
    found = measured(2.2, [sample])
    assert found.output == "y"
    assert found.relative_l2 == pytest.approx(0.1, rel=1e-4)
    assert found.max_abs == pytest.approx(0.8, rel=1e-4)
    assert found.cosine_error == pytest.approx(0.0, abs=1e-6)
    assert found.top1_agreement == 1.0


def test_the_same_model_makes_no_error() -> None:
    found = measured(2.0, [np.ones((3, 4), np.float32)])
    assert (found.relative_l2, found.max_abs, found.cosine_error) == (0.0, 0.0, 0.0)


def test_another_sign_is_as_wrong_as_can_be() -> None:
    sample = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
    found = measured(-2.0, [sample])
    assert found.relative_l2 == pytest.approx(2.0)
    assert found.cosine_error == pytest.approx(2.0)
    assert found.top1_agreement == 0.0


def test_an_output_of_zeros_is_compared_with_one() -> None:
    reference = Reference.of(scaled(0.0), [{"x": np.ones((1, 4), np.float32)}])
    (found,) = reference.compare(scaled(0.25))
    assert found.relative_l2 == pytest.approx(0.5)


def test_infinity_is_an_error_that_no_tolerance_allows() -> None:
    found = measured(math.inf, [np.ones((1, 4), np.float32)])
    assert math.isnan(found.relative_l2)
    assert not found.is_within(1.0)
    fine = OutputAccuracy(output="z", relative_l2=0.5, max_abs=1, cosine_error=0)
    assert worst([fine, found]) is found


@given(
    arrays.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
    st.floats(0.5, 1.5),
)
def test_the_figures_are_those_of_the_formulas(sample: Floats, factor: float) -> None:
    found = measured(2 * factor, [sample])
    before = (sample * np.float32(2.0)).astype(np.float64)
    after = (sample * np.float32(2 * factor)).astype(np.float64)
    norm = float(np.linalg.norm(before))
    expected = float(np.linalg.norm(before - after)) / (norm or 1.0)
    assert found.relative_l2 == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_more_samples_are_summed_not_averaged() -> None:
    small, large = np.full((1, 4), 0.001, np.float32), np.full((1, 4), 100, np.float32)
    assert measured(2.2, [small, large]).relative_l2 == pytest.approx(0.1, rel=1e-4)


def test_a_model_that_does_not_run_is_none_to_compare_with() -> None:
    wrong = model(node("Reshape", ["x", "s"]), inputs=[value("x", [1, 4]), value("s", [1], 7)])
    feeds = {"x": np.ones((1, 4), np.float32), "s": np.array([3])}
    with pytest.raises(ModelInvalid, match="does not run on the samples"):
        Reference.of(wrong, [feeds])


def test_a_converted_model_that_does_not_run_was_not_converted() -> None:
    reference = Reference.of(DOUBLED, [{"x": np.ones((1, 4), np.float32)}])
    other = model(node("NoSuch", ["x"]), inputs=[value("x", [1, 4])])
    with pytest.raises(ConversionFailed, match="does not run"):
        reference.compare(other)
