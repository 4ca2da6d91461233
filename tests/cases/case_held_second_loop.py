"""One AsyncSeatClient in two event loops works, or says at once why not."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

SCRIPT = """
import asyncio, sys, threading
from seatkeeper.client import AsyncSeatClient, SeatError

client = AsyncSeatClient(sys.argv[1])

async def use():
    async with asyncio.timeout(20), client.seat("p", wait=10) as grant:
        print("holds", grant.fence)

def say(run):
    try:
        run()
    except SeatError as error:
        print("says", error)

asyncio.run(use())
say(lambda: asyncio.run(use()))
other = threading.Thread(target=say, args=(lambda: asyncio.run(use()),))
other.start()
other.join()
say(lambda: asyncio.run(client.close()))
"""


def case(place: Place) -> None:
    node = place.start_node(seats=4)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, node.address],
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stdout.count(b"\n") >= 3, ended.stdout
    assert place.held() == 0, "a seat is still held"
