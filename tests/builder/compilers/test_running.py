"""An engine is put into use only when it computes what is expected of it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.builder.models import conv_net
from tests.builder.signed import signed_for
from tests.cli.commands import Result, in_process

from seatkeeper.artifacts.errors import (
    BuildError,
    EngineDamaged,
    EngineInaccurate,
    RunnerUnavailable,
    SamplesDamaged,
    SamplesInvalid,
)
from seatkeeper.artifacts.manifest import AgentKey
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
from seatkeeper.builder.backends._driver import host_targets
from seatkeeper.builder.backends._gpu import Gpu
from seatkeeper.builder.backends.tensorrt import bindings
from seatkeeper.builder.running import tensorrt_runner
from seatkeeper.builder.running.check import check_engine
from seatkeeper.builder.running.onnx_runner import OnnxRunner
from seatkeeper.builder.running.runner import open_runner
from seatkeeper.cli.exits import Exit
from seatkeeper.v1 import build_pb2

SAMPLES = 4
needs_no_gpu = pytest.mark.skipif(bool(host_targets()), reason="this machine has a GPU")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(conv_net().SerializeToString())
    return path


@pytest.fixture
def inputs(tmp_path: Path, model: Path) -> Path:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    samples = np.random.default_rng(7).normal(size=(SAMPLES, *shape)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", **{value.name: samples})  # type: ignore[arg-type]  # its stub wants a flag
    return tmp_path / "inputs.npz"


@pytest.fixture
def expected(tmp_path: Path, model: Path, inputs: Path) -> Path:
    return written(tmp_path, computed(model, inputs))


def computed(model: Path, inputs: Path) -> dict[str, np.ndarray]:
    """The outputs as the documentation has a user make them."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    with np.load(inputs) as arrays:
        (name,) = arrays.files
        rows = [session.run(names, {name: sample}) for sample in arrays[name]]
    return {
        name: np.stack(values)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }


def written(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "expected.npz", **arrays)  # type: ignore[arg-type]  # its stub wants a flag
    return folder / "expected.npz"


def test_a_model_that_computes_what_is_expected_passes(
    model: Path, inputs: Path, expected: Path
) -> None:
    outputs = check_engine(OnnxRunner(model), inputs, expected, 0.001)
    assert [each.relative_l2 < 1e-5 for each in outputs] == [True]


@pytest.mark.parametrize("factor", [1.02, -1.0, np.nan, np.inf])
def test_what_computes_something_else_is_refused(
    model: Path, inputs: Path, expected: Path, tmp_path: Path, factor: float
) -> None:
    with np.load(expected) as arrays:
        wrong = {name: (arrays[name] * factor).astype(np.float32) for name in arrays.files}
    if not np.isfinite(factor):
        # It is the engine whose numbers are none, not the expected ones.
        class Broken(OnnxRunner):
            def run(self, feeds: object) -> dict[str, np.ndarray]:
                return {name: values[0] for name, values in wrong.items()}

        with pytest.raises(EngineInaccurate):
            check_engine(Broken(model), inputs, expected, 0.01)
        return
    with pytest.raises(EngineInaccurate, match="over the gate of 1"):
        check_engine(OnnxRunner(model), inputs, written(tmp_path, wrong), 0.01)


def test_samples_that_do_not_fit_are_refused_by_name(
    model: Path, inputs: Path, expected: Path, tmp_path: Path
) -> None:
    runner = OnnxRunner(model)
    cases: list[tuple[dict[str, np.ndarray], type[BuildError]]] = [
        ({"nothing": np.zeros((SAMPLES, 3), np.float32)}, SamplesInvalid),
        ({}, SamplesDamaged),
        ({next(iter(computed(model, inputs))): np.zeros((3, 2), np.float32)}, SamplesInvalid),
        (
            {next(iter(computed(model, inputs))): np.zeros((4, 999), np.float32)},
            EngineInaccurate,
        ),
    ]
    for arrays, kind in cases:
        with pytest.raises(kind):
            check_engine(runner, inputs, written(tmp_path, arrays), 0.01)
    inputs.write_bytes(b"not an archive")
    with pytest.raises(SamplesDamaged):
        check_engine(runner, inputs, expected, 0.01)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"vtrt" + bytes(100))
    with pytest.raises(EngineDamaged):
        OnnxRunner(tmp_path / "bad")
    with pytest.raises(RunnerUnavailable, match="onnxruntime, tensorrt, tensorrt_rtx"):
        open_runner("other", tmp_path / "bad")


@needs_no_gpu
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_without_a_gpu_the_library_is_refused_by_name(backend: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerUnavailable, match=f"{backend} runs engines on a GPU"):
        open_runner(backend, tmp_path / "engine")


