"""The end of work whose seat was lost meanwhile raises SeatLost, as a failed commit would."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

SCRIPT = """
import sys, time
from datetime import timedelta
from seatkeeper.client import ClientConfig, SeatClient, SeatLost

config = ClientConfig(ttl=timedelta(seconds=2))
with SeatClient(sys.argv[1], config=config) as client:

    @client.seat("p")
    def work():
        print("holds", flush=True)
        sys.stdin.readline()
        time.sleep(4)

    try:
        work()
    except SeatLost as error:
        print("says", error, flush=True)
"""


def case(place: Place) -> None:
    node = place.start_node()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, node.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == b"holds\n"
            node.pause()
            said, _ = program.communicate(b"\n", timeout=90)
            assert said.startswith(b"says"), f"it ended in silence: {said!r}"
        finally:
            program.kill()
            node.resume()
