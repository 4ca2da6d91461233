"""A process that takes a seat and keeps it until it is killed: ``holder ADDRESS POOL TTL``."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from tests.cluster.clients import Client

from seatkeeper.client.ids import new_id


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
