"""Looks at one constant of a model."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from seatkeeper.artifacts.errors import ModelInvalid, ModelTooComplex
from seatkeeper.builder.external import Place

CONSTANT_DIMS_MAX = 64

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.BOOL: 8,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
}
"""Bits of an element; of the small floats and integers below a byte we only know the file's."""

_NAN_ABOVE: dict[int, tuple[np.dtype[np.unsignedinteger[Any]], int]] = {
    TensorProto.FLOAT: (np.dtype("<u4"), 0x7F80_0000),
    TensorProto.DOUBLE: (np.dtype("<u8"), 0x7FF0_0000_0000_0000),
    TensorProto.FLOAT16: (np.dtype("<u2"), 0x7C00),
    TensorProto.BFLOAT16: (np.dtype("<u2"), 0x7F80),
}
"""The unsigned integer as wide as a float, and infinity's bits in it; NaNs are above."""

_NAN_CHUNK = 1 << 20


def item_bits(data_type: int) -> int:
    """Return the bits of one element, 32 for a type that we do not know."""
    return _BITS.get(data_type, 32)


def check_tensor(
    where: str, tensor: TensorProto, bytes_max: int, place: Place | None = None
) -> int:
    """Return the bytes of the constant, if it has the data that its sizes promise.

    ``place`` says where they are, if not in the tensor. NaN is refused: it makes every answer of the
    engine NaN. Infinity is not: masks use it.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise ModelInvalid(f"{where} has a negative size")
    count = math.prod(tensor.dims)
    size_bytes = count * item_bits(tensor.data_type) // 8
    if size_bytes > bytes_max:
        raise ModelTooComplex(f"{where} has {count} elements, more than {bytes_max} bytes")
    if place is not None:
        return _check_external(where, tensor, size_bytes, place)
    raw = tensor.raw_data  # Every access copies, and this may be hundreds of megabytes.
    if tensor.data_type not in _BITS:
        return len(raw) or tensor.ByteSize()
    if tensor.HasField("raw_data"):
        if len(raw) != size_bytes:
            raise ModelInvalid(f"{where} has {len(raw)} bytes instead of {size_bytes}")
    elif _typed_count(tensor) != count:
        raise ModelInvalid(f"{where} has {_typed_count(tensor)} elements instead of {count}")
    if tensor.data_type in _NAN_ABOVE and _has_nan(tensor, raw):
        raise ModelInvalid(f"{where} contains NaN")
    return size_bytes


def _check_external(where: str, tensor: TensorProto, size_bytes: int, place: Place) -> int:
    if tensor.data_type not in _BITS:
        return place.length
    if place.length != size_bytes:
        raise ModelInvalid(f"{where} has {place.length} bytes instead of {size_bytes}")
    if tensor.data_type in _NAN_ABOVE:
        bits_type, infinity = _NAN_ABOVE[tensor.data_type]
        if _any_above(place.values(bits_type), bits_type, infinity):
            raise ModelInvalid(f"{where} contains NaN")
    return size_bytes


def constant_dims(tensor: TensorProto, place: Place | None = None) -> tuple[int, ...] | None:
    """Return the sizes that the constant can be read as, or None if it cannot be a shape."""
    if tensor.data_type != TensorProto.INT64 or len(tensor.dims) != 1:
        return None
    if tensor.dims[0] > CONSTANT_DIMS_MAX:
        return None
    if place is not None:
        return tuple(value for (value,) in struct.iter_unpack("<q", place.read()))
    if tensor.raw_data:
        return tuple(value for (value,) in struct.iter_unpack("<q", tensor.raw_data))
    return tuple(tensor.int64_data)


def _typed_count(tensor: TensorProto) -> int:
    match tensor.data_type:
        case TensorProto.FLOAT:
            return len(tensor.float_data)
        case TensorProto.DOUBLE:
            return len(tensor.double_data)
        case TensorProto.INT64:
            return len(tensor.int64_data)
        case TensorProto.UINT64 | TensorProto.UINT32:
            return len(tensor.uint64_data)
        case TensorProto.COMPLEX64:
            return len(tensor.float_data) // 2
        case TensorProto.COMPLEX128:
            return len(tensor.double_data) // 2
        case _:
            return len(tensor.int32_data)


def _has_nan(tensor: TensorProto, raw: bytes) -> bool:
    """Return whether an element, its sign aside, is above the bits of infinity."""
    bits_type, infinity = _NAN_ABOVE[tensor.data_type]
    if raw:
        values = np.frombuffer(raw, bits_type)
    elif tensor.data_type == TensorProto.FLOAT:
        values = np.asarray(tensor.float_data, np.float32).view(bits_type)
    elif tensor.data_type == TensorProto.DOUBLE:
        values = np.asarray(tensor.double_data, np.float64).view(bits_type)
    else:
        values = np.asarray(tensor.int32_data, np.int64).astype(bits_type)
    return _any_above(values, bits_type, infinity)


def _any_above(
    values: npt.NDArray[Any], bits_type: np.dtype[np.unsignedinteger[Any]], infinity: int
) -> bool:
    without_sign = np.iinfo(bits_type).max >> 1
    return any(
        bool(((values[start : start + _NAN_CHUNK] & without_sign) > infinity).any())
        for start in range(0, len(values), _NAN_CHUNK)
    )
