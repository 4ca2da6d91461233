"""Seats of one of several pools, taken by the library of a service in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.processes import eventually

from seatkeeper.client import (
    AsyncSeatClient,
    ClientConfig,
    InvalidArgument,
    NoSeatFree,
    PoolNotFound,
    SeatClient,
    UsageError,
)
from seatkeeper.testing import InMemoryService


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    with InMemoryService({"a": 1, "b": 1, "c": 1}) as service:
        yield service


@pytest.fixture(params=["process", "helper"])
async def client(
    service: InMemoryService, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncSeatClient]:
    config = ClientConfig(keeper=request.param)
    async with AsyncSeatClient(service.address, config=config, holder="anna") as client:
        yield client


async def held(client: AsyncSeatClient) -> dict[str, tuple[int, int]]:
    return {pool.spec.name: (pool.held, pool.queued) for pool in await client.pools.list()}


async def is_so(client: AsyncSeatClient, what: dict[str, tuple[int, int]]) -> bool:
    return await held(client) == what


NOTHING = {"a": (0, 0), "b": (0, 0), "c": (0, 0)}


async def test_the_first_that_is_free_is_held_in_the_block(client: AsyncSeatClient) -> None:
    async with client.one_of(["a", "b"], wait=20, token=True) as grant:
        assert grant.pool == "a"
        assert grant.token
        assert await held(client) == {"a": (1, 0), "b": (0, 0), "c": (0, 0)}
        async with client.one_of(["a", "b", "c"], wait=20) as second:
            assert second.pool == "b"
            assert await held(client) == {"a": (1, 0), "b": (1, 0), "c": (0, 0)}
    assert await held(client) == NOTHING


async def test_while_none_is_free_it_waits_in_each_and_gets_one(
    client: AsyncSeatClient,
) -> None:
    first, second = await client.acquire("a"), await client.acquire("b")
    waiting = asyncio.create_task(client.one_of(["a", "b"]).take())
    await eventually(lambda: is_so(client, {"a": (1, 1), "b": (1, 1), "c": (0, 0)}))
    await second.release()
    (grant,) = (await waiting).values()
    assert grant.pool == "b"
    assert await held(client) == {"a": (1, 0), "b": (1, 0), "c": (0, 0)}
    await first.release()
    assert await held(client) == {"a": (0, 0), "b": (1, 0), "c": (0, 0)}


async def test_a_later_one_is_not_granted_before_its_time(client: AsyncSeatClient) -> None:
    async with client.seat("a"):
        began = time.monotonic()
        async with client.one_of({"a": 0, "b": 1.2}, wait=60) as grant:
            assert grant.pool == "b"
            assert time.monotonic() - began >= 1.2
        waiting = asyncio.create_task(client.one_of({"a": 0, "b": 3600}).take())
        await eventually(lambda: is_so(client, {"a": (1, 1), "b": (0, 1), "c": (0, 0)}))
    assert [each.pool for each in (await waiting).values()] == ["a"]


async def test_many_at_once_get_one_each(client: AsyncSeatClient) -> None:
    """Three seats in three pools, and ten that want any of two: none gets two, and all are served."""
    most = 0

    async def use(*pools: str) -> str:
        nonlocal most
        async with client.one_of(pools, wait=60) as grant:
            most = max(most, sum(held for held, _ in (await held_now()).values()))
            return grant.pool

    async def held_now() -> dict[str, tuple[int, int]]:
        return await held(client)

    async with asyncio.timeout(90):
        used = await asyncio.gather(
            *(use(*pools) for pools in [("a", "b"), ("b", "a"), ("c", "b"), ("b", "c")] * 3)
        )
    assert set(used) <= {"a", "b", "c"}
    assert 1 <= most <= 3
    await eventually(lambda: is_so(client, NOTHING))


async def test_when_its_time_is_over_or_it_gives_up_it_waits_nowhere(
    client: AsyncSeatClient,
) -> None:
    async with client.seat("a"), client.seat("b"):
        with pytest.raises(NoSeatFree):
            await client.one_of(["a", "b"], wait=0.3).take()
        await eventually(lambda: is_so(client, {"a": (1, 0), "b": (1, 0), "c": (0, 0)}))
        waiting = asyncio.create_task(client.one_of(["a", "b"]).take())
        await eventually(lambda: is_so(client, {"a": (1, 1), "b": (1, 1), "c": (0, 0)}))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: is_so(client, {"a": (1, 0), "b": (1, 0), "c": (0, 0)}))


async def test_what_one_pool_refuses_fails_all_of_it(client: AsyncSeatClient) -> None:
    async with client.seat("a"):
        with pytest.raises(PoolNotFound):
            await client.one_of(["a", "none"]).take()
        await eventually(lambda: is_so(client, {"a": (1, 0), "b": (0, 0), "c": (0, 0)}))


async def test_a_session_that_is_lost_while_it_waits_is_no_end(
    client: AsyncSeatClient, service: InMemoryService
) -> None:
    async with AsyncSeatClient(service.address, holder="bert") as other:
        for pool in ("a", "b"):
            await other.acquire(pool)
        waiting = asyncio.create_task(client.one_of(["a", "b"], wait=60).take())
        await eventually(lambda: is_so(other, {"a": (1, 1), "b": (1, 1), "c": (0, 0)}))
        await asyncio.to_thread(service.lose_sessions)
        (grant,) = (await waiting).values()
        assert await held(other) == {
            "a": (int(grant.pool == "a"), 0),
            "b": (int(grant.pool == "b"), 0),
            "c": (0, 0),
        }


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        (["a"], "from 2 to 4"),
        (["a", "b", "c", "d", "e"], "from 2 to 4"),
        (["a", "a"], "from 2 to 4"),
        ("ab", "name several"),
        ({"a": 1, "b": 2}, "is the first"),
        ({"a": 0, "b": 3, "c": 2}, "none less than"),
        ({"a": 0, "b": -1}, "none less than"),
        ({"a": 0, "b": 90_000}, "at most a day"),
        ({"a": 0, "b": float("nan")}, "at most a day"),
        ({"a": 0, "b": "soon"}, "give seconds"),
    ],
)
async def test_what_cannot_be_one_is_refused(
    client: AsyncSeatClient, pools: Any, said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        client.one_of(pools)


async def test_it_cannot_do_without_a_wait(client: AsyncSeatClient) -> None:
    with pytest.raises(InvalidArgument, match="wait"):
        client.one_of(["a", "b"], wait=0)


def test_the_synchronous_client_has_it_too(service: InMemoryService) -> None:
    with SeatClient(service.address, holder="anna") as client:
        one_of = client.one_of(["a", "b"], wait=20)
        with one_of as grant:
            assert grant.pool == "a"
            with pytest.raises(UsageError, match="entered already"):
                one_of.__enter__()
        with client.seat("a"), one_of as grant:
            assert grant.pool == "b"
        assert all(not pool.held for pool in client.pools.list())
