"""What the command finds around it: its environment as the user made it, and the token's file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

OURS = (
    "SEATKEEPER_TOKEN",
    "SEATKEEPER_TOKEN_FILE",
    "SEATKEEPER_TOKEN_FOLDER",
    "SEATKEEPER_POOL",
    "SEATKEEPER_GRANT_ID",
    "SEATKEEPER_FENCE",
    "SEATKEEPER_SEATS",
)
"""The description of its seat that a command gets. None of an outer ``run`` reaches an inner one."""
TOKEN_BYTES_ENOUGH = 8192
"""How much a place for the token must have room for."""
_COERCED = ("LC_CTYPE",)
"""What Python itself sets in its own environment, where the locale is C (PEP 538)."""


def environment_of(given: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return the user's environment, as it was before Python changed it, and ``given``."""
    found = dict(os.environb)
    first = _environment_at_start()
    if first is not None:
        for coerced in map(os.fsencode, _COERCED):
            if coerced not in first:
                found.pop(coerced, None)
    for name in OURS:
        found.pop(os.fsencode(name), None)
    return found | {os.fsencode(name): os.fsencode(value) for name, value in given.items()}


def _environment_at_start() -> dict[bytes, bytes] | None:
    """Return the environment that the kernel gave us; None where it does not say (no /proc)."""
    try:
        with open("/proc/self/environ", "rb") as opened:
            pairs = opened.read().split(b"\0")
    except OSError:
        return None
    return dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)


class TokenFile:
    """A file in a private folder, whose content is replaced whole.

    Where there are seats of several pools, it is of the first; ``write_each`` has one for each beside
    it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "token"
        self._written: dict[Path, str] = {}

    @classmethod
    def make(cls) -> TokenFile | None:
        """Make one where there is room for it; None: there is no such place.

        Looked for in $TMPDIR and the usual places, then in what lives in memory.
        """
        for place in _places():
            folder = None
            try:
                folder = tempfile.mkdtemp(prefix="seatkeeper-", dir=place)
                made = cls(Path(folder))
                made.write("x" * TOKEN_BYTES_ENOUGH)
            except OSError:
                if folder is not None:
                    cls(Path(folder)).remove()
                continue
            return made
        return None

    def write(self, token: str) -> None:
        """Put a token into the file, whole or not at all. Raises ``OSError``."""
        self._write(token, self.path)

    def write_each(self, tokens: Mapping[str, str]) -> None:
        """Put the token of each pool into a file with its name, likewise."""
        for pool, token in tokens.items():
            self._write(token, self.folder / f"token-{pool}")

    def _write(self, token: str, path: Path) -> None:
        if token == self._written.get(path):
            return
        draft = self.path.with_name(".token")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as opened:
                opened.write(token)
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise
        self._written[path] = token

    def remove(self) -> None:
        """Remove it, and its folder. What cannot be removed is no error."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _places() -> Iterator[str]:
    for name in ("TMPDIR", "TEMP", "TMP"):
        # As tempfile does; but not the folder we are in, where a token has no business.
        if place := os.environ.get(name):
            with suppress(OSError):  # a folder that is gone has no path
                yield os.path.abspath(place)
    yield from ("/tmp", "/var/tmp", "/usr/tmp")
    if place := os.environ.get("XDG_RUNTIME_DIR"):
        yield place
    yield from (f"/run/user/{os.getuid()}", "/dev/shm")
