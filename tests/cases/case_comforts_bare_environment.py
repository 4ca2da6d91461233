"""With no variable at all, no home and a user of no name, a seat is taken and given back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cases.place import SCRIPT, Place
from tests.environments import is_for_everybody


def case(place: Place) -> None:
    node = place.start_node()
    command: list[str | Path] = [SCRIPT, "run", "--nodes", node.address, "--pool", "p", "--"]
    if os.geteuid() == 0 and is_for_everybody(Path(sys.executable)):
        # As a user whom no machine knows by a name.
        command = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *command]
    for variables in ({}, {"HOME": "/nonexistent", "TERM": "no-such-terminal", "COLUMNS": "1"}):
        ended = subprocess.run(
            [*command, "/bin/sh", "-c", "echo ran; exit 3"],
            env=variables,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (3, b"ran\n"), f"{variables}: {ended}"
        assert b"Traceback" not in ended.stderr, ended.stderr[-300:]
    assert place.held() == 0, "a seat is still held"
