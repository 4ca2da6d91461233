"""Distinguishes a truncated ONNX file from one that never was ONNX.

Protobuf's parser says the same of both. The outermost message has few fields, so walking them
distinguishes the two: the walk leaves the known fields, runs over the end, or ends with the bytes.
"""

from __future__ import annotations

from enum import Enum, auto

_VARINT = 0
_LENGTH_DELIMITED = 2

_MODEL_FIELDS = {
    1: _VARINT,  # ir_version
    2: _LENGTH_DELIMITED,  # producer_name
    3: _LENGTH_DELIMITED,  # producer_version
    4: _LENGTH_DELIMITED,  # domain
    5: _VARINT,  # model_version
    6: _LENGTH_DELIMITED,  # doc_string
    7: _LENGTH_DELIMITED,  # graph
    8: _LENGTH_DELIMITED,  # opset_import
    14: _LENGTH_DELIMITED,  # metadata_props
    20: _LENGTH_DELIMITED,  # training_info
    25: _LENGTH_DELIMITED,  # functions
    26: _LENGTH_DELIMITED,  # configuration
}
_VARINT_BYTES_MAX = 10


class Shape(Enum):
    """What bytes look like from outside."""

    FOREIGN = auto()
    """Not the fields of a model."""
    TRUNCATED = auto()
    """Fields of a model, and the bytes run out in one."""
    WHOLE = auto()
    """Fields of a model up to the last byte; what is in them may still be damaged."""


def shape_of(model: bytes) -> Shape:
    """Return what the bytes look like, without looking into any field."""
    position = 0
    while position < len(model):
        try:
            tag, position = _varint(model, position)
            if _MODEL_FIELDS.get(tag >> 3) != tag & 7:
                return Shape.FOREIGN
            value, position = _varint(model, position)
        except IndexError:
            return Shape.TRUNCATED
        except OverflowError:
            return Shape.FOREIGN
        if tag & 7 == _LENGTH_DELIMITED:
            position += value
    return Shape.WHOLE if position == len(model) else Shape.TRUNCATED


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise OverflowError("a varint is longer than ten bytes")
