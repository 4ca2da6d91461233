"""Seats of several pools, taken by the library of a service in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.processes import eventually, until

from seatkeeper.client import (
    AsyncGang,
    AsyncSeatClient,
    ClientConfig,
    HoldingState,
    InvalidArgument,
    NoSeatFree,
    PoolNotFound,
    SeatClient,
    SeatLost,
    SessionLost,
    TooManySeats,
    UsageError,
)
from seatkeeper.testing import InMemoryService


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    with InMemoryService({"a": 2, "b": 1, "c": 1}) as service:
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


NOTHING = {"a": (0, 0), "b": (0, 0), "c": (0, 0)}


async def test_all_are_held_in_the_block_and_none_after_it(client: AsyncSeatClient) -> None:
    async with client.gang({"a": 2, "b": 1}, wait=20, token=True) as grants:
        assert {pool: grant.pool for pool, grant in grants.items()} == {"a": "a", "b": "b"}
        assert {grant.seats for grant in grants.values()} == {1, 2}
        assert all(grant.token for grant in grants.values())
        assert await held(client) == {"a": (2, 0), "b": (1, 0), "c": (0, 0)}
    assert await held(client) == NOTHING


async def test_while_it_waits_nothing_is_held_and_it_is_served_in_the_end(
    client: AsyncSeatClient,
) -> None:
    async with client.seat("b"):
        waiting = asyncio.create_task(client.gang({"a": 1, "b": 1}).take())
        await eventually(lambda: waits_for(client, {"a": (0, 1), "b": (1, 1), "c": (0, 0)}))
        async with client.seat("a"):
            assert not waiting.done()
    grants = await waiting
    assert await held(client) == {"a": (1, 0), "b": (1, 0), "c": (0, 0)}
    for grant in grants.values():
        await grant.release()


async def waits_for(client: AsyncSeatClient, what: dict[str, tuple[int, int]]) -> bool:
    return await held(client) == what


async def test_of_two_that_want_the_same_each_is_served(client: AsyncSeatClient) -> None:
    """In other orders, again and again: neither waits for what the other has."""

    async def use(*pools: str) -> None:
        for _ in range(5):
            async with client.gang(dict.fromkeys(pools, 1), wait=30):
                await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(use("b", "c"), use("c", "b"), use("a", "b", "c"))
    assert await held(client) == NOTHING


async def test_when_its_time_is_over_it_waits_nowhere(client: AsyncSeatClient) -> None:
    async with client.seat("c"):
        with pytest.raises(NoSeatFree):
            await client.gang({"a": 1, "c": 1}, wait=0.3).take()
        await eventually(lambda: waits_for(client, {"a": (0, 0), "b": (0, 0), "c": (1, 0)}))


async def test_who_gives_up_waits_nowhere(client: AsyncSeatClient) -> None:
    async with client.seat("c"):
        waiting = asyncio.create_task(client.gang({"a": 1, "c": 1}).take())
        await eventually(lambda: waits_for(client, {"a": (0, 1), "b": (0, 0), "c": (1, 1)}))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: waits_for(client, {"a": (0, 0), "b": (0, 0), "c": (1, 0)}))


async def test_one_that_is_refused_takes_the_others_back(client: AsyncSeatClient) -> None:
    with pytest.raises(PoolNotFound):
        await client.gang({"a": 1, "none": 1}).take()
    await eventually(lambda: waits_for(client, NOTHING))


async def test_a_session_that_is_lost_while_it_waits_is_no_end(
    client: AsyncSeatClient, service: InMemoryService
) -> None:
    async with AsyncSeatClient(service.address, holder="bert") as other:
        grant = await other.acquire("b")
        waiting = asyncio.create_task(client.gang({"a": 1, "b": 1}, wait=60).take())
        await eventually(lambda: waits_for(other, {"a": (0, 1), "b": (1, 1), "c": (0, 0)}))
        await asyncio.to_thread(service.lose_sessions)
        grants = await waiting
        assert grants.keys() == {"a", "b"}
        assert grant.state is HoldingState.LOST


async def test_leaving_says_that_one_was_lost(
    client: AsyncSeatClient, service: InMemoryService
) -> None:
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_state(state: HoldingState) -> None:
        if state is HoldingState.LOST:
            loop.call_soon_threadsafe(lost.set)

    async def use() -> None:
        async with client.gang({"a": 1, "b": 1}, wait=20, on_state=on_state) as grants:
            await service.aio.lose(grants["a"])
            await lost.wait()
            assert grants["b"].state is HoldingState.SAFE

    with pytest.raises(SeatLost):
        await use()
    await eventually(lambda: waits_for(client, NOTHING))


async def test_one_gang_is_entered_once_at_a_time(client: AsyncSeatClient) -> None:
    gang = client.gang({"a": 1, "b": 1}, wait=20)
    async with gang:
        with pytest.raises(UsageError, match="entered already"):
            await gang.__aenter__()
    async with gang.another() as grants:
        assert len(grants) == 2


async def test_what_is_held_survives_that_a_node_goes_away(
    client: AsyncSeatClient, service: InMemoryService
) -> None:
    """It is found again on another stream, by a request that does not wait."""
    async with client.gang({"a": 1, "b": 1}, wait=20) as grants:
        await asyncio.to_thread(service.go_away)
        await eventually(lambda: client.state is not HoldingState.SAFE)
        await asyncio.to_thread(service.come_back)
        await eventually(lambda: client.state is HoldingState.SAFE)
        async with client.seat("c", wait=20):
            assert {grant.state for grant in grants.values()} == {HoldingState.SAFE}
    await eventually(lambda: waits_for(client, NOTHING))


async def test_seats_that_come_while_it_is_away_after_its_time_are_not_kept(
    client: AsyncSeatClient, service: InMemoryService
) -> None:
    async with AsyncSeatClient(service.address, holder="bert") as other:
        blocking = await other.acquire("c")
        waiting = asyncio.create_task(client.gang({"a": 1, "c": 1}, wait=1.0).take())
        await eventually(lambda: waits_for(other, {"a": (0, 1), "b": (0, 0), "c": (1, 1)}))
        await asyncio.to_thread(service.go_away)
        await asyncio.sleep(1.2)  # its wait is over meanwhile
        await asyncio.to_thread(service.come_back)
        await blocking.release()
        try:
            for grant in (await waiting).values():
                await grant.release()
        except NoSeatFree:
            pass  # it came too late to be granted
        await eventually(lambda: waits_for(client, NOTHING))


@pytest.mark.parametrize("turns", range(6))
async def test_cancelling_at_any_moment_leaves_nothing_held(
    client: AsyncSeatClient, turns: int
) -> None:
    """While it is asked for, as it is left, and again and again."""

    async def use() -> None:
        async with client.gang({"a": 1, "b": 1}, wait=20):
            pass

    for times in (1, 2, 5):
        task = asyncio.create_task(use())
        for _ in range(turns):
            await asyncio.sleep(0.003)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: waits_for(client, NOTHING))


async def test_cancelling_as_the_block_is_left_gives_everything_back(
    client: AsyncSeatClient,
) -> None:
    async def use() -> None:
        async with client.gang({"a": 1, "b": 1}, wait=20):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    await asyncio.gather(asyncio.create_task(use()), return_exceptions=True)
    await eventually(lambda: waits_for(client, NOTHING))


@pytest.mark.parametrize(
    ("seats", "terms", "field"),
    [
        ({"a": 1}, {}, "seats"),
        ({f"p{n}": 1 for n in range(9)}, {}, "seats"),
        (["a", "b"], {}, "seats"),
        ({"a": 1, "b": 0}, {}, "seats"),
        ({"a": 1, "": 1}, {}, "pool"),
        ({"a": 1, "b": 1}, {"wait": 0}, "wait"),
        ({"a": 1, "b": 1}, {"wait": -1}, "wait"),
        ({"a": 1, "b": 1}, {"labels": "x"}, "labels"),
    ],
)
async def test_what_cannot_be_one_is_refused_before_anything_is_asked(
    client: AsyncSeatClient, seats: Any, terms: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.gang(seats, **terms)
    assert caught.value.field == field
    with pytest.raises(TypeError, match="work_key"):
        client.gang({"a": 1, "b": 1}, work_key="k")  # type: ignore[call-arg]  # as a user might


def test_without_an_event_loop(service: InMemoryService) -> None:
    with SeatClient(service.address) as client:
        with client.gang({"a": 1, "b": 1}, wait=20) as grants:
            assert grants["a"].pool == "a"
            assert grants["b"].state is HoldingState.SAFE
            with pytest.raises(NoSeatFree), client.gang({"b": 1, "c": 1}, wait=0.2):
                pass
        assert [pool.held for pool in client.pools.list()] == [0, 0, 0]


def test_a_thread_that_waits_is_served(service: InMemoryService) -> None:
    with SeatClient(service.address) as client:
        entered = threading.Event()

        def work() -> None:
            with client.gang({"a": 1, "b": 1}, wait=60):
                entered.set()

        with client.seat("b"):
            thread = threading.Thread(target=work)
            thread.start()
            until(lambda: client.pools.get("b").queued == 1)
        thread.join(60)
        assert entered.is_set()


def test_entering_twice_takes_nothing_from_the_outer_block(service: InMemoryService) -> None:
    with SeatClient(service.address) as client:
        gang = client.gang({"a": 1, "b": 1}, wait=20)
        with gang as grants:
            with pytest.raises(UsageError, match="entered already"), gang:
                pass
            assert {grant.state for grant in grants.values()} == {HoldingState.SAFE}
            assert [pool.held for pool in client.pools.list()] == [1, 1, 0]
        assert [pool.held for pool in client.pools.list()] == [0, 0, 0]


def test_leaving_hides_no_error_of_the_block_where_its_client_is_closed(
    service: InMemoryService,
) -> None:
    client = SeatClient(service.address)

    def use() -> None:
        with client.gang({"a": 1, "b": 1}, wait=20):
            client.close()
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        use()
    until(lambda: service.held("a") == service.held("b") == 0)


class LosesSessions:
    """A keeper whose session is lost whenever something is asked, as ids of the past are refused."""

    def __init__(self) -> None:
        self.asked = 0

    def now(self) -> float:
        return time.monotonic()

    async def take(self, request: object) -> object:
        self.asked += 1
        raise SessionLost("as asked")


async def test_what_must_be_asked_anew_is_asked_with_pauses_until_its_time_is_over() -> None:
    keeper: Any = LosesSessions()
    with pytest.raises(SessionLost):
        await AsyncGang(keeper, {"a": 1, "b": 1}, wait=1.0).take()
    assert 2 <= keeper.asked <= 100


def test_what_is_wrong_names_its_pool() -> None:
    with InMemoryService({"a": 1, "b": 1}) as service, service.client() as client:
        with pytest.raises(TooManySeats, match=r"b: 3 seats asked of a pool of 1"):
            client.gang({"a": 1, "b": 3}, wait=5).__enter__()
        with pytest.raises(TooManySeats, match=r"b: 2 seats asked|a: 2 seats asked"):
            client.one_of(["a", "b"], seats=2, wait=5).__enter__()
        assert (service.held("a"), service.waiting("a")) == (0, 0)
