"""The client in JavaScript, made ready to run where this machine has Node.js and npm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.tree import ROOT

HERE = Path(__file__).parent / "javascript"
PROTO = ROOT / "proto"
INSTALL_SECONDS = 120


class NotHere(Exception):
    """This machine cannot run it; says why."""


def ready(folder: Path) -> list[str]:
    """Copy the client below ``folder``, install what it needs there; return its driver's command.

    Nothing is installed into the source tree. Raises `NotHere`.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotHere("there is no node or npm on PATH")
    place = folder / "tests" / "conformance" / "javascript"
    shutil.copytree(HERE, place, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "proto").symlink_to(PROTO)
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    # Where no registry can be reached, npm would wait for over a minute between its attempts.
    command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    command += ["--fetch-retry-maxtimeout=2000"]
    try:
        done = subprocess.run(
            command, cwd=place, capture_output=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotHere("npm install did not end in time") from None
    if done.returncode != 0:
        raise NotHere(f"npm install failed: {done.stderr.decode(errors='replace')[-500:]}")
    return [node, str(place / "driver.mjs")]
