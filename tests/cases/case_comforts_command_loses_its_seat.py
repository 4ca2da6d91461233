"""A test moves the clock, and `run` of another process stops its command: exit code 76."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import SCRIPT, Place, needs, runs

PROGRAM = """
import os, subprocess, sys, time
from seatkeeper.testing.service import InMemoryService

command, note = sys.argv[1:]
with InMemoryService({"p": 1}) as service:
    run = subprocess.Popen(
        [command, "run", "--pool", "p", "--", "sh", "-c", f"echo $$ > {note}; exec sleep 600"],
        env=os.environ | service.environment, stderr=subprocess.DEVNULL,
    )
    while not (os.path.exists(note) and open(note).read().strip()):
        assert run.poll() is None, run.poll()
        time.sleep(0.1)
    assert service.held("p") == 1
    service.advance(3600)
    assert service.held("p") == 0
    print(run.wait(60))
"""


def case(place: Place) -> None:
    needs("prometheus_client", extra="'.[server]'")
    note = place.folder / "pid"
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, SCRIPT, note],
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.stdout == "76\n", ended
    place.wait_until(lambda: not runs(int(note.read_text())), what="the command has ended")
