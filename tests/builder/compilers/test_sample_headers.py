"""Samples that do not fit their model are found by their headers, and none that an agent would take."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.builder.models import constant, light_model, model, node, value

from seatkeeper.artifacts.errors import PlanError, SamplesDamaged, SamplesInvalid
from seatkeeper.artifacts.model_inputs import ModelInput, inputs_of
from seatkeeper.artifacts.summary import ModelValue
from seatkeeper.builder.conversion.samples import read_samples
from seatkeeper.client.builds.model import Model
from seatkeeper.client.builds.sample_headers import check_headers

FLOATS = np.ones((5, 2, 3), np.float32)
NUMBERS = np.ones((5, 4), np.int64)
NET = model(
    node("Relu", ["x"]),
    node("Relu", ["w"], "z"),
    inputs=[
        value("x", ["n", 3]),
        value("ids", [4], TensorProto.INT64),
        value("w", [2]),
    ],
    constants=[constant("w", [1.0, 2.0])],
).SerializeToString()


def archive_of(arrays: Mapping[str, Any]) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def check(net: bytes, content: bytes) -> None:
    check_headers(Model.read(net, "m.onnx"), Model.read(content, "s.npz", "samples"))


def test_the_inputs_of_a_model_are_those_that_are_no_constants() -> None:
    assert inputs_of(NET) == (
        ModelInput(name="x", element=TensorProto.FLOAT, rank=2),
        ModelInput(name="ids", element=TensorProto.INT64, rank=1),
    )


@pytest.mark.parametrize("name", ["resnet50", "squeezenet", "bvlc_alexnet"])
def test_real_models_have_the_inputs_that_onnx_says(name: str, tmp_path: Path) -> None:
    net = light_model(name)
    (tmp_path / "m.onnx").write_bytes(net)
    graph = onnx.ModelProto.FromString(net).graph
    constants = {each.name for each in graph.initializer}
    expected = [
        (each.name, each.type.tensor_type.elem_type, len(each.type.tensor_type.shape.dim))
        for each in graph.input
        if each.name not in constants
    ]
    assert [(i.name, i.element, i.rank) for i in inputs_of(tmp_path / "m.onnx")] == expected


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff" * 100, NET[:-5]])
def test_of_what_is_no_model_nothing_is_said(junk: bytes) -> None:
    check(junk, archive_of({"z": FLOATS}))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": FLOATS}, "no array for input 'ids'; the file has 'x'"),
        ({"x": FLOATS, "ids": NUMBERS, "z": FLOATS}, "array 'z' is of no input"),
        (
            {"x": FLOATS.astype(np.float64), "ids": NUMBERS},
            "type float32, and its array float64",
        ),
        ({"x": FLOATS.astype(">f4"), "ids": NUMBERS}, "type float32, and its array '>f4'"),
        ({"x": FLOATS, "ids": NUMBERS.astype(np.int32)}, "type int64, and its array int32"),
        ({"x": np.array([{}] * 5, object), "ids": NUMBERS}, "its array '|O'"),
        (
            {"x": FLOATS[None], "ids": NUMBERS},
            "2 dimensions, and its array 4; it should have 3",
        ),
        ({"x/0": FLOATS, "ids/0": NUMBERS[0]}, "2 dimensions, and its array 3"),
        ({}, "no array for input 'ids'; the file has none"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    arrays: dict[str, npt.NDArray[np.generic]], said: str
) -> None:
    with pytest.raises(SamplesInvalid) as caught:
        check(NET, archive_of(arrays))
    assert said in caught.value.message


def header(text: bytes, version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes((version, 0)) + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"text",
        header(b"{}", version=9),
        header(b"{"),
        header(b"[]"),
        header(b"{'descr': '<f4'}"),
        header(b"{'descr': '<f4', 'shape': 5}"),
        header(b"{'descr': '<f4', 'shape': ('a',)}"),
        header(b"(" * 5_000),
        header(b"__import__('os')"),
    ],
)
def test_what_is_no_array_is_refused(member: bytes) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("x.npy", member)
    with pytest.raises(SamplesDamaged):
        check(NET, packed.getvalue())
    with pytest.raises(SamplesDamaged, match="no readable"):
        check(NET, b"no archive")


dims = st.lists(st.integers(1, 3), max_size=4)
dtypes = st.sampled_from(["float32", "float64", "int64", "bool", "uint8"])


@settings(deadline=None, max_examples=60)
@example(
    shapes={"x": ([1], "float32"), "y": ([1], "float64")}, ranks={"x": ([1], "float64")}
)  # numpy would make one type of two
@given(
    shapes=st.dictionaries(
        st.sampled_from(["x", "y", "x/0", "x/1", "0", "y/0"]),
        st.tuples(dims, dtypes),
        max_size=4,
    ),
    ranks=st.dictionaries(st.sampled_from(["x", "y"]), st.tuples(dims, dtypes), min_size=1),
)
def test_what_an_agent_takes_is_never_refused(
    shapes: dict[str, tuple[list[int], str]],
    ranks: dict[str, tuple[list[int], str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = archive_of({name: np.ones(size, kind) for name, (size, kind) in shapes.items()})
    path = tmp_path_factory.mktemp("samples") / "s.npz"
    path.write_bytes(content)
    kinds = {
        n: helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for n, (_, kind) in ranks.items()
    }
    values = [
        ModelValue(name=name, dims=tuple(size), dtype=TensorProto.DataType.Name(kinds[name]))
        for name, (size, _) in ranks.items()
    ]
    net = model(
        node("Identity", [values[0].name]),
        inputs=[value(name, size, kinds[name]) for name, (size, _) in ranks.items()],
    )
    try:
        read_samples(path, values)
    except PlanError:
        return
    check(net.SerializeToString(), content)
