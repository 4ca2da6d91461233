"""Files of samples that go with a model. Everything here blocks."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from seatkeeper.artifacts.precision import ImageInput, Samples
from seatkeeper.client.builds.model import Model
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.text import name_of_file, printable
from seatkeeper.v1 import build_pb2

FOLDER_BYTES_MAX = 1 << 30
"""Most bytes of a folder of samples: they are packed in memory."""
PICTURES = frozenset({"png", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "webp", "ppm", "pgm"})
Source = str | os.PathLike[str] | bytes
"""A file, a folder, or the bytes of a file."""


def samples_of(source: Source, images: ImageInput | None = None) -> Samples:
    """Return what a plan says of a file of samples, or of a folder of arrays or pictures.

    ``images`` says what to make of pictures. Raises `InvalidArgument` if it cannot be read, and for
    pictures without ``images``, arrays with it, and what is neither.
    """
    file = _read(source)
    for name in _members(source):
        _check_member(name, images)
    return Samples(sha256=file.sha256, images=images)


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
        for path in _files_in(folder):
            name = path.relative_to(folder).as_posix()
            if not path.is_file():
                raise _invalid(path, "not a file")
            size_bytes += path.stat().st_size
            if size_bytes > FOLDER_BYTES_MAX:
                raise _invalid(folder, f"more than {FOLDER_BYTES_MAX} bytes")
            # Its time is always the same, as ``ZipInfo`` has it; a name is UTF-8 in there.
            files.writestr(zipfile.ZipInfo(printable(name)), path.read_bytes())
    return archive.getvalue() if size_bytes else b""


def _files_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_dir() and not any(part.startswith(".") for part in parts):
            yield path


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


def _members(source: Source) -> list[str]:
    """Return the names of the files that samples are in. Raises `InvalidArgument` for no archive."""
    if isinstance(source, bytes):
        archive: io.BytesIO | Path = io.BytesIO(source)
    else:
        archive = Path(source)
        if archive.is_dir():
            names = (path.relative_to(archive).as_posix() for path in _files_in(archive))
            return list(map(printable, names))
    try:
        with zipfile.ZipFile(archive) as file:
            return [name for name in file.namelist() if not name.endswith("/")]
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        what = Path("given as bytes") if isinstance(source, bytes) else Path(source)
        raise _invalid(what, f"neither a folder nor an .npz file ({error})") from error


def _check_member(name: str, images: ImageInput | None) -> None:
    """Raise `InvalidArgument` for what an agent would refuse when a seat has been waited for."""
    shown, suffix = Path(printable(name)[-100:]), name.lower().rpartition(".")[2]
    if suffix == "npy":
        if images is not None:
            raise _invalid(shown, "an array, and how to read pictures is said; leave that out")
    elif images is None:
        what = (
            "a picture; say how it is read, with --images" if suffix in PICTURES else "no array"
        )
        raise _invalid(shown, f"{what}; arrays are .npy files, in a folder or in an .npz")


def _packed(folder: Path) -> bytes:
    try:
        return packed(folder)
    except OSError as error:
        raise _invalid(folder, error.strerror or "not readable") from error


def _invalid(path: Path, why: str) -> InvalidArgument:
    return InvalidArgument(f"samples {printable(str(path))}: {why}", field="samples")
