"""What a model's file says of weights that are kept outside it, read without ONNX.

The client needs no compiler and no ONNX, and a model may be larger than memory. So its file is walked
as what it is: messages of fields, in the wire format of Protocol Buffers, of which all are skipped
but the few that lead to a tensor's ``external_data``. What is not well-formed ends the walk; the
agent says what is wrong with it. Everything here blocks.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.artifacts.bundle import FILES_MAX, check_location
from seatkeeper.artifacts.errors import ModelExternalData

_VARINT_BYTES_MAX = 10
_DIGITS_MAX = 19
_DEPTH_MAX = 200
"""Protocol Buffers itself ends at 100."""

_TENSOR = "tensor"
_INTO: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": dict.fromkeys((5, 10), _TENSOR)
    | dict.fromkeys((6, 11), "graph")
    | dict.fromkeys((22, 23), "sparse"),
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""The fields of each message of ONNX that may hold a tensor, and what they are."""
_EXTERNAL_DATA = 13
_KEY, _VALUE = 1, 2


@dataclass(frozen=True)
class _Span:
    """A message within the file."""

    kind: str
    start: int
    end: int
    depth: int


def needed_bytes(model: Path | bytes) -> dict[str, int]:
    """Return the files that a model names, and how many bytes each must have at least.

    Raises ``ModelExternalData`` for a path that may not be, and for too many, and ``OSError``.
    """
    needed: dict[str, int] = {}
    with _mapped(model) as data:
        # Most models name none. The search takes a moment where the walk takes seconds.
        if data.find(b"location") < 0:
            return needed
        for said in _external_data(data):
            path = check_location(said.get("location", ""))
            end = _number(path, "offset", said) + _number(path, "length", said)
            needed[path] = max(needed.get(path, 0), end)
            if len(needed) > FILES_MAX:
                raise ModelExternalData(f"the model names more than {FILES_MAX} files")
    return needed


@contextmanager
def _mapped(model: Path | bytes) -> Iterator[bytes | mmap.mmap]:
    if isinstance(model, bytes):
        yield model
        return
    with model.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (ValueError, OSError):
            # Nothing can be mapped of an empty file, nor of what has no size, such as a pipe.
            yield b""
            return
        with data:
            yield data


def _external_data(data: bytes | mmap.mmap) -> Iterator[dict[str, str]]:
    """Yield what each tensor outside says of its place."""
    spans = [_Span("model", 0, len(data), 0)]
    while spans:
        span = spans.pop()
        if span.depth > _DEPTH_MAX:
            continue
        said: dict[str, str] = {}
        for number, start, end in _fields(data, span.start, span.end):
            if span.kind == _TENSOR:
                if number == _EXTERNAL_DATA:
                    said |= _entry(data, start, end)
            elif (kind := _INTO[span.kind].get(number)) is not None:
                spans.append(_Span(kind, start, end, span.depth + 1))
        if said:
            yield said


def _fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, begin and end of each field that has bytes; end where they make no sense."""
    position = start
    with suppress(IndexError, OverflowError):
        while position < end:
            tag, position = _varint(data, position)
            match tag & 7:
                case 0:
                    _, position = _varint(data, position)
                case 1:
                    position += 8
                case 2:
                    size, position = _varint(data, position)
                    if position + size > end:
                        return
                    yield tag >> 3, position, position + size
                    position += size
                case 5:
                    position += 4
                case _:
                    return


def _entry(data: bytes | mmap.mmap, start: int, end: int) -> dict[str, str]:
    texts = {number: data[first:last] for number, first, last in _fields(data, start, end)}
    key, value = (texts.get(part, b"").decode(errors="replace") for part in (_KEY, _VALUE))
    return {key: value}


def _varint(data: bytes | mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise OverflowError("a varint is longer than ten bytes")


def _number(path: str, key: str, said: Mapping[str, str]) -> int:
    text = said.get(key, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise ModelExternalData(f"a tensor in {path!r} has the {key} {text[:100]!r}")
    return int(text)
