"""What converts is in an engine's key, so a change of what comes out of it must be seen in its version.

``python -m tests.builder.compilers.precision.test_conversion_version`` prints what is to be recorded.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto
from tests.builder.compilers.precision.test_branches import shared
from tests.builder.models import conv_net, model, node, value
from tests.tree import ROOT

from seatkeeper.artifacts.plan import BuildPlan, parse_profile
from seatkeeper.artifacts.precision import (
    NO_SAMPLES,
    QUANTISED,
    KeepRule,
    Precision,
    PrecisionPlan,
    Samples,
)
from seatkeeper.builder.conversion.conversion import Conversion, SampleFiles
from seatkeeper.builder.conversion.scopes import graphs_in
from seatkeeper.builder.conversion.version import VERSION, conversion
from seatkeeper.builder.model import check_model

RECORDED_WITH = "1 numpy-2.4.6 onnx-1.23.2 onnxruntime-1.32.0 onnxslim-0.1.98 pillow-13.0.0"
RECORDED = {
    "convolutions fp16": "1c3d5514a967c0a6",
    "convolutions bf16": "164492319ce5ff60",
    "convolutions int8": "a5781e6d8b9275ce",
    "convolutions int8+fp16": "6def18407dddc4f3",
    "convolutions fp8": "164e745d127567e5",
    "branches fp16": "f435237bc0035cad",
    "branches bf16": "4b03a2706ad5b8ba",
    "branches int8": "add4b6d1b2bbca5c",
    "branches int8+fp16": "b2b13f21de783d50",
    "branches fp8": "3c7092e3c42bf8ab",
    "sizes fp16": "66d43cb136c62d99",
    "sizes bf16": "003cff739c871a87",
}


def widened() -> ModelProto:
    """What the converter treats in ways of its own: sizes, limits, and what it leaves in 32 bits."""
    return model(
        node("Resize", ["x", "", "scales"], "big", name="/resize"),
        node("Max", ["big", "zero"], "some", name="/max"),
        node("Mul", ["some", "zero"], "y", name="/mul"),
        inputs=[value("x", [1, 1, 4, 4])],
        outputs=[value("y", [1, 1, 8, 8])],
        constants=[
            TensorProto(name="scales", dims=[4], data_type=1, float_data=[1, 1, 2, 2]),
            TensorProto(name="zero", dims=[1], data_type=1, float_data=[0.1]),
        ],
    )


MODELS: dict[str, tuple[Callable[[], ModelProto], dict[str, tuple[int, ...]]]] = {
    "convolutions": (conv_net, {"x": (1, 3, 8, 8)}),
    "branches": (shared, {"x": (2, 4), "flag": ()}),
    "sizes": (widened, {"x": (1, 1, 4, 4)}),
}
PRECISIONS = (
    *(Precision.FP16, Precision.BF16, Precision.INT8, Precision.INT8_FP16, Precision.FP8),
)


def converted(name: str, precision: Precision, folder: Path) -> ModelProto:
    make, sizes = MODELS[name]
    net, random = make(), np.random.default_rng(5)
    arrays: dict[str, Any] = {
        key: random.normal(0, 1, (4, *dims)).astype(np.float32)
        if dims
        else np.array([True, False, True, False])
        for key, dims in sizes.items()
    }
    np.savez(folder / "data.npz", **arrays)
    is_quantised = precision in QUANTISED
    sent = Samples(sha256="cd" * 32) if is_quantised else NO_SAMPLES
    keep = (KeepRule(pattern="*", precision="int8"),) if is_quantised else ()
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=("SM89",),
        profiles=(parse_profile("x=1x3x8x8"),) if name == "convolutions" else (),
        precision=PrecisionPlan(
            precision=precision,
            calibration=sent,
            samples=sent,
            tolerance=1.0,
            keep=keep,
            accept_unchecked=precision is Precision.BF16,
        ),
    )
    summary = check_model(net.SerializeToString(), plan)
    data = folder / "data.npz" if is_quantised else None
    found = Conversion.of(
        net, summary, plan, SampleFiles(data, data), folder, lambda step: None
    )
    return next(found.results()).model


def described(graph: GraphProto) -> Iterator[str]:
    """Yield all that a graph is but the scales of activations, which a processor may round its way."""
    for node_ in graph.node:
        attributes = [
            each.SerializeToString(deterministic=True).hex()
            for each in node_.attribute
            if not each.HasField("g")
        ]
        yield f"{node_.op_type} {node_.name} {[*node_.input]} {[*node_.output]} {attributes}"
    for tensor in graph.initializer:
        is_scale = tensor.name.endswith("_scale") and not tensor.dims
        content = b"" if is_scale else tensor.SerializeToString(deterministic=True)
        yield f"{tensor.name} {tensor.data_type} {[*tensor.dims]} {content.hex()}"
    yield str([each.name for each in (*graph.input, *graph.output)])


def digest(net: ModelProto) -> str:
    text = "\n".join(line for graph in graphs_in(net.graph) for line in described(graph))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def made(folder: Path) -> dict[str, str]:
    return {
        f"{name} {precision}": digest(converted(name, precision, folder))
        for name in MODELS
        for precision in PRECISIONS
        if precision not in QUANTISED or name != "sizes"
    }


def test_the_record_is_of_the_libraries_that_this_project_pins() -> None:
    pins = dict(
        re.findall(r"^([a-z0-9]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    version, *libraries = RECORDED_WITH.split()
    assert version == str(VERSION), "print the record anew, as the module says"
    for library in libraries:
        name, _, pinned = library.partition("-")
        assert pins[name] == pinned, "raise VERSION no more than needed: print the record anew"


def test_what_is_converted_otherwise_has_another_version(tmp_path: Path) -> None:
    if conversion() != RECORDED_WITH:
        pytest.skip(f"recorded with {RECORDED_WITH}, and here is {conversion()}")
    assert made(tmp_path) == RECORDED, "raise conversion.version.VERSION, and print the record"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(conversion())
        for key, content in made(Path(place)).items():
            print(f"    {key!r}: {content!r},")
