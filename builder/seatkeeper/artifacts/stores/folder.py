"""A store in a folder: of this machine, or one that several have mounted."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from seatkeeper.artifacts.errors import (
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from seatkeeper.artifacts.stores.objects import CHUNK_BYTES, NAME, SMALL_BYTES_MAX, Found

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_DRAFTS = "drafts"
_ID = "store-id"


def create_file(path: Path) -> BinaryIO:
    """Open a new file for writing, with the mode that the process gives new files."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")


class FolderObjects:
    """Objects as files. Each is written beside, flushed, and renamed."""

    def __init__(
        self, folder: Path, *, create_file: Callable[[Path], BinaryIO] = create_file
    ) -> None:
        self._folder = folder
        self._create_file = create_file
        self.shown = str(folder)
        self._store_id = ""

    @property
    def store_id(self) -> str:
        """Kept in the folder: one path on two machines may be two folders, and two paths one."""
        if not self._store_id:
            with self._typed():
                path = self._folder / _ID
                if not path.exists():
                    self._write(
                        path, lambda file: file.write(secrets.token_hex(16).encode()), new=True
                    )
                self._store_id = path.read_text(encoding="ascii", errors="replace")[:64].strip()
        return self._store_id

    def put(self, name: str, content: bytes) -> None:
        """Write a small object."""
        with self._typed():
            self._write(self._path(name), lambda file: file.write(content))

    def put_file(self, name: str, path: Path) -> None:
        """Write an object from a file."""

        def copy(file: BinaryIO) -> None:
            with path.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    file.write(chunk)

        with self._typed():
            self._write(self._path(name), copy)

    def get(self, name: str) -> bytes | None:
        """Return a small object."""
        with self._typed(), suppress(FileNotFoundError), self._path(name).open("rb") as file:
            return file.read(SMALL_BYTES_MAX)
        return None

    def read(self, name: str, offset: int = 0) -> Iterator[bytes] | None:
        """Return an object's bytes; they stay those of the file as it was when it was opened."""
        return None if self.find(name) is None else self._chunks(self._path(name), offset)

    def find(self, name: str) -> Found | None:
        """Describe an object."""
        with self._typed(), suppress(FileNotFoundError):
            return _found(name, self._path(name).stat())
        return None

    def list(self, folder: str) -> Iterator[Found]:
        """Describe the objects of a folder."""
        with self._typed():
            try:
                entries = list(os.scandir(self._folder / folder))
            except FileNotFoundError:
                return
        for entry in entries:
            name = f"{folder}/{entry.name}"
            if NAME.fullmatch(name):
                with self._typed(), suppress(FileNotFoundError):
                    yield _found(name, entry.stat(follow_symlinks=False))

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._typed():
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        assert NAME.fullmatch(name), name
        return self._folder / name

    def _chunks(self, path: Path, offset: int) -> Iterator[bytes]:
        with self._typed(), path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def _write(
        self, path: Path, fill: Callable[[BinaryIO], object], *, new: bool = False
    ) -> None:
        """Make ``path`` appear whole; with ``new``, one that is there already stays."""
        drafts = self._folder / _DRAFTS
        for folder in (drafts, path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        draft = drafts / secrets.token_hex(16)
        try:
            with self._create_file(draft) as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            if new:
                with suppress(FileExistsError):
                    os.link(draft, path)
            else:
                draft.replace(path)
            _sync(path.parent)
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL_ERRNOS:
                raise StoreFull(f"{self.shown} has no room") from error
            if error.errno in REFUSED_ERRNOS:
                raise StoreRefused(f"{self.shown}: {error.strerror}") from error
            raise StoreUnavailable(f"{self.shown}: {error.strerror}") from error


def _found(name: str, stat: os.stat_result) -> Found:
    return Found(name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _sync(folder: Path) -> None:
    # A rename is on the disk only once its folder is.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
