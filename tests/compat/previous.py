"""The two versions that run side by side: this tree, and the previous release from its history.

``previous-release.txt`` names a commit. `previous_release` takes that tree out of git, generates its
protocol with its own script, and makes a Python environment in which its packages stand in the place
of ours. Dependencies are those of the environment that this runs in, so nothing is downloaded. All of
it is kept under ``.tools/compat``, and made once.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.tree import ROOT

COMMIT_FILE = Path(__file__).with_name("previous-release.txt")
CACHE = ROOT / ".tools" / "compat"
SECONDS_MAX = 120.0
"""Longest that one step of building may take."""
_PATH_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HistoryMissing(Exception):
    """The previous release cannot be taken from here; the message says why, and what helps."""


@dataclass(frozen=True)
class Release:
    """One version of Seatkeeper that can be run."""

    name: str
    """``old`` or ``new``."""
    python: Path
    """An interpreter that imports this version, and no other."""
    version: str
    """What its nodes say that they are."""
    commit: str = ""
    """Empty: the tree as it is."""

    @property
    def program(self) -> Sequence[str]:
        """What runs its command line."""
        return (*self.interpreter, "-m", "seatkeeper.cli")

    @property
    def interpreter(self) -> Sequence[str]:
        """What runs a file with it. Neither a variable nor the present folder changes its path."""
        unset = [word for name in _PATH_VARIABLES for word in ("-u", name)]
        return ("env", *unset, str(self.python), "-P")


def this_tree() -> Release:
    """Return the version that is tested."""
    return Release("new", Path(sys.executable), version("seatkeeper"))


def previous_commit(file: Path = COMMIT_FILE) -> str:
    """Return the commit of the previous release. Raises ``HistoryMissing``."""
    text = file.read_text().strip()
    if not _COMMIT.fullmatch(text):
        raise HistoryMissing(f"{file.name} must hold one full commit hash, not {text[:60]!r}")
    return text


def previous_release(root: Path = ROOT, cache: Path = CACHE, commit: str = "") -> Release:
    """Return the previous release, built if need be. Raises ``HistoryMissing``.

    ``root`` is the checkout whose history has it; ``commit`` replaces the one that the file names.
    """
    commit = commit or previous_commit()
    check_history(root, commit)
    folder = cache / f"{commit[:12]}-{sysconfig.get_config_var('SOABI')}"
    if not (folder / "built").exists():
        _build(root, commit, folder)
    _write_path_file(folder)
    number = (folder / "built").read_text().strip()
    return Release("old", folder / "venv" / "bin" / "python", number, commit)


def check_history(root: Path, commit: str) -> None:
    """Raise ``HistoryMissing`` where git cannot give out the commit."""
    why = "the previous release is taken from the history of the repository"
    if shutil.which("git") is None:
        raise HistoryMissing(f"git is not installed; {why}")
    if not (root / ".git").exists():
        raise HistoryMissing(f"{root} is no git checkout; {why}: clone it, whole")
    found = _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip()
        shallow = _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        help_ = "; `git fetch --unshallow` brings it" if shallow else ""
        raise HistoryMissing(f"commit {commit[:12]} is not in this checkout{help_} ({said})")


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, check=False, timeout=SECONDS_MAX
    )


def _build(root: Path, commit: str, folder: Path) -> None:
    """Make ``folder``: whole, or not at all, also when several processes want it at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        archive = _git(root, "archive", "--format=tar", commit)
        if archive.returncode:
            raise HistoryMissing(archive.stderr.decode(errors="replace").strip())
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
            # Python 3.11.3 and older have no such filter; 3.12 and newer warn where none is set.
            tree.extraction_filter = getattr(tarfile, "data_filter", None)
            tree.extractall(made / "tree")
        _run([sys.executable, "proto/hatch_build.py"], cwd=made / "tree")
        _run([sys.executable, "-m", "venv", "--without-pip", str(made / "venv")], cwd=made)
        project = tomllib.loads((made / "tree" / "pyproject.toml").read_text())["project"]
        number = f"{project['version']}+compat.{commit[:12]}"
        _write_metadata(made, number)
        (made / "built").write_text(f"{number}\n")
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "built").exists():
                raise  # else another process was faster
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _run(command: Sequence[str], *, cwd: Path) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=SECONDS_MAX
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")


def _site_packages(folder: Path) -> Path:
    (found,) = (folder / "venv" / "lib").glob("python*/site-packages")
    return found


def _write_metadata(folder: Path, number: str) -> None:
    """Give it a version of its own, so that a node says which it is."""
    about = _site_packages(folder) / "seatkeeper-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: seatkeeper\nVersion: {number}\n"
    )


def _write_path_file(folder: Path) -> None:
    """Put the old packages, then the dependencies of this environment, on the path.

    Path files of this environment are not read there, so an editable installation of ours is not
    on it.
    """
    roots = sorted(found.parent for found in (folder / "tree").glob("*/seatkeeper"))
    dependencies = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    lines = [*map(str, roots), *dependencies]
    file = _site_packages(folder) / "release.pth"
    text = "".join(f"{line}\n" for line in lines)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
