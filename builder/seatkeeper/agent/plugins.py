"""Libraries of plugins that an agent's administrator lists: the only ones that are ever loaded.

A plugin is a program. Callers name one by its hash and never send one; a build gets copies whose bytes
have that hash, so that a file which was replaced after the agent started is not loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from seatkeeper.artifacts.errors import FeatureUnsupported

PLUGIN_BYTES_MAX = 1 << 30
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Plugins:
    """The libraries that are listed, by their hash. Every method blocks."""

    paths: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def listed(cls, paths: Iterable[Path]) -> Plugins:
        """Return those at ``paths``, as they are now. Raises ``OSError``."""
        by_hash: dict[str, Path] = {}
        for path in paths:
            with path.open("rb") as file:
                by_hash[hashlib.file_digest(file, "sha256").hexdigest()] = path.absolute()
        return cls(by_hash)

    def copied(self, hashes: Iterable[str], folder: Path) -> tuple[Path, ...]:
        """Return copies in ``folder``. Raises ``FeatureUnsupported`` for one that changed."""
        return tuple(self._copied(each, folder) for each in hashes)

    def _copied(self, sha256: str, folder: Path) -> Path:
        source = self.paths[sha256]
        copy = folder / f"plugin-{sha256[:16]}{source.suffix}"
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with source.open("rb") as file, copy.open("xb") as to:
                while (chunk := file.read(CHUNK_BYTES)) and size_bytes <= PLUGIN_BYTES_MAX:
                    size_bytes += len(chunk)
                    digest.update(chunk)
                    to.write(chunk)
        except FileNotFoundError as error:
            raise _changed(source.name) from error
        if digest.hexdigest() != sha256:
            raise _changed(source.name)
        return copy


def _changed(name: str) -> FeatureUnsupported:
    return FeatureUnsupported(
        f"plugin {name} has changed on the agent since it started; restart the agent"
    )
