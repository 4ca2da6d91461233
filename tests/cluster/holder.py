"""A process that takes a seat and keeps it until it is killed: ``holder ADDRESS POOL TTL``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from subprocess import PIPE, Popen

from tests.cluster.clients import Client
from tests.tree import ROOT

from seatkeeper.core.ids import new_id


@asynccontextmanager
async def holder(address: str, pool: str, ttl: float) -> AsyncIterator[Popen[str]]:
    """Run such a process; it holds its seat when this begins."""
    command = [sys.executable, "-m", "tests.cluster.holder", address, pool, str(ttl)]
    process = await asyncio.to_thread(Popen, command, stdout=PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert line, "the holder did not get its seat"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def main(address: str, pool: str, ttl: float) -> None:
    """Hold a seat, renewing as a good client does."""
    client = Client(ttl=timedelta(seconds=ttl))
    async with client.attached(address):
        granted = await client.acquire(pool, new_id())
        print(granted.grant_id, flush=True)
        while True:
            await asyncio.sleep(ttl / 3)
            await client.renew()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
