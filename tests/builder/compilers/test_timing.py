"""How fast an engine is: found out on a GPU, and refused by name where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builder.build_runner import BuildRunner, rtx_plan
from tests.builder.models import conv_net

from seatkeeper.artifacts.errors import BackendMissing, EngineDamaged
from seatkeeper.builder import timing
from seatkeeper.builder.backends._driver import host_targets
from seatkeeper.builder.timing import time_engine


@pytest.mark.parametrize("backend", ["tensorrt_rtx", "tensorrt"])
def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(timing, "host_targets", tuple)
    with pytest.raises(BackendMissing, match=f"{backend} runs engines on a GPU, and this mach"):
        time_engine(backend, tmp_path / "any", 1)


@pytest.mark.gpu
async def test_an_engine_is_timed_where_it_runs(build_runner: BuildRunner) -> None:
    (target,) = host_targets()
    plan = rtx_plan("x=1x3x8x8:2x3x8x8:4x3x8x8", target=target)
    engine = await build_runner.compile(conv_net().SerializeToString(), plan)
    found = time_engine("tensorrt_rtx", engine.path, 20)
    assert found["shapes"] == {"x": [2, 3, 8, 8]}
    assert 0 < found["min_ms"] <= found["median_ms"] <= found["p99_ms"]
    engine.path.write_bytes(b"no engine")
    with pytest.raises(EngineDamaged, match="does not load"):
        time_engine("tensorrt_rtx", engine.path, 1)
