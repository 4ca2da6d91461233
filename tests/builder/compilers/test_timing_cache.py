"""Timings of the compiler, kept between builds; tried on TensorRT-RTX's own calls, which take them.

It times nothing, as it compiles ahead of time: `use_timings` leaves it alone, and is gone past here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builder.models import relu

from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.builder.backends.tensorrt import TensorRtBackend, load_tensorrt_rtx

pytestmark = pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX.*:DeprecationWarning")
PLAN = BuildPlan(backend="tensorrt_rtx", targets=("SM86",))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(relu())
    return path


def compiled(model: Path, folder: Path, *, even_ahead: bool) -> TensorRtBackend:
    folder.mkdir(exist_ok=True)
    backend = load_tensorrt_rtx()
    if even_ahead:
        backend._timings = folder / "timings"
    else:
        backend.use_timings(folder)
    assert backend.compile(model, PLAN, lambda _: None).nbytes
    return backend


def test_a_compiler_leaves_its_timings_and_begins_with_those_before(
    model: Path, tmp_path: Path
) -> None:
    timings = tmp_path / "kept" / "timings"
    compiled(model, timings.parent, even_ahead=True)
    first = timings.read_bytes()
    assert first
    compiled(model, timings.parent, even_ahead=True)
    assert timings.read_bytes() == first


def test_timings_that_are_none_are_passed_over(model: Path, tmp_path: Path) -> None:
    timings = tmp_path / "kept" / "timings"
    timings.parent.mkdir()
    timings.write_bytes(b"spoilt")
    compiled(model, timings.parent, even_ahead=True)
    assert timings.read_bytes() != b"spoilt"


def test_one_that_compiles_ahead_of_time_keeps_none(model: Path, tmp_path: Path) -> None:
    compiled(model, tmp_path / "kept", even_ahead=False)
    assert not list((tmp_path / "kept").iterdir())
