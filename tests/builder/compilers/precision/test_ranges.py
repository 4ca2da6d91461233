"""Ranges are found once for a model, its samples and a method, and again where they are damaged."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto
from tests.builder.models import conv_net

from seatkeeper.artifacts.precision import CalibrationMethod
from seatkeeper.builder.conversion.clean import Clean
from seatkeeper.builder.conversion.naming import named
from seatkeeper.builder.conversion.quantise import Quantise
from seatkeeper.builder.conversion.samples import Feeds

SAMPLES = [
    {"x": np.random.default_rng(number).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)}
    for number in range(8)
]


class Counted:
    """Samples that count how often a model is run on them."""

    def __init__(self) -> None:
        self.runs = 0

    def __len__(self) -> int:
        return len(SAMPLES)

    def __getitem__(self, number: int) -> Feeds:
        self.runs += 1
        return SAMPLES[number]


@pytest.fixture
def net() -> ModelProto:
    return named(Clean().apply(conv_net()))


def quantised(
    net: ModelProto,
    folder: Path,
    method: CalibrationMethod = CalibrationMethod.MINMAX,
    ranges: Path | None = None,
) -> tuple[bytes, int]:
    samples = Counted()
    step = Quantise(samples, folder, method=method, ranges=ranges)  # type: ignore[arg-type]  # as good as a sequence
    return step.apply(copy.deepcopy(net)).SerializeToString(deterministic=True), samples.runs


@pytest.mark.parametrize("method", CalibrationMethod)
def test_ranges_that_were_found_are_not_found_again(
    net: ModelProto, tmp_path: Path, method: CalibrationMethod
) -> None:
    ranges = tmp_path / "ranges.json"
    without, runs = quantised(net, tmp_path, method)
    first, runs_first = quantised(net, tmp_path, method, ranges)
    again, runs_again = quantised(net, tmp_path, method, ranges)
    assert (runs >= 8, runs_first >= 8, runs_again) == (True, True, 0)
    assert without == first == again


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"data": {}}', b"\xff\xfe", b"null"])
def test_ranges_that_are_damaged_are_found_again(
    net: ModelProto, tmp_path: Path, content: bytes
) -> None:
    ranges = tmp_path / "ranges.json"
    ranges.write_bytes(content)
    found, runs = quantised(net, tmp_path, ranges=ranges)
    assert runs >= 8
    assert found == quantised(net, tmp_path)[0]
    assert ranges.read_bytes() != content
