"""Every name that our backend takes of a vendor's library exists in the versions that we support.

TensorRT's own libraries are on GPU hosts only. Its Python bindings load against libraries that are made
here and do nothing (``stub_library``), so that what they offer can be compared with what our code
names, which is read from its source. ``make bindings`` fetches them: two packages of 1.3 MB.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.bindings import BINDINGS, Bindings
from tests.builder.compilers.stub_library import stub_library
from tests.tree import ROOT

from seatkeeper.builder.backends.tensorrt import load_tensorrt_rtx

SOURCES = (
    "builder/seatkeeper/builder/backends/tensorrt.py",
    "builder/seatkeeper/builder/backends/_tensorrt_listeners.py",
    "builder/seatkeeper/builder/running/tensorrt_runner.py",
    "builder/seatkeeper/builder/timing.py",
    "client/seatkeeper/hold/compiling.py",
)
CLASSES: Mapping[str, str] = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "cuda_engine": "ICudaEngine",
    "execution": "IExecutionContext",
    "network": "INetworkDefinition",
    "optimisation": "IOptimizationProfile",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "registry": "IPluginRegistry",
    "runtime": "Runtime",
    "tensor": "ITensor",
    "timing_cache": "ITimingCache",
}
"""What our variables hold, by their name."""
MODULES = frozenset({"module", "_module", "trt"})
AHEAD_OF_TIME = frozenset(
    {
        "ComputeCapability",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
    }
)
"""What only TensorRT-RTX has; our code asks first."""
FUNCTIONS = {
    "libnvinfer": [
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL"),
        *("createInferRuntime_INTERNAL", "getBuilderPluginRegistry", "getPluginRegistry"),
    ],
    "libnvinfer_plugin": ["initLibNvInferPlugins"],
    "libnvonnxparser": [
        *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL"),
        "getNvOnnxParserVersion",
    ],
}
"""What the bindings are linked against."""
LOOK = """
import ctypes, json, os, sys
sys.path[:0] = {path!r}
sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
for library in {libraries!r}:
    ctypes.CDLL(library, os.RTLD_GLOBAL | os.RTLD_LAZY)
import tensorrt_bindings as trt
from seatkeeper.builder.backends.tensorrt import TensorRtBackend

def has(name):
    found = trt
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True

backend = TensorRtBackend("tensorrt", trt)
print(json.dumps({{
    "missing": [name for name in {names!r} if not has(name)],
    "version": backend.version,
    "targets": backend.targets,
    "flags": backend._network_flags(),
    "features": dict(backend.features),
}}))
"""


def names_in(source: str) -> Iterator[str]:
    """Yield what a source takes of a vendor's module, and of the objects that it makes."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        parts = [node.attr]
        value: ast.expr = node.value
        while isinstance(value, ast.Attribute):
            parts.append(value.attr)
            value = value.value
        if not isinstance(value, ast.Name):
            continue
        path = [value.id, *reversed(parts)]
        if path[0] == "self":
            path = path[1:]
        if path[0] in MODULES and len(path) > 1:
            yield ".".join(path[1:3])
        elif path[0] in CLASSES and len(path) > 1:
            yield f"{CLASSES[path[0]]}.{path[1]}"


NAMES = sorted({name for path in SOURCES for name in names_in((ROOT / path).read_text())})


def look(bindings: Bindings, folder: Path) -> dict[str, Any]:
    """Return what one version of the bindings offers, from a process of its own."""
    wheel = bindings.folder()
    major = bindings.version.split(".")[0]
    libraries: list[str] = []
    for name, functions in FUNCTIONS.items():
        path = folder / f"{name}.so.{major}"
        path.write_bytes(stub_library(path.name, functions))
        libraries.append(str(path))
    program = LOOK.format(
        path=[str(wheel), *filter(None, sys.path)], libraries=libraries, names=NAMES
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_what_our_code_names_is_found() -> None:
    """A guard of this test: what it looks for is not empty, and has names of each kind."""
    assert len(NAMES) > 30
    assert {
        "BuilderFlag",
        "IBuilderConfig.set_flag",
        "ITimingCache.serialize",
        "IExecutionContext.execute_async_v3",
        "INetworkDefinition.num_layers",
        "IPluginRegistry.load_library",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse_from_file",
        "ParserError.node_operator",
    } <= {*NAMES}


def test_every_object_of_the_library_is_looked_at() -> None:
    """A function of ours that is given one calls it by a name that this test knows."""
    given = {
        argument.arg
        for path in SOURCES
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef)
        for argument in node.args.args
        if argument.annotation is not None and ast.unparse(argument.annotation) == "Untyped"
    }
    assert given <= {*CLASSES, *MODULES, "severity"}


@pytest.mark.parametrize("bindings", BINDINGS, ids=lambda each: each.version)
def test_tensorrt_has_what_our_backend_names(bindings: Bindings, tmp_path: Path) -> None:
    found = look(bindings, tmp_path)
    major = int(bindings.version.split(".")[0])
    allowed = {name for name in NAMES if name.partition(".")[0] == "ComputeCapability"}
    if major >= 11:  # where our code does not ask for it
        allowed |= {"NetworkDefinitionCreationFlag.STRONGLY_TYPED"}
    assert {*found["missing"]} <= AHEAD_OF_TIME | allowed
    assert {*found["missing"]} >= {"IBuilderConfig.set_compute_capability"}
    assert found["version"] == bindings.version
    assert (found["flags"] == 0) is (major >= 11)
    assert found["targets"] == [], "there is no GPU here"
    assert set(found["features"].values()) == {"tensorrt needs a GPU"}


def test_tensorrt_rtx_has_what_our_backend_names() -> None:
    module = load_tensorrt_rtx()._module

    def has(name: str) -> bool:
        found = module
        for part in name.split("."):
            found = getattr(found, part, None)
        return found is not None

    assert [name for name in NAMES if not has(name)] in (
        [],
        ["NetworkDefinitionCreationFlag.STRONGLY_TYPED"],
    )
