"""Measures an ONNX file from outside, without a library for it: how many nodes, how much in weights.

Only the outermost messages are walked, and what is in them is skipped by its length, so gigabytes take
milliseconds. Client and agent both measure with this, so that what one asks is what the other recorded.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_GRAPH = 7
_NODE = 1
_INITIALIZER = 5
_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5
_VARINT_BYTES_MAX = 10


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The size of a model in the ways that its build time follows from."""

    nodes: int
    """Nodes of the graph, those in branches and loops not counted."""
    weight_bytes: int
    """Bytes of the constants that the graph stores."""
    model_bytes: int
    """Bytes of the file."""


def shape_of_file(path: Path, external: Iterable[int] = ()) -> ModelShape | None:
    """Return the shape of a model; None when it is no ONNX model. Raises ``OSError``.

    ``external``: the sizes of the files beside it that hold weights.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            shape = shape_of(mapped, size)
    outside = sum(external)
    return shape and replace(
        shape,
        weight_bytes=shape.weight_bytes + outside,
        model_bytes=shape.model_bytes + outside,
    )


def shape_of(data: bytes | mmap.mmap, size: int) -> ModelShape | None:
    """Return the shape of a model of ``size`` bytes; None when they are none."""
    nodes = weight_bytes = 0
    try:
        for field, begin, end in fields_of(data, 0, size):
            if field == _GRAPH:
                for inner, from_, to in fields_of(data, begin, end):
                    nodes += inner == _NODE
                    weight_bytes += to - from_ if inner == _INITIALIZER else 0
    except ValueError:
        return None
    if nodes == 0:
        return None
    return ModelShape(nodes=nodes, weight_bytes=weight_bytes, model_bytes=size)


def fields_of(data: bytes | mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field with a length, and where its content is.

    Raises ``ValueError`` for what is no message of Protocol Buffers.
    """
    return (
        (number, from_, to)
        for number, kind, from_, to in _walked(data, begin, end)
        if kind == _BYTES
    )


def numbers_of(data: bytes | mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the number and the value of each field that is a varint. Raises ``ValueError``."""
    for number, kind, from_, to in _walked(data, begin, end):
        if kind == _VARINT:
            yield number, _varint(data, from_, to)[0]


def _walked(
    data: bytes | mmap.mmap, begin: int, end: int
) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, kind and place of each field."""
    at = begin
    while at < end:
        tag, at = _varint(data, at, end)
        kind, from_ = tag & 7, at
        if kind == _BYTES:
            length, from_ = _varint(data, at, end)
            at = from_ + length
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in {_FIXED64, _FIXED32}:
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("no such kind of field")
        if at > end:
            raise ValueError("a field runs over the end")
        yield tag >> 3, kind, from_, at


def _varint(data: bytes | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        if at + index >= end:
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a number runs over the end")
