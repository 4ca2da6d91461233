"""Where an agent keeps the engines it published.

    blobs/<sha256>       an engine's bytes; several keys may share them
    manifests/<key>      a serialised SignedManifest; an engine exists once this file does
    staging/             files on their way; worth nothing after a restart

A file appears under its final name only when it is whole and on the disk: written beside,
flushed, renamed. The manifest comes last, so a crash in between leaves no partial engine, only
a blob that ``sweep`` removes. One agent owns a folder; its threads may share one store.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError

from seatkeeper.artifacts.errors import (
    DiskFull,
    EngineDamaged,
    EngineNotFound,
    ManifestUntrusted,
)
from seatkeeper.artifacts.manifest import (
    CHUNK_BYTES,
    MANIFEST_BYTES_MAX,
    check_engine_bytes,
    verify_manifest,
)
from seatkeeper.v1 import build_pb2

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})

_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class StoredEngine:
    """An open engine whose bytes were checked when it was opened."""

    signed_manifest: build_pb2.SignedManifest
    manifest: build_pb2.EngineManifest
    _file: BinaryIO

    @property
    def path(self) -> Path:
        """The file with its bytes; to be read only, and only while the engine is open."""
        return Path(self._file.name)

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Return the engine's bytes from ``offset`` on, at most 1 MiB each."""
        self._file.seek(offset)
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk


def create_file(path: Path) -> BinaryIO:
    """Open a new file for writing, readable by its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


class EngineStore:
    """Engines on disk, under their keys. Every method blocks on the disk."""

    def __init__(
        self, folder: Path, *, create_file: Callable[[Path], BinaryIO] = create_file
    ) -> None:
        self._create_file = create_file
        self._lock = threading.Lock()
        self._blobs = folder / "blobs"
        self._manifests = folder / "manifests"
        self.staging = folder / "staging"
        """A folder on the same disk, for files on their way into the store."""
        for part in (self._blobs, self._manifests, self.staging):
            part.mkdir(parents=True, exist_ok=True, mode=0o700)

    def publish(self, signed: build_pb2.SignedManifest, engine: Path) -> None:
        """Copy ``engine`` into the store under the key of its manifest.

        When this returns, the engine outlives a power cut. Publishing a key again replaces it.
        Raises ``EngineDamaged`` when the file is not what the manifest says, ``DiskFull`` when
        there is no room; then nothing is left behind, and what was there before still is.
        """
        manifest = verify_manifest(signed, signed.public_key)
        blob = self._blobs / manifest.file.sha256
        with self._lock, _disk_full_is_typed(manifest.key):
            blob_is_new = not blob.exists()
            replaces = self.has(manifest.key)
            try:
                self._write(blob, lambda file: _copy_checked(engine, file, manifest.file))
                self._write(
                    self._manifests / manifest.key,
                    lambda file: file.write(signed.SerializeToString()),
                )
            except BaseException:
                if blob_is_new:
                    blob.unlink(missing_ok=True)
                raise
            if replaces:
                self._remove_unused_blobs()

    def has(self, key: str) -> bool:
        """Return whether an engine is published under ``key``. Its bytes are not checked."""
        return bool(_KEY.fullmatch(key)) and (self._manifests / key).exists()

    def keys(self) -> list[str]:
        """Return every published key, sorted."""
        return sorted(
            path.name for path in self._manifests.iterdir() if _KEY.fullmatch(path.name)
        )

    def manifest(self, key: str) -> build_pb2.SignedManifest:
        """Return what is published under ``key``, with a signature that holds.

        Raises ``EngineNotFound``, or ``EngineDamaged`` when the manifest's file is.
        """
        return self._read_manifest(key)[0]

    @contextmanager
    def open(self, key: str) -> Iterator[StoredEngine]:
        """Open the engine under ``key`` for reading, with every byte checked.

        Stays readable while it is open, even if it is removed or replaced meanwhile. Raises
        ``EngineNotFound``, or ``EngineDamaged`` when the bytes or the manifest are.
        """
        signed, manifest = self._read_manifest(key)
        try:
            file = (self._blobs / manifest.file.sha256).open("rb")
        except FileNotFoundError as error:
            if not self.has(key):
                raise EngineNotFound(f"engine {key} was just removed") from error
            raise EngineDamaged(f"the bytes of engine {key} are missing") from error
        with file:
            check_engine_bytes(file, manifest.file)
            yield StoredEngine(signed, manifest, file)

    def remove(self, key: str) -> None:
        """Forget ``key``, and its bytes if no other key shares them. Safe to call twice.

        Also removes an engine or a manifest that is damaged.
        """
        if not _KEY.fullmatch(key):
            return
        with self._lock:
            (self._manifests / key).unlink(missing_ok=True)
            self._remove_unused_blobs()

    def sweep(self) -> None:
        """Remove what a crash left: files on their way, and bytes that no manifest names.

        Call it once, before the first build: a build that is on its way loses its files.
        """
        with self._lock:
            for path in self.staging.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            self._remove_unused_blobs()

    def _remove_unused_blobs(self) -> None:
        used = set()
        for key in self.keys():
            # A damaged manifest cannot be served, so it holds no bytes either.
            with suppress(EngineDamaged, EngineNotFound):
                used.add(self._read_manifest(key)[1].file.sha256)
        for blob in self._blobs.iterdir():
            if blob.name not in used:
                blob.unlink(missing_ok=True)

    def _read_manifest(
        self, key: str
    ) -> tuple[build_pb2.SignedManifest, build_pb2.EngineManifest]:
        if not _KEY.fullmatch(key):
            raise EngineNotFound(f"{key[:100]!r} is no engine's key")
        try:
            with (self._manifests / key).open("rb") as file:
                serialised = file.read(MANIFEST_BYTES_MAX)
        except FileNotFoundError as error:
            raise EngineNotFound(f"no engine is published under {key}") from error
        try:
            signed = build_pb2.SignedManifest.FromString(serialised)
            manifest = verify_manifest(signed, signed.public_key)
        except (DecodeError, ManifestUntrusted) as error:
            raise EngineDamaged(f"the manifest of engine {key} is damaged") from error
        if manifest.key != key:
            raise EngineDamaged(f"the manifest of engine {key} belongs to another key")
        return signed, manifest

    def _write(self, path: Path, fill: Callable[[BinaryIO], object]) -> None:
        draft = self.staging / f"{path.name}.{secrets.token_hex(8)}"
        try:
            with self._create_file(draft) as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _disk_full_is_typed(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull(f"no room to publish engine {key}") from error
        raise


def _copy_checked(source: Path, target: BinaryIO, expected: build_pb2.EngineFile) -> None:
    with source.open("rb") as file:
        check_engine_bytes(_Tee(file, target), expected)


class _Tee:
    """Reads from one file and writes what it read to another."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target

    def read(self, size: int) -> bytes:
        chunk = self._source.read(size)
        self._target.write(chunk)
        return chunk


def _sync_folder(folder: Path) -> None:
    # A rename is on the disk only once its folder is.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