def test_the_library_has_every_call_that_is_made() -> None:
    module = bindings("tensorrt_rtx")
    for kind, calls in (
        (module.Runtime, tensorrt_runner.RUNTIME_CALLS),
        (module.ICudaEngine, tensorrt_runner.ENGINE_CALLS),
        (module.IExecutionContext, tensorrt_runner.CONTEXT_CALLS),
    ):
        assert [call for call in calls if not hasattr(kind, call)] == []
    assert hasattr(module, "nptype")
    assert hasattr(module.TensorIOMode, "INPUT")


@pytest.mark.skipif(not host_targets(), reason="needs a GPU")
def test_memory_of_the_gpu_gives_back_what_was_copied() -> None:
    gpu = Gpu(RunnerUnavailable)
    array, copy = np.arange(1_000, dtype=np.float32), np.zeros(1_000, np.float32)
    address = gpu.allocated(array.nbytes)
    gpu.write(address, array.ctypes.data, array.nbytes)
    gpu.read(address, copy.ctypes.data, copy.nbytes)
    gpu.free(address)
    assert (copy == array).all()
    assert ctypes.CDLL("libcuda.so.1")


# The command ---------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path, inputs: Path, expected: Path) -> str:
    """An engine in a store that was imported from a bundle, with its samples."""
    engine, signer = tmp_path / "built", AgentKey.generate()
    engine.write_bytes(b"vtrt" + bytes(1_000))
    signed = signed_for(engine.read_bytes(), signer)
    key = build_pb2.EngineManifest.FromString(signed.manifest).key
    ArtifactStore.at(str(tmp_path / "here")).publish(signed, engine)
    bundle = str(tmp_path / "bundle")
    samples = ("--samples", str(inputs), "--expected", str(expected))
    here = ("--store", str(tmp_path / "here"))
    in_process("engines", "export", key, "-o", bundle, *samples, *here).check()
    there = ("--store", str(tmp_path / "there"))
    in_process("engines", "import", bundle, "--trust", signer.public_key.hex(), *there).check()
    return key


def checked(tmp_path: Path, *arguments: str) -> Result:
    store = ("--store", str(tmp_path / "there"))
    return in_process("engines", "check", *arguments, *store)


def test_a_bundles_samples_are_run(key: str, model: Path, tmp_path: Path) -> None:
    said = checked(tmp_path, key, "--in-its-place", str(model), "--json").check().json
    assert "ONNX Runtime" in said["runner"]
    assert said["tolerance"] == 0.01
    assert [each["relative_l2"] < 1e-5 for each in said["outputs"]] == [True]
    assert "passed" in checked(tmp_path, key[:8], "--in-its-place", str(model)).check().out


def test_an_engine_over_the_gate_is_refused(key: str, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(conv_net(scale=3.0).SerializeToString())
    line = checked(tmp_path, key, "--in-its-place", str(other)).refused(Exit.REFUSED)
    assert "over the gate of 1" in line


@needs_no_gpu
def test_an_engine_that_cannot_be_checked_here_is_not_put_into_use(
    key: str, tmp_path: Path
) -> None:
    use = tmp_path / "in-use"
    use.write_bytes(b"the one before")
    line = checked(tmp_path, key, "-o", str(use)).refused(Exit.CONFIG)
    assert "this machine has none" in line
    assert use.read_bytes() == b"the one before"


def test_an_engine_that_passes_is_put_into_use(
    key: str, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library's place is taken by what can be run here.
    from seatkeeper.cli import engine_check

    run = engine_check._run
    monkeypatch.setattr(
        engine_check, "_run", lambda _runner, _file, *rest: run("onnxruntime", model, *rest)
    )
    checked(tmp_path, key, "-o", str(tmp_path / "in-use")).check()
    assert (tmp_path / "in-use").read_bytes() == (tmp_path / "built").read_bytes()


def test_a_process_that_dies_is_reported(
    key: str, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seatkeeper.cli import engine_check

    monkeypatch.setattr(engine_check, "MODULE", "seatkeeper.no_such_module")
    line = checked(tmp_path, key, "--in-its-place", str(model)).refused(Exit.FAILED)
    assert "ended with code 1" in line


def test_an_engine_without_samples_cannot_be_checked(
    key: str, tmp_path: Path, model: Path
) -> None:
    (tmp_path / "there" / "inputs" / f"{key}.npz").unlink()
    line = checked(tmp_path, key, "--in-its-place", str(model)).refused(Exit.NOT_FOUND)
    assert "no samples" in line
