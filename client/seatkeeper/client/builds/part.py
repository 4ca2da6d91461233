"""An engine on its way to a file, which survives a cut: what has arrived stays beside the file.

The part lies in the file's folder, as ``.NAME.HASH.part``, and one program at a time writes to it. What
comes next is asked for from its end on. Only when all of it hashes to what the manifest says does
it take the file's place, at once. Everything here blocks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from seatkeeper.client.builds.output import Output
from seatkeeper.core.errors import EngineDamaged, InUse, InvalidArgument
from seatkeeper.v1 import build_pb2

CHUNK_BYTES = 1 << 20
HASH_CHARS = 16
OPENINGS_MAX = 10
"""How often another program may finish the part just while we open it."""


class Part:
    """What has arrived of an engine."""

    def __init__(self, to: Output, expected: build_pb2.EngineFile) -> None:
        """Open it. Raises `InvalidArgument` for a device or a pipe, `InUse`, and ``OSError``."""
        if to.is_filled:
            raise InvalidArgument(
                f"{to.path}: only a file of its own can be resumed; fetch it with `engines get`",
                field="to",
            )
        self._to = to
        self._expected = expected
        name = f".{to.target.name}.{expected.sha256[:HASH_CHARS]}.part"
        self._path = to.target.parent / name
        self._file = _opened(self._path)
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes that have arrived."""
        self._read_what_is_there()

    def __enter__(self) -> Self:
        """Begin, where the last program was cut off."""
        return self

    def __exit__(self, *error: object) -> None:
        """Keep what has arrived, for the next time."""
        with suppress(OSError):
            self._file.close()

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have arrived, right or wrong."""
        return self.size == self._expected.size_bytes

    def write(self, chunk: bytes) -> None:
        """Append. Raises `EngineDamaged`, and begins anew, when it is longer than it should be."""
        if self.size + len(chunk) > self._expected.size_bytes:
            self.reset()
            raise EngineDamaged("the engine is longer than its manifest says")
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def reset(self) -> None:
        """Forget what has arrived."""
        self._file.seek(0)
        self._file.truncate()
        self._hash, self.size = hashlib.sha256(), 0

    def finish(self) -> None:
        """Put it in its place. Raises `EngineDamaged`, and begins anew, when it is not right."""
        if self._hash.hexdigest() != self._expected.sha256 or not self.is_whole:
            self.reset()
            raise EngineDamaged("the engine's bytes are not what its manifest says")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._to.adopt(self._path, self._file.fileno())

    def _read_what_is_there(self) -> None:
        while chunk := self._file.read(CHUNK_BYTES):
            self.size += len(chunk)
            self._hash.update(chunk)
            if self.size > self._expected.size_bytes:
                self.reset()
                return


def is_there(to: Output, expected: build_pb2.EngineFile) -> bool:
    """Return whether the file is this engine already."""
    with suppress(OSError):
        if to.target.stat().st_size == expected.size_bytes:
            with to.target.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256
    return False


def _opened(path: Path) -> IO[bytes]:
    """Open the part for ourselves alone. Raises `InUse`."""
    for _ in range(OPENINGS_MAX):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.fdopen(os.open(path, flags, 0o666), "r+b")
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it before us may have moved it into its place.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            break
        file.close()
    raise InUse(f"{path}: another program fetches this engine to the same place")
