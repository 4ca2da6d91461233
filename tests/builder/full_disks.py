"""Disks without room: a pretended one, and a real one where we may mount."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from seatkeeper.artifacts.store import create_file

TINY_DISK_BYTES = 64 << 10


class FileOnFullDisk:
    """A file that takes what a disk of that size has room for."""

    def __init__(self, file: BinaryIO, room_bytes: int) -> None:
        self._file = file
        self._room_bytes = room_bytes

    def __enter__(self) -> FileOnFullDisk:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self._room_bytes -= len(data)
        if self._room_bytes < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()


def create_file_with_room(*rooms_bytes: int) -> Callable[[Path], BinaryIO]:
    """Return what opens files with so much room, one after the other."""
    rooms = iter(rooms_bytes)
    return lambda path: FileOnFullDisk(create_file(path), next(rooms))  # type: ignore[return-value]  # a stand-in with the methods that are used


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    options = f"size={TINY_DISK_BYTES}"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
        check=True,
        capture_output=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount() -> bool:
    """Whether this user may mount a disk: root outside a container, usually."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tiny_disk(Path(folder)):
                return True
        except (subprocess.CalledProcessError, FileNotFoundError):
            return False
