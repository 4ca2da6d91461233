"""One async client in several event loops: it works, or says at once why not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.client.programs import real_clock, wait_until

from seatkeeper.client import AsyncSeatClient, ClientConfig, HoldingState, OtherLoop
from seatkeeper.testing.service import InMemoryService

IN_PROCESS = ClientConfig(keeper="process")


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    with InMemoryService({"tensorrt": 4}) as service, real_clock():
        yield service


async def use(client: AsyncSeatClient) -> int:
    async with asyncio.timeout(30):
        await client.pools.get("tensorrt")
        async with client.seat("tensorrt", wait=10) as grant:
            assert grant.state is HoldingState.SAFE
            return grant.fence


def test_one_client_serves_one_loop_after_another(service: InMemoryService) -> None:
    client = AsyncSeatClient(service.address)
    assert client._session.kept is not None
    assert asyncio.run(use(client)) < asyncio.run(use(client))
    asyncio.run(client.close())
    assert service.held("tensorrt") == 0


def test_a_grant_of_one_loop_is_held_and_given_back_in_another(
    service: InMemoryService,
) -> None:
    client = AsyncSeatClient(service.address)

    async def take() -> object:
        return await client.acquire("tensorrt")

    grant = asyncio.run(take())
    assert service.held("tensorrt") == 1

    async def give_back() -> None:
        await grant.release()  # type: ignore[attr-defined]  # a synchronous name for both kinds of grant
        await client.close()

    asyncio.run(give_back())
    assert service.held("tensorrt") == 0


def test_lingering_seats_end_although_their_loop_is_gone(service: InMemoryService) -> None:
    config = ClientConfig(linger=timedelta(seconds=0.2))
    client = AsyncSeatClient(service.address, config=config)
    asyncio.run(use(client))

    async def use_again() -> None:
        await use(client)
        deadline = asyncio.get_running_loop().time() + 30
        while service.held("tensorrt"):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
        await client.close()

    asyncio.run(use_again())


class OtherThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, client: AsyncSeatClient) -> int:
        return asyncio.run_coroutine_threadsafe(use(client), self.loop).result(60)

    def stop(self, *, close: bool = True) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        if close:
            self.loop.close()


@pytest.fixture
def other() -> Iterator[OtherThread]:
    other = OtherThread()
    yield other
    if other.loop.is_running():
        other.stop()
    elif not other.loop.is_closed():
        # What was left to do there may be done now.
        other.loop.run_until_complete(asyncio.sleep(0))
        other.loop.close()


def test_one_client_serves_two_loops_at_once(
    service: InMemoryService, other: OtherThread
) -> None:
    client = AsyncSeatClient(service.address)
    other.run(client)

    async def both() -> None:
        theirs = asyncio.run_coroutine_threadsafe(use(client), other.loop)
        await asyncio.gather(use(client), use(client), asyncio.wrap_future(theirs))
        await client.close()

    asyncio.run(both())
    assert service.held("tensorrt") == 0


def test_in_process_another_loop_is_refused_at_once(
    service: InMemoryService, other: OtherThread
) -> None:
    client = AsyncSeatClient(service.address, config=IN_PROCESS)
    other.run(client)
    with pytest.raises(OtherLoop):
        asyncio.run(use(client))
    with pytest.raises(OtherLoop):
        asyncio.run(_acquire(client))
    other.run(client)
    asyncio.run(client.close())
    wait_until(lambda: service.held("tensorrt") == 0, "the seat stays held")


async def _acquire(client: AsyncSeatClient) -> None:
    await client.acquire("tensorrt")


@pytest.mark.parametrize("close", [True, False])
def test_in_process_closing_in_another_loop_frees_the_seats(
    service: InMemoryService, other: OtherThread, close: bool
) -> None:
    client = AsyncSeatClient(service.address, config=IN_PROCESS)
    asyncio.run_coroutine_threadsafe(_acquire(client), other.loop).result(60)
    other.stop(close=False)
    del close

    async def end() -> None:
        async with asyncio.timeout(30):
            await client.close()

    asyncio.run(end())
    assert service.held("tensorrt") == 0
