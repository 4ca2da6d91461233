"""Tells a broken-off ONNX file from one that never was ONNX.

Protobuf's parser says the same of both. The outermost message has few fields, so walking them
tells the two apart: the walk either leaves the known fields, or runs over the end of the bytes.
"""

from __future__ import annotations

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


def looks_truncated(model: bytes) -> bool:
    """Return whether the bytes are known fields of a model until they run out in one."""
    position = 0
    while position < len(model):
        try:
            tag, position = _varint(model, position)
            if _MODEL_FIELDS.get(tag >> 3) != tag & 7:
                return False
            value, position = _varint(model, position)
        except IndexError:
            return True
        except OverflowError:
            return False
        if tag & 7 == _LENGTH_DELIMITED:
            position += value
    return position > len(model)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise OverflowError("a varint is longer than ten bytes")
