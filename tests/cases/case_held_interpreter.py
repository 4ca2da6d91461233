"""Native code that holds the interpreter for longer than the ttl does not lose the seat."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

SCRIPT = """
import asyncio, ctypes, sys, time
from datetime import timedelta
from seatkeeper.client import AsyncSeatClient, ClientConfig, SeatClient

config = ClientConfig(ttl=timedelta(seconds=5))
with SeatClient(sys.argv[1], config=config) as client, client.seat("p") as grant:
    ctypes.PyDLL(None).sleep(13)
    assert grant.state.value == "safe", grant.state
    grant.raise_if_lost()

async def main():
    async with AsyncSeatClient(sys.argv[1], config=config) as client, client.seat("p") as grant:
        time.sleep(13)
        assert grant.state.value == "safe", grant.state

asyncio.run(main())
"""


def case(place: Place) -> None:
    node = place.start_node()
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, node.address],
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert place.held() == 0, "the seat is still held"
