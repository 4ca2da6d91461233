"""Take an etcd that is new enough from the archive that a Debian machine already trusts."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from seatkeeper.devcluster.debian import (
    SUITES,
    Archive,
    FetchError,
    apt,
    candidate,
    machine_archive,
    open_suite,
    unpack,
)

PACKAGES = ("etcd-server", "etcd-client")
PROGRAMS = ("etcdutl", "etcdctl", "etcd")
"""Copied in this order: where ``etcd`` is, the others are too."""


def fetch_from_debian(into: Path, version_min: tuple[int, ...]) -> None:
    """Put ``PROGRAMS`` of at least this version into the folder. Raises ``FetchError``."""
    archive = machine_archive()
    reasons = []
    with tempfile.TemporaryDirectory(prefix="seatkeeper-apt-") as folder:
        for suite in dict.fromkeys((*SUITES, archive.suite)):
            print(f"looking for etcd in the Debian suite {suite}", flush=True)
            try:
                _fetch_from_suite(Path(folder) / suite, archive, suite, into, version_min)
                return
            except FetchError as error:
                reasons.append(f"{suite}: {error}")
    raise FetchError("; ".join(reasons))


def _fetch_from_suite(
    folder: Path, archive: Archive, suite: str, into: Path, version_min: tuple[int, ...]
) -> None:
    open_suite(folder, archive, suite)
    version = candidate(folder, PACKAGES[0])
    if version is None:
        raise FetchError("it has no etcd-server")
    upstream = version.rpartition(":")[2].partition("-")[0]
    if tuple(int(part) for part in re.findall(r"\d+", upstream)[:3]) < version_min:
        raise FetchError(f"its etcd is {upstream}")
    print(f"downloading {' and '.join(PACKAGES)} {version}, 20 MB", flush=True)
    apt(folder, "apt-get", "download", "--quiet=2", *PACKAGES)
    unpack(folder, folder)
    into.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        source = folder / "root" / "usr" / "bin" / program
        if source.exists():
            # Moved into place whole: one that runs now goes on running.
            staged = into / f".{program}.{os.getpid()}"
            shutil.copy2(source, staged)
            staged.replace(into / program)
