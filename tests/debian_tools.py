"""Programs of others that the deployment's tests run, and how to get them on a Debian machine.

Each is taken from ``PATH`` where it is new enough, else from ``.tools/`` of this checkout.
``python -m tests.debian_tools fetch NAME...`` makes the second, without root, from the archive that
the machine's own apt configuration names. Tests skip, and say why, where a program cannot be had.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.tree import ROOT

from seatkeeper.devcluster.debian import (
    SUITES,
    FetchError,
    add_libraries,
    machine_archive,
    open_suite,
    unpack_packages,
)

TOOLS = ROOT / ".tools"
VERSION_SECONDS_MAX = 10

_WRAPPER = """\
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export XTABLES_LIBDIR="$here/lib/xtables"
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/bin/%s" "$@"
"""
"""Starts a program with the libraries beside it. It becomes the program, so its pid is the same."""


@dataclass(frozen=True)
class Tool:
    """A program, and the Debian package that it is in."""

    name: str
    version_min: tuple[int, ...]
    packages: tuple[str, ...]
    """Those that the suite does not have are passed over."""
    inside: str
    """Where the package has it."""
    made_by: str
    """The task of the Makefile that fetches it."""
    own_suite: bool = False
    """Whether it is linked against libraries of its own suite, which must be the machine's."""
    beside: tuple[str, ...] = ()
    """Folders of the packages that it needs too; each is put into ``lib/`` by its last name."""


HAPROXY = Tool("haproxy", (2, 6), ("haproxy",), "usr/sbin/haproxy", "haproxy", own_suite=True)
PROMETHEUS = Tool("prometheus", (2, 37), ("prometheus",), "usr/bin/prometheus", "compose")
PROMTOOL = Tool("promtool", (2, 37), ("promtool", "prometheus"), "usr/bin/promtool", "compose")
COMPOSE = Tool(
    "docker-compose",
    (2, 20),
    ("docker-compose",),
    "usr/libexec/docker/cli-plugins/docker-compose",
    "compose",
)
IPTABLES = Tool(
    "iptables",
    (1, 8),
    ("iptables",),
    "usr/sbin/xtables-nft-multi",
    "chaos-tools",
    own_suite=True,
    beside=("usr/lib/*/xtables",),
)
FAKETIME = Tool(
    "faketime",
    (0, 9),
    ("faketime", "libfaketime"),
    "usr/bin/faketime",
    "chaos-tools",
    own_suite=True,
    beside=("usr/lib/*/faketime",),
)
H2LOAD = Tool("h2load", (1, 40), ("nghttp2-client",), "usr/bin/h2load", "bench", own_suite=True)
ALL = {
    tool.name: tool
    for tool in (HAPROXY, PROMETHEUS, PROMTOOL, COMPOSE, IPTABLES, FAKETIME, H2LOAD)
}


def find(tool: Tool) -> Path | None:
    """Return the program to run, or None."""
    places = [Path(folder) for folder in os.get_exec_path()]
    # Daemons' folders are not on the PATH of an ordinary user.
    places += [Path("/usr/sbin"), Path("/usr/local/sbin"), TOOLS / tool.name]
    for path in (place / tool.name for place in places):
        if os.access(path, os.X_OK) and _version(path) >= tool.version_min:
            return path
    return None


def need(tool: Tool) -> Path:
    """Return the program to run; without one, the test is skipped."""
    path = find(tool)
    if path is None:
        least = ".".join(map(str, tool.version_min))
        pytest.skip(
            f"needs {tool.name} {least} or newer on PATH, or `make {tool.made_by}` on Debian"
        )
    return path


@dataclass(frozen=True)
class Suites:
    """Suites of the machine's archive, each read once for all tools: that takes seconds."""

    folder: Path
    """Where; who made it removes it."""
    read: dict[str, Path | FetchError] = field(default_factory=dict)

    def folder_for(self, tool: Tool, suite: str) -> Path:
        """Return a folder of the tool's own that `apt` works on. Raises ``FetchError``."""
        if suite not in self.read:
            try:
                open_suite(self.folder / suite, machine_archive(), suite)
                self.read[suite] = self.folder / suite
            except FetchError as error:
                self.read[suite] = error
        if isinstance(opened := self.read[suite], FetchError):
            raise opened
        folder = self.folder / f"{suite}-{tool.name}"
        (folder / "root").mkdir(parents=True)
        for part in ("parts", "state", "cache"):
            (folder / part).symlink_to(opened / part)
        return folder


def fetch(tool: Tool, suites: Suites) -> Path:
    """Return the program, putting it under ``.tools/`` where there is none. Raises ``FetchError``."""
    present = find(tool)
    if present is not None:
        return present
    own, reasons = machine_archive().suite, []
    for suite in (own,) if tool.own_suite else (*SUITES, own):
        try:
            return _fetch_from_suite(suites.folder_for(tool, suite), suite, tool)
        except FetchError as error:
            reasons.append(f"{suite}: {error}")
    raise FetchError("; ".join(reasons))


def _fetch_from_suite(folder: Path, suite: str, tool: Tool) -> Path:
    unpack_packages(folder, tool.packages)
    program = folder / "root" / tool.inside
    if not program.exists():
        raise FetchError(f"it has no {tool.name}")
    add_libraries(folder, program, tool.packages)
    staged = Path(tempfile.mkdtemp(prefix=f".{tool.name}-", dir=_made(TOOLS)))
    shutil.copytree(folder / "lib", _made(staged) / "lib")
    for pattern in tool.beside:
        for found in (folder / "root").glob(pattern):
            shutil.copytree(found, staged / "lib" / found.name)
    shutil.copy2(program, _made(staged / "bin") / tool.name)
    wrapper = staged / tool.name
    wrapper.write_text(_WRAPPER % tool.name)
    wrapper.chmod(0o755)
    staged.chmod(0o755)
    version = _version(wrapper)
    if version < tool.version_min:
        shutil.rmtree(staged)
        raise FetchError(f"its {tool.name} is {version}" if version else "it does not run")
    place = TOOLS / tool.name
    shutil.rmtree(place, ignore_errors=True)
    staged.replace(place)
    return place / tool.name


def _version(program: Path) -> tuple[int, ...]:
    """Return what it says is its version; empty when it does not run."""
    flag = "version" if program.name == COMPOSE.name else "--version"
    try:
        answer = subprocess.run(
            [program, "-v" if program.name == HAPROXY.name else flag],
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(
        r"(?:[Vv]ersion |\bv|nghttp2/)v?(\d+)\.(\d+)\.(\d+)", answer.stdout + answer.stderr
    )
    return tuple(map(int, match.groups())) if match else ()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. A fetch that fails is no error: the tests that need it are skipped."""
    parser = argparse.ArgumentParser(prog="python -m tests.debian_tools")
    commands = parser.add_subparsers(dest="command", required=True)
    fetching = commands.add_parser("fetch", help="put programs under .tools/")
    fetching.add_argument("names", nargs="+", choices=sorted(ALL))
    names = parser.parse_args(arguments).names
    with tempfile.TemporaryDirectory(prefix="seatkeeper-apt-") as folder:
        suites = Suites(Path(folder))
        for name in names:
            try:
                print(f"{name}: {fetch(ALL[name], suites)}")
            except FetchError as error:
                print(f"no {name}, so the tests that need it are skipped: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
