"""The async client against a service on a real socket."""

from __future__ import annotations

import asyncio

import pytest
from tests.client.scripted import ScriptedService, eventually

from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.errors import NoSeatFree, SeatLost
from seatkeeper.client.holding import HoldingState


async def test_a_seat_is_held_inside_the_block_and_free_after_it(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    async with client.seat("tensorrt") as grant:
        assert service.held("tensorrt") == 1
        assert grant.state is HoldingState.SAFE
        assert grant.token.startswith(f"token-{grant.grant_id}")
        assert grant.fence == 1
    assert service.held("tensorrt") == 0
    assert grant.state is HoldingState.LOST
    with pytest.raises(SeatLost, match="was released"):
        grant.raise_if_lost()


async def test_whoever_does_not_wait_is_told_that_no_seat_is_free(
    client: AsyncSeatClient,
) -> None:
    async with client.seat("tensorrt", seats=2):
        with pytest.raises(NoSeatFree):
            await client.acquire("tensorrt", wait=0)


async def test_cancelling_a_waiting_request_leaves_the_queue(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    async with client.seat("tensorrt", seats=2):
        waiting = asyncio.create_task(client.acquire("tensorrt"))
        await eventually(lambda: len(service.tickets) == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: not service.tickets)
