"""A program is killed whose children hold all its sockets open: its seat is free at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.cases.place import Place

SCRIPT = """
import ctypes, sys, time
from datetime import timedelta
from seatkeeper.client import ClientConfig, SeatClient

libc = ctypes.PyDLL(None)
with SeatClient(sys.argv[1], config=ClientConfig(ttl=timedelta(minutes=10))) as client:
    client.acquire("p")
    child = libc.fork()  # by C code: no hook of Python's runs
    if child == 0:
        libc.sleep(120)
    print(child, flush=True)
    time.sleep(120)
"""


def case(place: Place) -> None:
    node = place.start_node()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, node.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        try:
            assert place.held() == 1
            program.kill()
            place.wait_until(lambda: place.held() == 0, what="the seat to be free")
        finally:
            os.kill(child, signal.SIGKILL)
