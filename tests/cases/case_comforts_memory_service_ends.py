"""A test that forgets to close what it made ends all the same, and gives its seats back."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

PROGRAM = """
from seatkeeper.client import SeatClient
from seatkeeper.testing.service import InMemoryService

service = InMemoryService({"p": 1})
service.start()
held = [service.client().acquire("p"), SeatClient.from_env().acquire("p")]
service.advance(60)
print("the end")
"""


def case(place: Place) -> None:
    place.start_node()
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "the end\n"), ended
    assert "Traceback" not in ended.stderr, ended.stderr[-600:]
    place.wait_until(lambda: place.held() == 0, what="the seat of the real service is free")
