"""Weights outside the model: what the worker checks, loads and converts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from tests.builder.build_runner import rtx_plan
from tests.builder.models import (
    external_constant,
    model,
    node,
    value,
    weights_of,
    with_weights_outside,
)

from seatkeeper.artifacts import summary
from seatkeeper.artifacts.errors import ConversionFailed, ModelTooLarge
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.artifacts.precision import Precision, PrecisionPlan
from seatkeeper.artifacts.summary import ModelLimits, ModelSummary
from seatkeeper.builder import worker
from seatkeeper.builder.external import ExternalData
from seatkeeper.builder.job import WorkerJob, options_hex
from seatkeeper.builder.model import check_model, load_external_data
from seatkeeper.client.builds.external_data import needed_bytes

FILES = {"w.bin": weights_of(16 * 8), "a/b.bin": weights_of(16 * 4, 2)}
SIZES = {path: len(content) for path, content in FILES.items()}


def laid_out(folder: Path) -> ExternalData:
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return ExternalData(folder, SIZES)


def checked(folder: Path, network: onnx.ModelProto, **limits: Any) -> ModelSummary:
    external = laid_out(folder)
    content = network.SerializeToString()
    return check_model(content, rtx_plan(), ModelLimits(**limits), external)


def test_weights_outside_count_as_the_model_s(tmp_path: Path) -> None:
    network = with_weights_outside(FILES)
    assert checked(tmp_path, network).parameters_bytes == sum(SIZES.values())
    whole = len(network.SerializeToString()) + sum(SIZES.values())
    assert checked(tmp_path, network, bytes_max=whole).nodes == 6
    with pytest.raises(ModelTooLarge, match=f"{whole} bytes"):
        checked(tmp_path, network, bytes_max=whole - 1)


def test_a_file_that_no_message_can_be_says_how_to_save_it(tmp_path: Path) -> None:
    with pytest.raises(ModelTooLarge, match="save_as_external_data"):
        checked(tmp_path, with_weights_outside(FILES), file_bytes_max=100)


def test_what_is_loaded_is_what_onnx_loads(tmp_path: Path) -> None:
    network = with_weights_outside(FILES)
    (tmp_path / "model.onnx").write_bytes(network.SerializeToString())
    load_external_data(network, laid_out(tmp_path))
    by_onnx = onnx.load(tmp_path / "model.onnx")
    for ours, theirs in zip(network.graph.initializer, by_onnx.graph.initializer, strict=True):
        assert ours.raw_data == theirs.raw_data
        assert not ours.external_data
        assert ours.data_location == TensorProto.DEFAULT


def everywhere() -> onnx.ModelProto:
    """A model that keeps tensors outside wherever ONNX has tensors."""
    branch = helper.make_graph(
        [node("Identity", ["inner"], "z", value=external_constant("v", "branch/attribute"))],
        "branch",
        [],
        [value("z", [1, 4])],
        [external_constant("inner", "branch/constant")],
    )
    sparse = helper.make_sparse_tensor(
        external_constant("s", "sparse/values"), external_constant("i", "sparse/indices"), [4]
    )
    network = model(
        node("Constant", [], "c", value=external_constant("c", "attribute")),
        node("If", ["x"], "y", then_branch=branch, else_branch=branch),
        constants=[external_constant("w", "constant")],
    )
    network.graph.sparse_initializer.append(sparse)
    function = helper.make_function(
        "own",
        "f",
        ["x"],
        ["y"],
        [node("Constant", [], "y", value=external_constant("f", "function/attribute"))],
        [helper.make_opsetid("", 17)],
    )
    network.functions.append(function)
    return network


def test_the_client_finds_every_tensor_that_onnx_has(tmp_path: Path) -> None:
    content = everywhere().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    named = {
        *("constant", "attribute", "branch/constant", "branch/attribute"),
        *("sparse/values", "sparse/indices", "function/attribute"),
    }
    assert set(needed_bytes(path)) == named
    assert set(needed_bytes(content)) == named
    assert needed_bytes(model().SerializeToString()) == {}


# Conversion of what is too large for one message ------------------------------------------------


class FakeBackend:
    """Keeps what it was to compile."""

    def __init__(self) -> None:
        self.compiled: list[Path] = []

    def compile(self, model: Path, plan: BuildPlan, report: object) -> memoryview:
        self.compiled.append(model)
        return memoryview(b"engine")


def converted(folder: Path, precision: Precision, backend: FakeBackend) -> Any:
    plan = replace(rtx_plan(), precision=PrecisionPlan(precision=precision))
    network = with_weights_outside(FILES)
    found = checked(folder, network)
    (folder / "model.onnx").write_bytes(network.SerializeToString())
    job = WorkerJob(
        parent_pid=1,
        backend=plan.backend,
        model_path=str(folder / "model.onnx"),
        external_files=SIZES,
        engine_path=str(folder / "engine"),
        options_hex=options_hex(plan),
        memory_bytes=1 << 30,
        stack_bytes=1 << 23,
        engine_bytes_max=1 << 30,
        model_limits=ModelLimits(),
    )
    _, report = worker.compile_converted(job, found, backend, lambda progress: None)  # type: ignore[arg-type]  # it stands in for a compiler
    return report


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.AUTO])
def test_a_model_with_weights_outside_is_saved_again_for_the_compiler(
    tmp_path: Path, precision: Precision
) -> None:
    backend = FakeBackend()
    report = converted(tmp_path, precision, backend)
    assert report.precision is Precision.FP16
    (path,) = backend.compiled
    assert path.parent == tmp_path
    assert path.name != "model.onnx"
    assert needed_bytes(path) == {}


def test_what_cannot_be_one_message_is_not_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "CONVERTED_BYTES_MAX", 100)
    backend = FakeBackend()
    with pytest.raises(ConversionFailed, match="100 at most; build it as it is"):
        converted(tmp_path, Precision.FP16, backend)
    assert backend.compiled == []


def test_what_cannot_be_one_message_ends_as_it_is_with_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "CONVERTED_BYTES_MAX", 100)
    backend = FakeBackend()
    report = converted(tmp_path, Precision.AUTO, backend)
    assert backend.compiled == [tmp_path / "model.onnx"]
    assert report.precision is Precision.FP32
    assert [each.split(":")[0] for each in report.refused] == ["fp16"]
    assert {share.precision: share.weight_bytes for share in report.shares} == {
        "fp32": sum(SIZES.values())
    }


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.MODEL])
def test_what_converts_nothing_compiles_the_files_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr(summary, "CONVERTED_BYTES_MAX", 100)
    backend = FakeBackend()
    assert converted(tmp_path, precision, backend).precision is precision
    assert backend.compiled == [tmp_path / "model.onnx"]
