"""What a program and its helper say to each other: frames of a JSON header and a body of bytes.

Both sides run the same code, and the socket is theirs alone. Lengths are checked all the same:
a reader that is wrong about them reads nonsense from then on.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from grpc import aio

from seatkeeper.core import errors
from seatkeeper.core.errors import SeatError

HEADER_BYTES_MAX = 1 << 20
BODY_BYTES_MAX = (16 << 20) + (1 << 10)
"""The largest message of a call, and a little."""
PARTS_MAX = 8
"""Messages of one stream that may be on their way in one direction, so that neither side has to keep
more for a peer that does not read."""
_LENGTHS = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    header: dict[str, Any]
    body: bytes = b""

    @property
    def op(self) -> str:
        """What it says."""
        return str(self.header["op"])

    @property
    def id(self) -> int:
        """Which request it is about."""
        return int(self.header["id"])

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 # JSON
        return self.header[key]

    def encode(self) -> bytes:
        """Return the frame as bytes."""
        header = json.dumps(self.header, separators=(",", ":")).encode()
        if len(header) > HEADER_BYTES_MAX or len(self.body) > BODY_BYTES_MAX:
            raise errors.InvalidArgument("the message is too large for one call")
        return _LENGTHS.pack(len(header), len(self.body)) + header + self.body


def frame(op: str, body: bytes = b"", /, **fields: object) -> Frame:
    """Return a frame that says ``op``."""
    return Frame({"op": op, **fields}, body)


class BadFrame(Exception):
    """The other side sent what no version of ours sends."""


class Decoder:
    """Makes frames of bytes as they come."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes; yield every frame that is whole. Raises `BadFrame`."""
        self._bytes += data
        while len(self._bytes) >= _LENGTHS.size:
            header_size, body_size = _LENGTHS.unpack_from(self._bytes)
            if header_size > HEADER_BYTES_MAX or body_size > BODY_BYTES_MAX:
                raise BadFrame(f"a frame of {header_size} + {body_size} bytes")
            end = _LENGTHS.size + header_size + body_size
            if len(self._bytes) < end:
                return
            header = bytes(self._bytes[_LENGTHS.size : _LENGTHS.size + header_size])
            body = bytes(self._bytes[_LENGTHS.size + header_size : end])
            del self._bytes[:end]
            try:
                yield Frame(json.loads(header), body)
            except ValueError as error:
                raise BadFrame(str(error)) from error


_TEXTS = ("field", "grant_id", "failure", "why")
"""What errors may say beside their message."""


def error_fields(error: SeatError) -> dict[str, object]:
    """Return an error of ours as fields of a frame."""
    fields: dict[str, object] = {"kind": type(error).__name__, "message": str(error)}
    after = getattr(error, "retry_after", None)
    if isinstance(after, timedelta):
        fields["retry_after"] = after.total_seconds()
    for name in _TEXTS:
        if getattr(error, name, ""):
            fields[name] = getattr(error, name)
    return fields


def error_from(fields: dict[str, Any]) -> SeatError:
    """Return the error that `error_fields` made fields of."""
    kind = getattr(errors, str(fields["kind"]), SeatError)
    if not (isinstance(kind, type) and issubclass(kind, SeatError)):
        kind = SeatError
    more: dict[str, Any] = {name: fields[name] for name in _TEXTS if name in fields}
    if "retry_after" in fields:
        more["retry_after"] = timedelta(seconds=fields["retry_after"])
    error: SeatError = kind(str(fields["message"]), **more)
    return error


def rpc_fields(error: aio.AioRpcError) -> dict[str, object]:
    """Return a call's error as fields of a frame."""
    return {
        "code": error.code().name,
        "details": error.details() or "",
        "initial": _metadata_fields(error.initial_metadata()),
        "trailing": _metadata_fields(error.trailing_metadata()),
    }


def rpc_error(fields: dict[str, Any]) -> aio.AioRpcError:
    """Return the error that `rpc_fields` made fields of."""
    return aio.AioRpcError(
        grpc.StatusCode[str(fields["code"])],
        _metadata(fields.get("initial", [])),
        _metadata(fields.get("trailing", [])),
        str(fields["details"]),
    )


def _metadata_fields(metadata: aio.Metadata | None) -> list[tuple[str, str, bool]]:
    return [
        (key, value.hex() if isinstance(value, bytes) else str(value), isinstance(value, bytes))
        for key, value in metadata or ()
    ]


def _metadata(fields: list[tuple[str, str, bool]]) -> aio.Metadata:
    return aio.Metadata(
        *((key, bytes.fromhex(value) if binary else value) for key, value, binary in fields)
    )
