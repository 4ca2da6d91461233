"""The servers that ``bench.peers`` compares with, and how to get them on a Debian machine.

Each is taken from where the machine has it, else from ``.tools/`` of this checkout. ``python -m
bench.peer_programs`` makes the second, without root, from the archive that the machine's own apt
configuration names; `make peers` runs it. What cannot be had is skipped, with the reason.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.step import ROOT
from seatkeeper.devcluster.debian import (
    FetchError,
    add_libraries,
    machine_archive,
    open_suite,
    unpack_packages,
)

TOOLS = ROOT / ".tools"
MACHINE = Path("/")


class UnavailableError(Exception):
    """A peer cannot be measured here; the message says why, and what to do."""


@dataclass(frozen=True)
class Program:
    """A file that a server is started with, and the Debian packages that have it."""

    name: str
    packages: tuple[str, ...]
    """Those that the suite does not have are passed over."""
    inside: str
    """Where it is below the root of a machine, or of what was unpacked; a pattern."""
    native: bool = True
    """Whether it is linked against shared libraries."""


REDIS = Program("redis-server", ("redis-server", "redis-tools"), "usr/bin/redis-server")
POSTGRES = Program(
    "postgres",
    tuple(f"{name}-{n}" for n in (15, 17, 18) for name in ("postgresql", "postgresql-client")),
    "usr/lib/postgresql/*/bin/postgres",
)
JAVA = Program(
    "java",
    tuple(f"openjdk-{number}-jre-headless" for number in (17, 21, 25)),
    "usr/lib/jvm/*/bin/java",
)
ZOOKEEPER = Program(
    "zookeeper.jar",
    (
        *("libzookeeper-java", "libslf4j-java", "libnetty-java", "libsnappy-java"),
        *("libdropwizard-metrics-java", "libcommons-cli-java"),
    ),
    "usr/share/java/zookeeper.jar",
    native=False,
)
ALL = (REDIS, POSTGRES, JAVA, ZOOKEEPER)


def find(program: Program, roots: Sequence[Path] = ()) -> Path | None:
    """Return the newest of it that the machine has, else that of ``.tools/``; None: there is none."""
    for root in roots or (MACHINE, TOOLS / program.name / "root"):
        found = sorted(root.glob(program.inside))
        if found:
            return found[-1]
    return None


def need(program: Program) -> Path:
    """Return the program to run. Raises ``UnavailableError``."""
    path = find(program)
    if path is None:
        raise UnavailableError(
            f"there is no {program.name}: `make peers` fetches it on a Debian machine"
        )
    return path


def environment(program: Path) -> Mapping[str, str]:
    """Return the environment to start it in: with the libraries that were fetched for it."""
    places = [folder / "lib" for folder in program.parents if folder.parent == TOOLS]
    known = os.environ.get("LD_LIBRARY_PATH")
    paths = [*map(str, places), *([known] if known else [])]
    return os.environ | ({"LD_LIBRARY_PATH": ":".join(paths)} if places else {})


def fetch(program: Program) -> Path:
    """Put it below ``.tools/``, and return where. Raises ``FetchError``; then nothing is changed."""
    archive = machine_archive()
    with tempfile.TemporaryDirectory(prefix="seatkeeper-apt-") as name:
        folder = Path(name)
        # Its libraries are the machine's, so it must come from the machine's own suite.
        open_suite(folder / "apt", archive, archive.suite)
        unpack_packages(folder / "apt", program.packages)
        root = folder / "apt" / "root"
        relocate(root)
        found = find(program, [root])
        if found is None:
            raise FetchError(f"its packages have no {program.name}")
        if program.native:
            add_libraries(folder / "apt", found, program.packages)
        TOOLS.mkdir(exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{program.name}-", dir=TOOLS))
        staged.chmod(0o755)  # a server may run as another user
        shutil.copytree(root, staged / "root", symlinks=True)
        if program.native:
            shutil.copytree(folder / "apt" / "lib", staged / "lib")
    place = TOOLS / program.name
    shutil.rmtree(place, ignore_errors=True)
    staged.replace(place)
    return place / "root" / found.relative_to(root)


def relocate(root: Path) -> None:
    """Make links below ``root`` that lead to the machine's ``/`` lead to the same place below it.

    Java's packages, for one, have their configuration in ``/etc``. A link whose target is not below
    ``root`` either stays as it is.
    """
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and (target := path.readlink()).is_absolute():
                inside = root / target.relative_to("/")
                if inside.exists():
                    path.unlink()
                    path.symlink_to(os.path.relpath(inside, path.parent))


def main() -> int:
    """Fetch what the machine does not have. A failure is no error: that peer is skipped."""
    for program in ALL:
        try:
            print(f"{program.name}: {find(program) or fetch(program)}")
        except FetchError as error:
            print(f"no {program.name}, so its peer is skipped: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
