"""A process that holds a seat forks children of all kinds; its seat stays, and theirs work."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

SCRIPT = """
import asyncio, os, subprocess, sys, time
from datetime import timedelta
from seatkeeper.client import AsyncSeatClient, ClientConfig, SeatClient

ADDRESS = sys.argv[1]

def sync():
    with SeatClient(ADDRESS) as mine, mine.seat("p", wait=30):
        pass

def loop():
    async def main():
        async with AsyncSeatClient(ADDRESS) as mine, mine.seat("p", wait=30):
            pass
    asyncio.run(main())

def idle():
    time.sleep(1)

with SeatClient(ADDRESS, config=ClientConfig(ttl=timedelta(seconds=2))) as client:
    with client.seat("p") as grant:
        for child in (sync, loop, idle, sync, loop, client.close):
            pid = os.fork()
            if pid == 0:
                child()
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code == 0, f"a child ended with {code}"
        subprocess.run(["sleep", "1"], preexec_fn=lambda: None, check=True)
        time.sleep(3)
        assert grant.state.value == "safe", grant.state
"""


def case(place: Place) -> None:
    node = place.start_node(seats=4)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, node.address],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert place.held() == 0, "a seat is still held"
