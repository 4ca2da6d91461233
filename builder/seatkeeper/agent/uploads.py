"""Files on their way to this agent, and what is kept of those whose connection was lost.

What an interrupted build has brought waits here for its next try. It waits for the same grant only: a
hash alone opens nothing, so a client can neither find out which files others have sent nor have a build
read what it does not hold itself. A build that is under way has its files for itself.

All of it is bounded. Bytes on the disk are reserved before they come. What is kept ends with its age,
gives way to newer uploads where there is too much of it or the disk lacks room, and is gone after a
restart. Methods block on the disk only briefly, except `Part.write`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from seatkeeper.artifacts.errors import DiskFull, ModelTruncated

KEPT_BYTES_MIN = 1 << 20
"""An upload with less than this is not kept: it is sent again as fast."""

TIMER_SECONDS = 0.1
"""By how much a timer may be early."""

Scope = tuple[str, str, int]
"""Pool, grant and fence: who may go on with an upload."""


@dataclass
class Part:
    """A file of which the first bytes are here."""

    path: Path
    size_bytes: int
    received: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    """Of the bytes that are here."""

    @property
    def missing_bytes(self) -> int:
        """How many bytes are to come."""
        return self.size_bytes - self.received

    def write(self, chunk: bytes) -> None:
        """Append. Raises ``OSError``; then the bytes that were there before still count."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o600), "wb", buffering=0) as file:
            file.seek(self.received)
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]
        self.digest.update(chunk)
        self.received += len(chunk)


@dataclass
class _Kept:
    """What an interrupted upload left."""

    parts: dict[str, Part]
    """By hash."""
    since: float

    @property
    def size_bytes(self) -> int:
        return sum(part.received for part in self.parts.values())

    def remove(self) -> None:
        for part in self.parts.values():
            part.path.unlink(missing_ok=True)


class Uploads:
    """The uploads of one agent, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        kept_bytes_max: int,
        kept_seconds: float,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """``folder`` need not exist; its parent does. ``free_bytes`` says what is free on its disk."""
        self._folder = folder
        self._kept_bytes_max = kept_bytes_max
        self._kept_seconds = kept_seconds
        self._free_bytes = free_bytes
        self._kept: dict[Scope, _Kept] = {}
        """The oldest first."""
        self._under_way: list[Mapping[str, Part]] = []

    @property
    def kept_bytes(self) -> int:
        """Bytes of interrupted uploads."""
        return sum(kept.size_bytes for kept in self._kept.values())

    def missing_bytes(self, files: Mapping[str, int], scope: Scope | None) -> int:
        """Return how many bytes of the files, sizes by hash, are to come."""
        kept = self._kept.get(scope) if scope is not None else None
        here = {} if kept is None else kept.parts
        return sum(size - _received(here, sha256, size) for sha256, size in files.items())

    def check_room(self, missing_bytes: int, scope: Scope | None) -> None:
        """Make sure that the disk has room. Raises ``DiskFull``.

        Uploads that others may come back for give way first, the oldest before the rest.
        """
        for other in [each for each in self._kept if each != scope]:
            if missing_bytes <= self._room():
                return
            self.forget(other)
        if missing_bytes > (room := self._room()):
            raise DiskFull(
                f"{missing_bytes} bytes of the model are to come, and the agent's disk has room for "
                f"{max(0, room)}"
            )

    @contextmanager
    def parts(self, files: Mapping[str, int], scope: Scope | None) -> Iterator[dict[str, Part]]:
        """Hold the parts of one upload, by hash: what is there of it, and room for the rest.

        At the end they are removed; with a ``scope`` they are kept for the next try where the upload
        or the build was interrupted. Raises ``DiskFull``.
        """
        self.check_room(self.missing_bytes(files, scope), scope)
        here = self._take(scope)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        parts = {sha256: self._part(here, sha256, size) for sha256, size in files.items()}
        for part in here.values():
            part.path.unlink(missing_ok=True)
        self._under_way.append(parts)
        try:
            yield parts
        except (asyncio.CancelledError, ModelTruncated) as error:
            # The connection was lost; a stream that ended early may be one that broke. A whole
            # model that is truncated in itself is none.
            is_whole = not any(part.missing_bytes for part in parts.values())
            if scope is not None and not (is_whole and isinstance(error, ModelTruncated)):
                self._keep(scope, parts)
            raise
        finally:
            self._under_way = [each for each in self._under_way if each is not parts]
            if scope is None or scope not in self._kept:
                for part in parts.values():
                    part.path.unlink(missing_ok=True)
            self._remove_folder_if_empty()

    def forget(self, scope: Scope) -> None:
        """Keep nothing for a grant any more, such as one that has ended."""
        if (kept := self._kept.pop(scope, None)) is not None:
            kept.remove()
            self._remove_folder_if_empty()

    def forget_all(self) -> None:
        """Keep nothing any more."""
        for scope in list(self._kept):
            self.forget(scope)

    def expire(self, now: float) -> None:
        """Remove what was kept for too long, by the clock of the event loop."""
        for scope, kept in list(self._kept.items()):
            if now >= kept.since + self._kept_seconds:
                self.forget(scope)

    def _take(self, scope: Scope | None) -> dict[str, Part]:
        kept = self._kept.pop(scope, None) if scope is not None else None
        return {} if kept is None else dict(kept.parts)

    def _part(self, here: dict[str, Part], sha256: str, size_bytes: int) -> Part:
        part = here.pop(sha256, None)
        if part is not None and part.size_bytes == size_bytes:
            return part
        if part is not None:
            part.path.unlink(missing_ok=True)
        return Part(self._folder / secrets.token_hex(16), size_bytes)

    def _keep(self, scope: Scope, parts: dict[str, Part]) -> None:
        loop = asyncio.get_running_loop()
        kept = _Kept(parts, since=loop.time())
        if not KEPT_BYTES_MIN <= kept.size_bytes <= self._kept_bytes_max:
            return
        self.forget(scope)
        self._kept[scope] = kept
        while self.kept_bytes > self._kept_bytes_max:
            self.forget(next(iter(self._kept)))
        loop.call_later(self._kept_seconds + TIMER_SECONDS, lambda: self.expire(loop.time()))

    def _room(self) -> int:
        """Return the bytes that are free and that no upload under way still needs."""
        reserved = sum(
            part.missing_bytes for parts in self._under_way for part in parts.values()
        )
        return self._free_bytes(self._folder.parent) - reserved

    def _remove_folder_if_empty(self) -> None:
        with suppress(OSError):  # it is not empty, or is gone
            self._folder.rmdir()


def _received(here: Mapping[str, Part], sha256: str, size_bytes: int) -> int:
    part = here.get(sha256)
    return part.received if part is not None and part.size_bytes == size_bytes else 0
