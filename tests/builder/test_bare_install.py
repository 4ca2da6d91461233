"""The client's bare install has no compiler, no onnx and no numpy."""

from __future__ import annotations

import subprocess
import sys

import pytest

ABSENT = ("numpy", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


@pytest.mark.parametrize(
    "module",
    [
        *("artifacts.plan", "artifacts.errors", "artifacts.summary", "artifacts.manifest"),
        *("builder.plan", "builder.errors", "builder.progress", "builder.manifest"),
    ],
)
def test_what_the_client_uses_imports_without_the_builders_extras(module: str) -> None:
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"  # None: an import of it fails
        f"import seatkeeper.{module}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("module", ["builder.compile", "artifacts.store", "agent.build"])
def test_an_agent_never_loads_a_compiler_into_itself(module: str) -> None:
    program = (
        "import sys\n"
        f"import seatkeeper.{module}\n"
        f"print(sorted(set({ABSENT!r}) & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
