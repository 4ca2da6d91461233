"""Run tests in the surroundings that they are run in elsewhere: ``python -m tests.environments``.

CI runners, cron and other people's machines differ from a developer's terminal: signals that a parent
ignores, no terminal, another locale, a web proxy in the environment, a user who is not root. Each
environment runs the same tests (the quick ones, or those that are named behind ``--``), one
environment after the other. A line each, and at the end one JSON object; exit code 1 when one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.tree import PORTIONS, ROOT

QUICK: Final = ("tests/unit", "tests/client", "tests/cli", "tests/builder")
NOT_COPIED: Final = ("__pycache__", ".venv*", ".tools", ".git", ".*_cache", ".hypothesis")
SECONDS_MAX: Final = 3600.0
PROXY: Final = "http://127.0.0.1:9"
"""The port that discards: nothing listens there."""
UID: Final = 54_321
"""A user whom no machine knows by a name."""
SHOWN_MAX: Final = 40
PROXIES: Final = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Environment:
    """A place where tests are run."""

    name: str
    what: str
    before: tuple[str, ...] = ()
    """Put before the command."""
    variables: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Variables that are not there."""
    only_when_named: bool = False
    """Not among those that are run when none is named: some tests cannot say what they want there."""
    as_user: bool = False
    """As an ordinary user, in a copy of the tree that is that user's own."""


ENVIRONMENTS: Final = (
    Environment(
        "sigint_ignored",
        "started by a parent that ignores SIGINT, SIGQUIT and SIGHUP, as nohup, cron and `make &` do",
        before=("sh", "-c", "trap '' INT QUIT HUP; exec \"$@\"", "sh"),
    ),
    Environment(
        "no_terminal",
        "without a terminal, with stdin closed",
        before=("setsid", "--wait", "sh", "-c", 'exec "$@" <&-', "sh"),
        without=("TERM",),
    ),
    Environment("c_locale", "under LC_ALL=C", variables={"LC_ALL": "C"}, without=("LANG",)),
    Environment(
        "no_utf8",
        "in a locale that knows ASCII alone, and with Python's UTF-8 mode off",
        variables={"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        without=("LANG",),
        only_when_named=True,  # a test there cannot start a program with a name that is not ASCII
    ),
    Environment(
        "web_proxy",
        "with a web proxy in the environment that does not answer",
        variables=dict.fromkeys(PROXIES, PROXY),
        without=("no_proxy", "NO_PROXY"),
    ),
    Environment(
        "ordinary_user", "as a user who is not root, in a tree of its own", as_user=True
    ),
)


class CannotRunError(Exception):
    """An environment cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What came of one environment."""

    environment: Environment
    state: str
    """``pass``, ``FAIL`` or ``skip``."""
    seconds: float
    said: str
    failed: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests in every environment, or in those that are named."""
    names = [environment.name for environment in ENVIRONMENTS]
    parser = argparse.ArgumentParser(prog="python -m tests.environments")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--tests", default=" ".join(QUICK), help="arguments of pytest")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names):
        print(f"no environment is named {unknown.pop()}: {', '.join(names)}", file=sys.stderr)
        return 2
    outcomes = []
    for environment in ENVIRONMENTS:
        if environment.name in options.names or not (
            options.names or environment.only_when_named
        ):
            outcomes.append(run(environment, options.tests.split()))
            notify(outcomes[-1])
    states = [outcome.state for outcome in outcomes]
    summary = {
        "environments": len(states) - states.count("skip"),
        "failed": states.count("FAIL"),
        "skipped": states.count("skip"),
        "failed_tests": sum(len(outcome.failed) for outcome in outcomes),
    }
    print(json.dumps(summary), flush=True)
    return 1 if summary["failed"] else 0


def notify(outcome: Outcome) -> None:
    """Print a line for people, and the tests that failed."""
    name, seconds = outcome.environment.name, outcome.seconds
    print(f"{outcome.state}  {name:15} {seconds:6.0f} s   {outcome.said}", flush=True)
    for test in outcome.failed[:SHOWN_MAX]:
        print(f"      {test}", flush=True)


def run(environment: Environment, tests: Sequence[str]) -> Outcome:
    """Run the tests in one environment."""
    began = time.monotonic()
    try:
        with placed(environment) as (tree, python, before, variables):
            done = subprocess.run(
                [*before, *environment.before, str(python), "-m", "pytest", "-q", *tests],
                cwd=tree,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SECONDS_MAX,
                check=False,
            )
    except CannotRunError as why:
        return Outcome(environment, "skip", time.monotonic() - began, str(why))
    text = done.stdout.decode(errors="replace")
    failed = tuple(re.findall(r"^(?:FAILED|ERROR) (.*)", text, re.MULTILINE))
    last = (text.strip().splitlines() or ["it said nothing"])[-1].strip("= ")
    state = "pass" if done.returncode == 0 else "FAIL"
    if state == "FAIL" and not failed:
        failed = tuple(text.strip().splitlines()[-8:])
    return Outcome(environment, state, time.monotonic() - began, last, failed)


Place = tuple[Path, Path, list[str], dict[str, str]]
"""The tree, its Python, what goes before every command, and the variables."""


@contextmanager
def placed(environment: Environment) -> Iterator[Place]:
    """Make the place of an environment, and remove it afterwards."""
    variables = {
        name: value for name, value in os.environ.items() if name not in environment.without
    }
    variables |= environment.variables
    if not environment.as_user:
        yield ROOT, Path(sys.executable), [], variables
        return
    if os.geteuid() != 0:
        raise CannotRunError("these tests are run by an ordinary user already")
    if shutil.which("setpriv") is None:
        raise CannotRunError("needs setpriv, of util-linux")
    with tempfile.TemporaryDirectory(prefix="seatkeeper-user-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        tree = home / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        (home / "tmp").mkdir()
        python = make_python(tree / ".venv")
        if (ROOT / ".tools").is_dir():
            (tree / ".tools").symlink_to(ROOT / ".tools")
        _give(home)
        variables |= {"HOME": folder, "TMPDIR": str(home / "tmp"), "USER": "", "LOGNAME": ""}
        variables["PATH"] = os.pathsep.join([str(python.parent), "/usr/bin", "/bin"])
        before = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        yield tree, python, before, variables


def make_python(folder: Path) -> Path:
    """Make a virtual environment for the tree around it, with what is installed in ours."""
    base = _readable_python()
    subprocess.run([base, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    paths = [*(str(folder.parent / part) for part in PORTIONS), *ours]
    (site / "tree.pth").write_text("\n".join(paths) + "\n")
    script = folder / "bin" / "seatkeeper"
    script.write_text(
        f"#!{python}\nimport sys\nfrom seatkeeper.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return python


def _readable_python() -> Path:
    """Return this Python, or one of the same version, that everybody may run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    ours = Path(sys.executable).resolve()
    for candidate in (ours, Path("/usr/bin") / version, Path("/usr/local/bin") / version):
        if candidate.exists() and is_for_everybody(candidate):
            return candidate
    raise CannotRunError(f"no {version} that other users may run")


def is_for_everybody(path: Path) -> bool:
    """Return whether every user may run a program."""
    path = path.resolve()
    return all(
        each.stat().st_mode & stat.S_IXOTH
        for each in (path, *path.parents)
        if each != Path("/")
    )


def _give(folder: Path) -> None:
    """Make everything in ``folder`` the ordinary user's."""
    os.chown(folder, UID, UID)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, UID, UID, follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main())
