"""A store behind any other URL that fsspec knows: ``memory://``, ``sftp://host/engines``, and so on.

What each needs beside fsspec, and where it finds its credentials, fsspec documents.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatkeeper.artifacts.errors import (
    StoreAddressInvalid,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from seatkeeper.artifacts.stores.address import StoreAddress
from seatkeeper.artifacts.stores.folder import FULL_ERRNOS
from seatkeeper.artifacts.stores.objects import CHUNK_BYTES, NAME, SMALL_BYTES_MAX, Found
from seatkeeper.artifacts.stores.redaction import first_line
from seatkeeper.core.extras import explain

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class FileSystemObjects:
    """Objects as files of one of fsspec's file systems. Each is written beside, and moved."""

    def __init__(self, address: StoreAddress) -> None:
        self.shown = address.shown
        self.store_id = address.digest
        try:
            import fsspec
        except ImportError:
            raise StoreAddressInvalid(explain("a store behind a URL", "store")) from None
        try:
            self._files: AbstractFileSystem
            self._files, self._root = fsspec.core.url_to_fs(
                f"{address.scheme}://{address.path}"
            )
        except (ImportError, ValueError) as error:
            raise StoreAddressInvalid(f"{self.shown}: {first_line(str(error))}") from None
        except Exception as error:  # each file system has errors of its own
            raise StoreUnavailable(f"{self.shown}: {first_line(str(error))}") from None

    def put(self, name: str, content: bytes) -> None:
        """Write a small object."""
        with self._appearing(name) as draft:
            self._files.pipe_file(draft, content)

    def put_file(self, name: str, path: Path) -> None:
        """Write an object from a file."""
        with self._appearing(name) as draft:
            self._files.put_file(str(path), draft)

    def get(self, name: str) -> bytes | None:
        """Return a small object."""
        with self._typed(), suppress(FileNotFoundError):
            content: bytes = self._files.cat_file(self._path(name), end=SMALL_BYTES_MAX)
            return content
        return None

    def read(self, name: str, offset: int = 0) -> Iterator[bytes] | None:
        """Return an object's bytes."""
        if self.find(name) is None:
            return None
        return self._chunks(name, offset)

    def find(self, name: str) -> Found | None:
        """Describe an object."""
        with self._typed(), suppress(FileNotFoundError):
            path = self._path(name)
            return _found(name, self._files.info(path), self._modified(path))
        return None

    def list(self, folder: str) -> Iterator[Found]:
        """Describe the objects of a folder."""
        with self._typed():
            self._files.invalidate_cache()
            try:
                entries = self._files.ls(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError:
                return
        for entry in entries:
            name = f"{folder}/{str(entry['name']).rpartition('/')[2]}"
            if NAME.fullmatch(name) and (found := self.find(name)) is not None:
                yield found

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._typed(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        assert NAME.fullmatch(name), name
        return f"{self._root}/{name}"

    def _modified(self, path: str) -> datetime:
        modified: datetime = self._files.modified(path)
        return modified if modified.tzinfo is not None else modified.replace(tzinfo=UTC)

    def _chunks(self, name: str, offset: int) -> Iterator[bytes]:
        with self._typed(), self._files.open(self._path(name), "rb") as file:
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    @contextmanager
    def _appearing(self, name: str) -> Iterator[str]:
        """Give a place to write to, which becomes ``name`` when all went well."""
        draft = f"{self._root}/drafts/{secrets.token_hex(16)}"
        with self._typed():
            for folder in (draft.rpartition("/")[0], self._path(name).rpartition("/")[0]):
                self._files.makedirs(folder, exist_ok=True)
            try:
                yield draft
                self._files.mv(draft, self._path(name))
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(draft)
                raise

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except (StoreError, FileNotFoundError):
            raise
        except PermissionError as error:
            raise StoreRefused(f"{self.shown}: {first_line(str(error))}") from None
        except Exception as error:  # each file system has errors of its own
            full = isinstance(error, OSError) and error.errno in FULL_ERRNOS | {errno.ENOMEM}
            kind = StoreFull if full else StoreUnavailable
            about = first_line(str(error)) or type(error).__name__
            raise kind(f"{self.shown}: {about}") from None


def _found(name: str, info: dict[str, Any], modified_at: datetime) -> Found:
    return Found(name, int(info["size"]), modified_at)
