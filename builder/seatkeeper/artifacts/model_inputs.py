"""The inputs of an ONNX file, read from outside, without a library for it."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.artifacts.model_shape import fields_of, numbers_of

_GRAPH = 7
_INITIALIZER, _INPUT = 5, 11
_TENSOR_NAME = 8
_NAME, _TYPE = 1, 2
_TENSOR_TYPE = 1
_ELEMENT, _SHAPE = 1, 2
_DIM = 1


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """An input of the graph."""

    name: str
    element: int
    """The type of its elements, as ``TensorProto.DataType`` numbers it; 0: it is no tensor."""
    rank: int | None
    """How many dimensions it has; None: the model does not say."""


def inputs_of(source: Path | bytes) -> tuple[ModelInput, ...]:
    """Return the inputs that a model asks for; none when it is no ONNX model. Raises ``OSError``."""
    if isinstance(source, bytes):
        return _inputs(source, len(source))
    with source.open("rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _inputs(mapped, size)


def _inputs(data: bytes | mmap.mmap, size: int) -> tuple[ModelInput, ...]:
    found: list[ModelInput] = []
    constants: set[str] = set()
    try:
        for field, begin, end in fields_of(data, 0, size):
            if field != _GRAPH:
                continue
            for inner, from_, to in fields_of(data, begin, end):
                if inner == _INITIALIZER:
                    constants.add(_text(data, from_, to, _TENSOR_NAME))
                elif inner == _INPUT:
                    found.append(_input(data, from_, to))
    except ValueError:
        return ()
    return tuple(each for each in found if each.name not in constants)


def _input(data: bytes | mmap.mmap, begin: int, end: int) -> ModelInput:
    name = _text(data, begin, end, _NAME)
    element, rank = 0, None
    for begin_, end_ in _inside(data, begin, end, _TYPE):
        for tensor_begin, tensor_end in _inside(data, begin_, end_, _TENSOR_TYPE):
            for number, value in numbers_of(data, tensor_begin, tensor_end):
                element = value if number == _ELEMENT else element
            for shape_begin, shape_end in _inside(data, tensor_begin, tensor_end, _SHAPE):
                rank = len(_inside(data, shape_begin, shape_end, _DIM))
    return ModelInput(name=name, element=element, rank=rank)


def _inside(data: bytes | mmap.mmap, begin: int, end: int, field: int) -> list[tuple[int, int]]:
    """Return where the messages of one field are."""
    return [(from_, to) for number, from_, to in fields_of(data, begin, end) if number == field]


def _text(data: bytes | mmap.mmap, begin: int, end: int, field: int) -> str:
    places = _inside(data, begin, end, field)
    return data[slice(*places[-1])].decode("utf-8", errors="replace") if places else ""
