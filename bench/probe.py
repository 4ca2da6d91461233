"""A client that has nothing to do with what is measured: renews its session, and says how long it took.

Run as a process of its own, so that it shares no event loop with the load: ``python -m bench.probe
ADDRESS``. Writes a line for each renewal: when it was sent, by the machine's monotonic clock, and
the seconds until it was answered. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

from bench.service import IN_PROCESS
from seatkeeper.client import AsyncSeatClient
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import seat_service_pb2

PAUSE = 0.01
"""Seconds between two renewals."""
Renewals = list[tuple[float, float]]
"""When each was sent, and how long it took, in seconds."""


async def main(addresses: str) -> None:
    """Renew until standard input ends."""
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    credentials = seat_service_pb2.SessionCredentials(
        session_id=new_id(), secret=secrets.token_bytes(32)
    )
    async with AsyncSeatClient(addresses, config=IN_PROCESS) as client:
        await client.seats.open_session(credentials, holder="probe")
        while not ended.done():
            sent = monotonic()
            await client.seats.renew(credentials)
            print(sent, monotonic() - sent, flush=True)
            await asyncio.sleep(PAUSE)
        await client.seats.close_session(credentials)


class Probe:
    """The probe as a process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._renewals: Renewals = []
        self._reader = asyncio.create_task(self._read())

    def between(self, began: float, ended: float) -> list[float]:
        """Return how long the renewals took that were sent between two moments."""
        return [took for sent, took in self._renewals if began <= sent < ended]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            sent, took = map(float, line.split())
            self._renewals.append((sent, took))

    async def stop(self) -> None:
        """End it in order; everything that it measured is known then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._reader
        await self._process.wait()


@asynccontextmanager
async def running_probe(addresses: Sequence[str]) -> AsyncIterator[Probe]:
    """Run the probe against nodes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.probe", ",".join(addresses)), stdin=PIPE, stdout=PIPE
    )
    probe = Probe(process)
    try:
        yield probe
    finally:
        await probe.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
