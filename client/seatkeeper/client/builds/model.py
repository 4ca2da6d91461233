"""A model that is to be built, its samples, and an engine that is being written.

Everything here blocks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from seatkeeper.client.builds.output import Output
from seatkeeper.core.errors import EngineDamaged, InvalidArgument
from seatkeeper.core.text import name_of_file, printable
from seatkeeper.v1 import build_pb2

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Model:
    """A model's bytes, known by their hash."""

    source: Path | bytes
    name: str
    """A base name, for people; what of it is not UTF-8 or cannot be shown is escaped: ``%e9``."""
    sha256: str
    size_bytes: int

    @classmethod
    def read(
        cls, source: str | os.PathLike[str] | bytes, name: str | None, what: str = "model"
    ) -> Model:
        """Read it once. Raises `InvalidArgument` when the file cannot be read."""
        if isinstance(source, bytes):
            digest = hashlib.sha256(source).hexdigest()
            return cls(source, name or "model.onnx", digest, len(source))
        path = Path(source)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise InvalidArgument(
                f"{what} {printable(str(path))}: {error.strerror}", field=what
            ) from error
        # In a manifest, what stands before a backslash is taken for a folder.
        escaped = name_of_file(path).replace("\\x", "%").replace("\\", "%")
        return cls(path, name or escaped, digest, size)

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from there on in pieces."""
        if isinstance(self.source, bytes):
            for start in range(offset, len(self.source), CHUNK_BYTES):
                yield self.source[start : start + CHUNK_BYTES]
            return
        with self.source.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


class EngineWriter:
    """Writes an engine to its place once it is whole and true; leaving early leaves nothing."""

    def __init__(self, to: Output, expected: build_pb2.EngineFile) -> None:
        self._expected = expected
        self._hash = hashlib.sha256()
        self._size = 0
        self._writer = to.writer(expected.size_bytes)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave nothing behind that is not whole."""
        self._writer.__exit__(None, None, None)

    def write(self, chunk: bytes) -> None:
        """Append. Raises `EngineDamaged` as soon as it is longer than it should be."""
        self._size += len(chunk)
        if self._size > self._expected.size_bytes:
            raise EngineDamaged("the engine is longer than its manifest says")
        self._hash.update(chunk)
        self._writer.write(chunk)

    def finish(self) -> None:
        """Put it in its place. Raises `EngineDamaged` when it is not what the manifest says."""
        if self._hash.hexdigest() != self._expected.sha256:
            raise EngineDamaged("the engine's bytes are not what its manifest says")
        self._writer.finish()
