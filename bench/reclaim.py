"""Measure how soon the seats of a client that was killed serve the next one.

A client in a process of its own holds every seat; another waits. The first is killed (SIGKILL), and the
time until the other is served is taken. A lease counts from its last renewal, so the time lies between
two thirds of the ttl and the ttl, plus what etcd takes to notice (it looks twice a second).
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from datetime import timedelta
from time import perf_counter

from bench.report import median, notify, parser, progress, run
from bench.service import IN_PROCESS, running_service
from seatkeeper.client import AsyncSeatClient, ClientConfig

POOL = "reclaim"
SEATS = 3


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--ttl", type=float, default=5.0)
    options.add_argument("--hold", metavar="ADDRESS", help="be the client that is killed")
    arguments = options.parse_args()
    if arguments.hold:
        await hold_forever(arguments.hold, arguments.ttl)
        return
    seconds = []
    async with (
        running_service() as service,
        AsyncSeatClient(service.addresses, config=IN_PROCESS) as client,
    ):
        await client.pools.create(POOL, seats=SEATS)
        for number in range(arguments.kills):
            seconds.append(await time_to_serve(client, service.addresses[0], arguments.ttl))
            progress(f"kill {number + 1} of {arguments.kills}: {seconds[-1]:.2f} s")
        left = (await client.pools.get(POOL)).held
    notify(
        {
            "kills": arguments.kills,
            "ttl_s": arguments.ttl,
            "reclaim_median_s": median(seconds),
            "reclaim_max_s": max(seconds),
            "bound_s": arguments.ttl + 2,
            "seats_left_behind": left,
        },
        arguments.json,
    )


async def time_to_serve(client: AsyncSeatClient, address: str, ttl: float) -> float:
    """Kill a client that holds every seat; return how long the next one then waits."""
    command = [sys.executable, "-m", "bench.reclaim", "--hold", address, "--ttl", str(ttl)]
    holder = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"holding\n"
    waiting = asyncio.create_task(client.acquire(POOL, seats=SEATS))
    await asyncio.sleep(ttl)  # at least one renewal passes, and the queue is not served
    assert not waiting.done()
    holder.kill()
    killed = perf_counter()
    grant = await waiting
    taken = perf_counter() - killed
    await grant.release()
    await holder.wait()
    return taken


async def hold_forever(address: str, ttl: float) -> None:
    """Take every seat, say so, and hold them."""
    config = ClientConfig(ttl=timedelta(seconds=ttl), keeper="process")
    async with AsyncSeatClient(address, config=config) as client:
        await client.acquire(POOL, seats=SEATS)
        print("holding", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(main)
