"""Seats that were lost with their session, and are taken again, of a service in memory."""

from __future__ import annotations

import asyncio

import pytest
from tests.processes import eventually, until

from seatkeeper.client import ClientConfig, HoldingState, UsageError
from seatkeeper.client.admin.stays import parse_stay
from seatkeeper.testing import InMemoryService

KEPT = "resurrection=60"


@pytest.mark.parametrize("keeper", ["process", "helper"])
async def test_the_same_grant_comes_back_before_those_who_wait(keeper: str) -> None:
    with InMemoryService({"a": 1}) as service:
        config = ClientConfig(keeper=keeper)  # type: ignore[arg-type]  # one of the two
        async with (
            service.async_client(config=config) as client,
            service.async_client() as other,
        ):
            await client.pools.update("a", stay=parse_stay(KEPT))
            grant = await client.acquire("a", seats=1, priority=3)
            waits = asyncio.create_task(other.acquire("a", priority=9))
            await eventually(lambda: service.waiting("a") == 1)
            await asyncio.to_thread(service.lose_sessions)
            await eventually(lambda: grant.state is HoldingState.LOST)
            back = await client.take_again(grant)
            assert (back.grant_id, back.fence) == (grant.grant_id, grant.fence + 1)
            assert service.held("a") == 1
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)
            # And once more: what is taken again can be lost again.
            await asyncio.to_thread(service.lose_sessions)
            await eventually(lambda: back.state is HoldingState.LOST)
            assert (await client.take_again(back)).grant_id == grant.grant_id


def test_where_nothing_is_kept_it_is_a_new_request() -> None:
    with InMemoryService({"a": 1}) as service, service.client() as client:
        grant = client.acquire("a")
        service.lose_sessions()
        until(lambda: grant.state is HoldingState.LOST)
        back = client.take_again(grant, wait=30)
        assert back.fence > grant.fence
        back.release()
        with pytest.raises(UsageError, match="not lost"):
            client.take_again(back)


def test_what_is_held_is_not_taken_again() -> None:
    with InMemoryService({"a": 1}) as service, service.client() as client:
        grant = client.acquire("a")
        with pytest.raises(UsageError, match="not lost"):
            client.take_again(grant)
        grant.release()
