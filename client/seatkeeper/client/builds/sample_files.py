"""Files of samples that go with a model. Everything here blocks."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from seatkeeper.artifacts.precision import ImageInput, Samples
from seatkeeper.client.builds.model import Model
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.text import name_of_file, printable
from seatkeeper.v1 import build_pb2

FOLDER_BYTES_MAX = 1 << 30
"""Most bytes of a folder of samples: they are packed in memory."""
Source = str | os.PathLike[str] | bytes
"""A file, a folder, or the bytes of a file."""


def samples_of(source: Source, images: ImageInput | None = None) -> Samples:
    """Return what a plan says of a file of samples, or of a folder of arrays or pictures.

    ``images`` says what to make of pictures. Raises `InvalidArgument` if it cannot be read.
    """
    return Samples(sha256=_read(source).sha256, images=images)


def sample_files_of(options: build_pb2.BuildOptions, sources: Iterable[Source]) -> list[Model]:
    """Return the files of samples that options name, each once, in the order of naming.

    Raises `InvalidArgument` when one is not among ``sources``, or one of these is not named.
    """
    given = {each.sha256: each for each in map(_read, sources)}
    wanted = [options.precision.calibration.sha256, options.precision.samples.sha256]
    named = list(dict.fromkeys(filter(None, wanted)))
    for sha256 in named:
        if sha256 not in given:
            raise InvalidArgument(
                f"the options name samples {sha256[:12]}, and none of sample_files has that hash",
                field="sample_files",
            )
    for sha256, file in given.items():
        if sha256 not in named:
            raise InvalidArgument(
                f"the options do not name the samples in {file.name}", field="sample_files"
            )
    return [given[sha256] for sha256 in named]


def packed(folder: Path) -> bytes:
    """Return the files in a folder and below as one archive: equal files make equal bytes.

    Hidden ones are left out. Raises `InvalidArgument` for what is no file, and for too many bytes.
    """
    archive, size_bytes = io.BytesIO(), 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as files:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_dir() or any(part.startswith(".") for part in name.split("/")):
                continue
            if not path.is_file():
                raise _invalid(path, "not a file")
            size_bytes += path.stat().st_size
            if size_bytes > FOLDER_BYTES_MAX:
                raise _invalid(folder, f"more than {FOLDER_BYTES_MAX} bytes")
            # Its time is always the same, as ``ZipInfo`` has it; a name is UTF-8 in there.
            files.writestr(zipfile.ZipInfo(printable(name)), path.read_bytes())
    return archive.getvalue() if size_bytes else b""


def _read(source: Source) -> Model:
    if isinstance(source, bytes):
        file = Model.read(source, "samples.npz", "samples")
    else:
        path = Path(source)
        file = Model.read(
            _packed(path) if path.is_dir() else path, name_of_file(path), "samples"
        )
    if file.size_bytes == 0:
        raise InvalidArgument(f"samples {file.name}: nothing in it", field="samples")
    return file


def _packed(folder: Path) -> bytes:
    try:
        return packed(folder)
    except OSError as error:
        raise _invalid(folder, error.strerror or "not readable") from error


def _invalid(path: Path, why: str) -> InvalidArgument:
    return InvalidArgument(f"samples {printable(str(path))}: {why}", field="samples")
