"""Makes the agent known, and keeps it known for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from seatkeeper.agent.places import Places
from seatkeeper.client import AsyncSeatClient
from seatkeeper.core.errors import AlreadyExists, SeatError, SessionLost
from seatkeeper.v1 import build_service_pb2

logger = logging.getLogger(__name__)

INTERVAL = 3.0
"""Seconds between two registrations. Each is one read where nothing has changed."""
INTERVAL_MIN = 1.0
"""Least seconds between two of them, however often the load changes."""
TRY_AGAIN = 0.5
"""Seconds until an agent whose name is not free yet asks for it again."""


async def register(
    client: AsyncSeatClient, agent: build_service_pb2.AgentInfo, timeout: float
) -> None:
    """Register for the first time, waiting up to ``timeout`` seconds for the name to be free.

    An agent that was killed could not close its session, which keeps the name until its lease
    runs out: the next run under that name waits. Raises ``AlreadyExists`` when it is not free by
    then, because another agent lives under it, and another ``SeatError`` at once.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    waiting = False
    while True:
        try:
            await client.engines.register_agent(agent)
        except (AlreadyExists, SessionLost) as error:
            if clock() + TRY_AGAIN > deadline:
                raise
            if not waiting:
                hint = "an earlier session of this agent has not ended"
                about = {"agent_id": agent.agent_id, "error": str(error), "hint": hint}
                logger.warning("registration_waiting", extra=about)
                waiting = True
            await asyncio.sleep(TRY_AGAIN)
        else:
            return


async def keep_registered(
    client: AsyncSeatClient, agent: build_service_pb2.AgentInfo, places: Places
) -> None:
    """Register again and again, and soon after the load has changed; cancel to stop.

    The registration lives as long as the client's session. Should that be lost, the next one is
    made under the new session, once the old one has ended. An agent that is asked to drain does.
    """
    while True:
        await asyncio.sleep(INTERVAL_MIN)
        with suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL - INTERVAL_MIN):
                await places.changed.wait()
        places.changed.clear()
        places.describe(agent)
        try:
            if await client.engines.register_agent(agent) and not places.draining:
                logger.info("drain_started", extra={"agent_id": agent.agent_id})
                places.drain()
        except AlreadyExists:
            hint = "an earlier session of this agent has not ended"
            about = {"agent_id": agent.agent_id, "hint": hint}
            logger.info("registration_waiting", extra=about)
        except SeatError as error:
            about = {"agent_id": agent.agent_id, "error": str(error)}
            logger.warning("registration_failed", extra=about)
