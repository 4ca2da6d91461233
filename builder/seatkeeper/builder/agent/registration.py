"""Keeps the agent known for as long as it runs."""

from __future__ import annotations

import asyncio
import logging

from seatkeeper.client import AsyncSeatClient
from seatkeeper.client.errors import AlreadyExists, SeatError
from seatkeeper.v1 import build_service_pb2

logger = logging.getLogger(__name__)

INTERVAL = 3.0
"""Seconds between two registrations. Each is one read where nothing has changed."""


async def keep_registered(client: AsyncSeatClient, agent: build_service_pb2.AgentInfo) -> None:
    """Register again and again, for ever; cancel to stop.

    The registration lives as long as the client's session. Should that be lost, the next one is
    made under the new session, once the old one has ended.
    """
    while True:
        await asyncio.sleep(INTERVAL)
        try:
            await client.engines.register_agent(agent)
        except AlreadyExists:
            logger.info("the agent's last session has not ended yet")
        except SeatError as error:
            logger.warning("the agent is not registered", extra={"error": str(error)})
