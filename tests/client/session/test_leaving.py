"""Leaving a seat says what a commit would: whether the work was covered to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Literal

import pytest
from tests.client.programs import real_clock, wait_until

from seatkeeper.client import (
    AsyncSeatClient,
    ClientConfig,
    HoldingState,
    SeatClient,
    SeatLost,
    UsageError,
)
from seatkeeper.testing.service import InMemoryService

Keeper = Literal["helper", "process"]


@pytest.fixture(params=["helper", "process"])
def config(request: pytest.FixtureRequest) -> ClientConfig:
    return ClientConfig(ttl=timedelta(seconds=2), keeper=request.param)


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    with InMemoryService({"tensorrt": 4}) as service, real_clock():
        yield service


@pytest.fixture
def client(service: InMemoryService, config: ClientConfig) -> Iterator[SeatClient]:
    with SeatClient(service.address, config=config) as client:
        assert (client._async._session.kept is not None) is (config.keeper == "helper")
        yield client


def lose(service: InMemoryService, state: Callable[[], HoldingState]) -> None:
    """End the sessions, and wait until that has been noticed."""
    service.lose_sessions()
    wait_until(lambda: state() is HoldingState.LOST, "the loss is not noticed")


def test_leaving_a_lost_seat_raises(service: InMemoryService, client: SeatClient) -> None:
    with pytest.raises(SeatLost, match="without a seat"):  # noqa: SIM117 # what leaving does
        with client.seat("tensorrt") as grant:
            lose(service, lambda: grant.state)
    with client.seat("tensorrt"):
        assert service.held("tensorrt") == 1
    assert service.held("tensorrt") == 0


def test_leaving_raises_when_only_the_clock_knows(
    service: InMemoryService, client: SeatClient
) -> None:
    with pytest.raises(SeatLost, match="tensorrt"):  # noqa: PT012, SIM117 # what leaving does
        with client.seat("tensorrt") as grant:
            service.go_away()
            wait_until(lambda: grant.state is HoldingState.LOST, "the lease does not end")


def test_what_the_body_raised_goes_on_with_a_note(
    service: InMemoryService, client: SeatClient
) -> None:
    with pytest.raises(KeyError) as raised, client.seat("tensorrt") as grant:  # noqa: PT012 # as above
        lose(service, lambda: grant.state)
        raise KeyError("mine")
    assert "seat lost meanwhile" in "".join(raised.value.__notes__)


def test_check_false_does_not_raise(service: InMemoryService, client: SeatClient) -> None:
    with client.seat("tensorrt", check=False) as grant:
        lose(service, lambda: grant.state)


def test_a_seat_given_back_or_a_client_closed_inside_is_no_loss(
    service: InMemoryService, client: SeatClient
) -> None:
    with client.seat("tensorrt") as grant:
        grant.release()
        assert service.held("tensorrt") == 0
        service.lose_sessions()
    with client.seat("tensorrt"):
        assert service.held("tensorrt") == 1
        client.close()
    assert service.held("tensorrt") == 0


@pytest.mark.parametrize("check", [True, False])
def test_a_decorated_function_says_it_too(
    service: InMemoryService, client: SeatClient, check: bool
) -> None:
    states: list[Callable[[], HoldingState]] = [lambda: client.state]

    @client.seat("tensorrt", check=check)
    def work() -> int:
        lose(service, states[0])
        return 1

    @client.seat("tensorrt", check=check)
    async def work_async() -> int:
        await asyncio.to_thread(lose, service, states[0])
        return 1

    for run in (work, lambda: asyncio.run(work_async())):
        if check:
            with pytest.raises(SeatLost):
                run()
        else:
            assert run() == 1


async def test_leaving_async_raises_too(service: InMemoryService, config: ClientConfig) -> None:
    async with AsyncSeatClient(service.address, config=config) as client:

        @client.seat("tensorrt")
        async def work() -> None:
            await asyncio.to_thread(lose, service, lambda: client.state)

        with pytest.raises(SeatLost):
            await work()
        with pytest.raises(SeatLost):
            async with client.seat("tensorrt") as grant:
                await asyncio.to_thread(lose, service, lambda: grant.state)
        async with client.seat("tensorrt", check=False) as grant:
            await asyncio.to_thread(lose, service, lambda: grant.state)
        with pytest.raises(KeyError) as raised:  # noqa: PT012 # as above
            async with client.seat("tensorrt") as grant:
                await asyncio.to_thread(lose, service, lambda: grant.state)
                raise KeyError("mine")
        assert "seat lost meanwhile" in "".join(raised.value.__notes__)


def test_a_closed_clients_grants_are_not_believed_before_the_service_knows(
    service: InMemoryService, config: ClientConfig
) -> None:
    states: list[HoldingState] = []
    client = SeatClient(service.address, config=config)
    grant = client.acquire("tensorrt", on_state=lambda state: states.append(grant.state))
    client.close()
    assert grant.state is HoldingState.LOST
    assert states == [] or states[0] is HoldingState.LOST


def test_a_decorated_generator_holds_its_seat_while_it_runs(
    service: InMemoryService, client: SeatClient
) -> None:
    @client.seat("tensorrt")
    def steps() -> Iterator[int]:
        yield service.held("tensorrt")
        yield service.held("tensorrt")

    assert list(steps()) == [1, 1]
    assert service.held("tensorrt") == 0
    left_early = steps()
    assert next(left_early) == 1
    del left_early
    wait_until(lambda: service.held("tensorrt") == 0, "a generator that is left keeps its seat")


def test_an_object_whose_call_is_async_runs_under_its_seat(
    service: InMemoryService, client: SeatClient
) -> None:
    class Job:
        async def __call__(self) -> int:
            return service.held("tensorrt")

    decorated = client.seat("tensorrt")(Job())
    assert asyncio.run(_awaited(decorated())) == 1


def test_what_would_work_after_the_seat_is_given_back_is_refused(
    service: InMemoryService, client: SeatClient
) -> None:
    async def work() -> None:
        raise AssertionError("this ran")

    async def stream() -> AsyncIterator[int]:
        yield 1

    for late in (lambda: work(), lambda: (n for n in range(3)), lambda: stream()):
        with pytest.raises(UsageError, match="after the seats are given back"):
            client.seat("tensorrt")(late)()
        assert service.held("tensorrt") == 0
    with pytest.raises(UsageError, match="async generator"):
        client.seat("tensorrt")(stream)


async def _awaited(work: object) -> object:
    return await work  # type: ignore[misc]  # of the kind that the test asked for
