"""The progress of one build, for a client who may go at any moment."""

from __future__ import annotations

import asyncio

import pytest

from seatkeeper.agent.progress_feed import ProgressFeed
from seatkeeper.builder.progress import Progress
from seatkeeper.v1 import build_service_pb2 as pb

STEPS_OF_THE_LOOP = 6
"""More than an update takes to arrive."""


@pytest.mark.parametrize("steps", range(STEPS_OF_THE_LOOP))
async def test_a_client_that_leaves_during_an_update_ends_the_feed(steps: int) -> None:
    feed = ProgressFeed()
    reported = asyncio.Event()

    async def read() -> None:
        async for _ in feed.messages():
            reported.set()

    reading = asyncio.create_task(read())
    await reported.wait()
    await asyncio.sleep(0)
    feed.notify(Progress(phase=pb.BUILD_PHASE_BUILDING))
    for _ in range(steps):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading}, timeout=0.5)
    gone = reading.cancelled()
    feed.close()
    await asyncio.gather(reading, return_exceptions=True)
    assert gone
