"""The size of a model is measured without a library, and bytes that are no model have none."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.artifacts.model_shape import ModelShape, shape_of, shape_of_file


def field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


GRAPH = field(1, b"node") * 3 + field(2, b"name") + field(5, bytes(300)) + field(5, bytes(7))
MODEL = b"\x08\x0a" + field(7, GRAPH) + field(8, b"")


def test_nodes_and_weights_are_counted(tmp_path: Path) -> None:
    expected = ModelShape(nodes=3, weight_bytes=307, model_bytes=len(MODEL))
    assert shape_of(MODEL, len(MODEL)) == expected
    (tmp_path / "model.onnx").write_bytes(MODEL)
    assert shape_of_file(tmp_path / "model.onnx") == expected


def test_what_is_no_model_has_no_shape(tmp_path: Path) -> None:
    for content in (b"", b"hello world", MODEL[:-400], b"\xff" * 50, field(7, b"")):
        (tmp_path / "file").write_bytes(content)
        assert shape_of_file(tmp_path / "file") is None


@given(st.binary(max_size=300))
def test_any_bytes_have_a_shape_or_none(data: bytes) -> None:
    found = shape_of(data, len(data))
    assert found is None or found.nodes > 0
