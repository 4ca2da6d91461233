"""What a store is made of: named bytes that appear whole or not at all.

Three implementations, one contract (``tests/contract/test_artifact_stores.py``): a folder, object
stores, and everything that fsspec knows. All of them block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1 << 20
SMALL_BYTES_MAX = 1 << 20
"""Most bytes of an object that is read as one: a manifest, a key."""
NAME = re.compile(r"[a-z-]+/[0-9a-f]{64}(\.[a-z]+)?", re.ASCII)
"""What the names look like, so that none can lead elsewhere."""


@dataclass(frozen=True)
class Found:
    """An object, as the store describes it."""

    name: str
    size_bytes: int
    modified_at: datetime
    """When it was last written, by the store's own clock."""


class Objects(Protocol):
    """Named bytes. Names are ``FOLDER/HASH``.

    A reader sees an object as it was, or as it will be, never a part of it, whatever dies meanwhile.
    Every method raises a ``StoreError``, with nothing secret in its message.
    """

    @property
    def shown(self) -> str:
        """Where they are, for people."""
        ...

    @property
    def store_id(self) -> str:
        """The same for all who use the same store, and for no other store."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a small object; replaces one of that name."""
        ...

    def put_file(self, name: str, path: Path) -> None:
        """Write an object of any size from a file; replaces one of that name."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return a small object; None: there is none. No more than ``SMALL_BYTES_MAX`` are read."""
        ...

    def read(self, name: str, offset: int = 0) -> Iterator[bytes] | None:
        """Return an object's bytes from ``offset`` on, in pieces; None: there is none."""
        ...

    def find(self, name: str) -> Found | None:
        """Describe an object; None: there is none."""
        ...

    def list(self, folder: str) -> Iterator[Found]:
        """Describe the objects of a folder, in any order."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object. Safe to call twice."""
        ...
