"""The async client against a well-behaved service on a real socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.client.fakes import FakeClock
from tests.client.scripted import ScriptedNode, ScriptedService, eventually

from seatkeeper.client.aio import AsyncSeatClient, default_holder
from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.grants import AsyncGrant
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.requests import QueuePosition
from seatkeeper.core.errors import (
    ClientClosed,
    InvalidArgument,
    NoSeatFree,
    PoolNotFound,
    SeatLost,
    TooManySeats,
    UsageError,
)


def state_of(grant: AsyncGrant) -> HoldingState:
    # A function, so that mypy does not take one reading for the next.
    return grant.state


@pytest.fixture(params=["process", "helper"])
async def client(
    node: ScriptedNode, clock: FakeClock, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncSeatClient]:
    """A client that knows one node, and keeps its session itself, or has a helper do it."""
    async with AsyncSeatClient(
        node.address,
        holder="alice@host",
        project="cv",
        clock=clock if request.param == "process" else None,
    ) as client:
        yield client
        node.resume()


async def test_a_seat_is_held_inside_the_block_and_free_after_it(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    async with client.seat("tensorrt", token=True) as grant:
        assert service.held("tensorrt") == 1
        assert state_of(grant) is HoldingState.SAFE
        assert grant.token.startswith(f"token-{grant.grant_id}")
        assert (grant.fence, grant.pool, grant.seats) == (1, "tensorrt", 1)
        assert grant.granted_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert service.held("tensorrt") == 0
    assert state_of(grant) is HoldingState.LOST
    with pytest.raises(SeatLost, match="was released"):
        grant.raise_if_lost()
    with pytest.raises(SeatLost):
        _ = grant.token


async def test_the_service_receives_holder_and_project(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    async with client.seat("tensorrt", project="nlp", priority=7, seats=2, labels={"a": "b"}):
        (session,) = service.sessions.values()
        (grant,) = service.grants.values()
    assert (session.holder, session.project) == ("alice@host", "cv")
    assert (grant.acquire.project, grant.acquire.priority) == ("nlp", 7)
    assert grant.acquire.attributes.labels == {"a": "b"}


async def test_a_seat_is_free_also_when_the_block_fails(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client.seat("tensorrt"):
            _ = 1 / 0
    assert service.held("tensorrt") == 0


async def test_a_seat_is_free_also_when_the_block_is_cancelled(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with client.seat("tensorrt"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.held("tensorrt") == 0


async def test_releasing_twice_is_releasing_once(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    grant = await client.acquire("tensorrt")
    await grant.release()
    await grant.release()
    assert service.count("release") == 1


async def test_a_request_that_does_not_wait_is_denied(
    client: AsyncSeatClient,
) -> None:
    async with client.seat("tensorrt", seats=2):
        with pytest.raises(NoSeatFree) as caught:
            await client.acquire("tensorrt", wait=0)
    assert caught.value.retryable


async def test_the_callers_mistakes_have_names(client: AsyncSeatClient) -> None:
    with pytest.raises(PoolNotFound):
        await client.acquire("nowhere")
    with pytest.raises(TooManySeats):
        await client.acquire("tensorrt", seats=3)
    with pytest.raises(InvalidArgument) as caught:
        client.seat("tensorrt", seats=0)
    assert caught.value.field == "seats"
    for wait in (timedelta(seconds=-1), timedelta(days=8), 1e300, float("nan")):
        with pytest.raises(InvalidArgument, match="wait must be from 0 s to 7 days"):
            client.seat("tensorrt", wait=wait)
    with pytest.raises(InvalidArgument, match="pool must not be empty"):
        client.seat("")


@pytest.mark.parametrize(
    ("wait", "seconds"), [(None, None), (2.5, 2.5), (timedelta(minutes=1), 60.0), (0, 0.0)]
)
async def test_a_wait_is_sent_as_it_was_given(
    client: AsyncSeatClient,
    service: ScriptedService,
    wait: float | timedelta | None,
    seconds: float | None,
) -> None:
    async with client.seat("tensorrt", wait=wait):
        (grant,) = service.grants.values()
        sent = grant.acquire.wait.ToTimedelta().total_seconds()
        assert grant.acquire.HasField("wait") is (seconds is not None)
        # By a clock that runs, some of the wait is over when it is sent.
        assert sent == pytest.approx(seconds or 0.0, rel=0.5)


async def test_a_waiting_request_gets_its_place_and_is_then_served(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    places: list[QueuePosition] = []
    async with client.seat("tensorrt", seats=2):
        waiting = asyncio.create_task(client.acquire("tensorrt", on_queued=places.append))
        await eventually(lambda: bool(places))
    grant = await waiting
    seconds = [timedelta(seconds=number) for number in (90, 60, 200)]
    between = (seconds[1], seconds[2])
    assert places == [QueuePosition(1, seconds[0], between=between, pool="tensorrt")]
    assert grant.fence == 2


async def test_a_callback_that_fails_stops_nothing(
    client: AsyncSeatClient, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(at: object) -> None:
        raise ZeroDivisionError

    async with client.seat("tensorrt", seats=2):
        waiting = asyncio.create_task(client.acquire("tensorrt", on_queued=fail))
        await eventually(lambda: "a callback given to the client failed" in caplog.text)
    await waiting


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


async def test_cancelling_in_the_moment_of_the_grant_gives_it_back(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    for turns in range(40):
        task = asyncio.create_task(client.acquire("wide"))
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            grant = await task
        except asyncio.CancelledError:
            continue
        await grant.release()
    await eventually(lambda: not service.grants and not service.tickets)


async def test_many_callers_share_one_session_and_few_frames(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    async def work() -> None:
        for _ in range(20):
            async with client.seat("wide"):
                pass

    await asyncio.gather(*(work() for _ in range(50)))
    assert len(service.sessions) == 1
    assert service.count("acquire") == 1000
    assert service.held("wide") == 0


async def test_a_seat_can_be_a_decorator(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    @client.seat("tensorrt")
    async def work(a: int, *, b: int) -> int:
        """Promise."""
        assert service.held("tensorrt") == 1
        return a + b

    assert await work(1, b=2) == 3
    assert work.__doc__ == "Promise."
    assert service.held("tensorrt") == 0


async def test_a_plain_function_cannot_be_decorated(client: AsyncSeatClient) -> None:
    with pytest.raises(UsageError, match="use SeatClient"):
        client.seat("tensorrt")(lambda: None)  # type: ignore[arg-type, return-value]  # what is refused is what is tested


async def test_a_seat_that_is_entered_cannot_be_entered_again(client: AsyncSeatClient) -> None:
    seat = client.seat("tensorrt")
    async with seat:
        with pytest.raises(UsageError):
            await seat.__aenter__()
    async with seat:
        pass


async def test_closing_frees_everything_and_ends_what_waits(
    node: ScriptedNode, service: ScriptedService
) -> None:
    client = AsyncSeatClient(node.address)
    grant = await client.acquire("tensorrt", seats=2)
    waiting = asyncio.create_task(client.acquire("tensorrt"))
    await eventually(lambda: len(service.tickets) == 1)
    await client.close()
    assert not service.sessions
    assert not service.grants
    assert grant.state is HoldingState.LOST
    with pytest.raises(ClientClosed):
        await waiting
    with pytest.raises(ClientClosed):
        await client.acquire("tensorrt")
    with pytest.raises(ClientClosed):
        await client.pools.list()
    await client.close()
    await grant.release()


async def test_a_client_that_was_never_used_never_connects(node: ScriptedNode) -> None:
    async with AsyncSeatClient(node.address) as client:
        assert client.state is HoldingState.LOST
    assert node.streams_opened == 0


async def test_a_client_that_came_through_a_fork_says_so(
    client: AsyncSeatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(ClientClosed, match="fork"):
            await client.acquire("tensorrt")


async def test_the_session_can_be_used_by_other_calls(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    credentials = await client.session()
    assert service.sessions[credentials.session_id].secret == credentials.secret
    assert await client.session() == credentials
    assert client.state is HoldingState.SAFE


def test_the_default_holder_names_a_user_and_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "@" in default_holder()

    def no_client() -> str:
        raise KeyError

    monkeypatch.setattr("getpass.getuser", no_client)
    assert default_holder().startswith("uid")
    with pytest.raises(InvalidArgument, match="holder"):
        AsyncSeatClient("a:1", holder="x" * 254)


LINGERING = ClientConfig(linger=timedelta(seconds=5))


async def test_small_tasks_reuse_a_seat_that_lingers(
    node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    async with AsyncSeatClient(node.address, config=LINGERING, clock=clock) as client:
        fences = []
        for _ in range(10):
            async with client.seat("tensorrt") as grant:
                fences.append(grant.fence)
        assert fences == [1] * 10
        assert service.held("tensorrt") == 1
        clock.advance(5.0)
        await eventually(lambda: service.held("tensorrt") == 0)
        assert service.count("acquire") == 1


async def test_a_seat_does_not_linger_while_our_own_requests_wait(
    node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    async with AsyncSeatClient(node.address, config=LINGERING, clock=clock) as client:
        async with client.seat("tensorrt", seats=2):
            waiting = asyncio.create_task(client.acquire("tensorrt"))
            await eventually(lambda: len(service.tickets) == 1)
        assert (await waiting).fence == 2


async def test_a_seat_that_lingers_makes_way_for_another_project(
    node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    async with AsyncSeatClient(node.address, config=LINGERING, clock=clock) as client:
        async with client.seat("tensorrt", seats=2, project="cv"):
            pass
        async with client.seat("tensorrt", seats=2, project="nlp", wait=0) as grant:
            assert grant.fence == 2


async def test_a_seat_that_lingers_is_given_back_at_close(
    node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    async with AsyncSeatClient(node.address, config=LINGERING, clock=clock) as client:
        async with client.seat("tensorrt"):
            pass
        assert service.held("tensorrt") == 1
    assert service.held("tensorrt") == 0
