"""A model with the files that it keeps its weights in. Everything here blocks.

A model may come from anywhere, and names the files that are sent with it. So only files in its folder
and below are read, and no symbolic link is followed to get there: what a stranger's archive links to
is not theirs.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.artifacts.bundle import ExternalFile, check_files
from seatkeeper.artifacts.errors import ModelExternalData
from seatkeeper.client.builds.external_data import needed_bytes
from seatkeeper.client.builds.model import CHUNK_BYTES, Model
from seatkeeper.core.errors import ModelRejected
from seatkeeper.core.text import printable

_NOT_FOLLOWED = frozenset({errno.ELOOP, errno.ENOTDIR})


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, known by its hash."""

    folder: Path
    """The model's."""
    file: ExternalFile

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return self.file.sha256

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return self.file.size_bytes

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder / self.file.path

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from there on in pieces. Raises ``OSError``."""
        with open_beneath(self.folder, self.file.path) as file:
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def weights_of(model: Model) -> tuple[WeightsFile, ...]:
    """Return the files that a model keeps weights in, each read once, in the order of their paths.

    Raises `ModelRejected` when one is missing, too short, or not a file in the model's folder.
    """
    try:
        needed = needed_bytes(model.source)
        if not needed:
            return ()
        if isinstance(model.source, bytes):
            raise ModelExternalData(
                f"the model keeps weights in {next(iter(needed))!r}, and only its own bytes were given"
            )
        folder = model.source.parent
        files = tuple(
            WeightsFile(folder, _read(folder, path, needed[path])) for path in sorted(needed)
        )
        check_files([each.file for each in files])
    except ModelExternalData as error:
        raise ModelRejected(f"{model.name}: {error.explain()}") from error
    return files


def open_beneath(folder: Path, path: str) -> io.BufferedReader:
    """Open a file below a folder for reading, following no symbolic link from there on.

    Raises ``OSError``: with ``ELOOP`` or ``ENOTDIR`` for a link on the way, with ``EINVAL`` for what is
    no file.
    """
    *folders, name = path.split("/")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = os.open(part, flags | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        # A named pipe would keep us waiting for a writer.
        descriptor = os.open(name, flags | os.O_NONBLOCK, dir_fd=at)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a file")
        return os.fdopen(descriptor, "rb")
    finally:
        os.close(at)


def _read(folder: Path, path: str, bytes_min: int) -> ExternalFile:
    shown = repr(printable(path))
    try:
        with open_beneath(folder, path) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
    except OSError as error:
        why = error.strerror or "not readable"
        if error.errno in _NOT_FOLLOWED and os.path.lexists(folder / path):
            why = "it is a symbolic link, or lies behind one"
        elif error.errno == errno.ENOENT:
            why = "the model keeps weights there, and there is no such file"
        raise ModelExternalData(f"{shown}: {why}") from error
    if size_bytes < bytes_min:
        raise ModelExternalData(
            f"{shown} has {size_bytes} bytes, and the model needs {bytes_min} of it"
        )
    return ExternalFile(path=path, sha256=sha256, size_bytes=size_bytes)
