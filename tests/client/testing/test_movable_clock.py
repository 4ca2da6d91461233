"""Time that a test moves: leases, waits and tokens end without anybody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from seatkeeper.client import (
    HoldingState,
    InvalidArgument,
    NoSeatFree,
    SeatClient,
    SeatLost,
    TokenExpired,
    UsageError,
    verify_token,
)
from seatkeeper.client.session.grants import AsyncGrant
from seatkeeper.client.sync import Grant
from seatkeeper.core.clock import SystemClock, default_clock
from seatkeeper.testing.movable_clock import MovableClock
from seatkeeper.testing.service import InMemoryService

TTL = timedelta(seconds=30)
REAL_SECONDS_MAX = 60.0


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    with InMemoryService({"tensorrt": 1, "wide": 4}, session_ttl=TTL) as service:
        yield service


def state(grant: Grant | AsyncGrant) -> HoldingState:
    """What the grant says now: it changes between two looks, which a type checker does not see."""
    return grant.state


def wait_in_a_thread(client: SeatClient, wait: float) -> Future[Grant]:
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(client.acquire, "tensorrt", wait=wait)
    finally:
        pool.shutdown(wait=False)


def test_an_hour_passes_and_a_renewing_client_keeps_its_seat(service: InMemoryService) -> None:
    states: list[HoldingState] = []
    client = service.client()
    grant = client.acquire("tensorrt", on_state=states.append)
    began, before = time.monotonic(), service.now()
    service.advance(3600)
    assert state(grant) == HoldingState.SAFE
    assert service.held("tensorrt") == 1
    assert states == []
    assert service.now() - before >= timedelta(hours=1)
    assert time.monotonic() - began < REAL_SECONDS_MAX


def test_a_machine_that_slept_past_its_lease_knows_that_its_seat_is_gone(
    service: InMemoryService,
) -> None:
    states: list[HoldingState] = []
    grant = service.client().acquire("tensorrt", on_state=states.append)
    service.advance(TTL.total_seconds() - 15, renewing=False)
    assert state(grant) != HoldingState.LOST
    service.advance(TTL, renewing=False)
    # Both sides, at once: nothing here waits for anything.
    assert state(grant) == HoldingState.LOST
    assert states[-1] is HoldingState.LOST
    assert service.held("tensorrt") == 0
    with pytest.raises(SeatLost):
        grant.raise_if_lost()
    assert service.client().acquire("tensorrt", wait=0).fence > grant.fence


def test_a_wait_runs_out_while_the_holder_keeps_its_seat(service: InMemoryService) -> None:
    holder, waiter = service.client(), service.client()
    grant = holder.acquire("tensorrt")
    waiting = wait_in_a_thread(waiter, wait=3600)
    service.until_waiting("tensorrt")
    service.advance(3500)
    assert not waiting.done()
    assert service.waiting("tensorrt") == 1
    service.advance(101)
    assert service.waiting("tensorrt") == 0
    with pytest.raises(NoSeatFree):
        waiting.result(REAL_SECONDS_MAX)
    assert state(grant) == HoldingState.SAFE


def test_leases_run_out_while_the_service_is_away(service: InMemoryService) -> None:
    states: list[HoldingState] = []
    grant = service.client().acquire("tensorrt", on_state=states.append)
    service.go_away()
    service.advance(TTL / 2)
    assert state(grant) == HoldingState.JEOPARDY
    service.advance(TTL)
    assert state(grant) == HoldingState.LOST
    assert states == [HoldingState.JEOPARDY, HoldingState.LOST]
    service.come_back()
    assert service.held("tensorrt") == 0


def test_one_grant_is_lost_and_the_rest_of_its_client_is_not(service: InMemoryService) -> None:
    states: list[HoldingState] = []
    client = service.client()
    lost = client.acquire("tensorrt", on_state=states.append)
    kept = client.acquire("wide", seats=3)
    service.lose(lost)
    assert (lost.state, kept.state) == (HoldingState.LOST, HoldingState.SAFE)
    assert states == [HoldingState.LOST]
    assert (service.held("tensorrt"), service.held("wide")) == (0, 3)
    with pytest.raises(SeatLost):
        lost.raise_if_lost()
    lost.release()  # of what is gone: nothing happens
    client.acquire("tensorrt", wait=20).release()


def test_the_next_in_the_queue_gets_what_was_lost(service: InMemoryService) -> None:
    grant = service.client().acquire("tensorrt")
    waiting = wait_in_a_thread(service.client(), wait=600)
    service.until_waiting("tensorrt")
    service.lose(grant)
    assert waiting.result(REAL_SECONDS_MAX).fence > grant.fence


def test_tokens_and_expiry_follow_the_moved_clock(service: InMemoryService) -> None:
    client = service.client()
    grant = client.acquire("tensorrt", token=True)
    old, keys = grant.token, client.cluster.jwks()
    assert timedelta(0) < grant.expires_at - service.now() < TTL
    service.advance(timedelta(hours=2))
    assert timedelta(0) < grant.expires_at - service.now() < TTL
    assert verify_token(grant.token, keys, pool="tensorrt").grant_id == grant.grant_id
    with pytest.raises(TokenExpired):
        verify_token(old, keys)
    with client.seat("wide") as fresh:
        assert abs(fresh.granted_at - service.now()) < timedelta(seconds=REAL_SECONDS_MAX)


def test_clients_that_the_program_makes_by_itself_are_on_the_clock(
    service: InMemoryService,
) -> None:
    with SeatClient.from_env(env=service.environment) as client:
        grant = client.acquire("tensorrt")
        service.advance(3600, renewing=False)
        assert state(grant) == HoldingState.LOST


async def test_in_a_coroutine_time_passes_beside_the_event_loop(
    service: InMemoryService,
) -> None:
    async with service.async_client() as client:
        grant = await client.acquire("tensorrt")
        await service.aio.advance(600)
        assert state(grant) == HoldingState.SAFE
        await service.aio.lose(grant)
        assert state(grant) == HoldingState.LOST
        other = await client.acquire("wide")
        await service.aio.advance(TTL, renewing=False)
        assert state(other) == HoldingState.LOST
        with pytest.raises(UsageError, match=r"await service\.aio\.advance"):
            service.advance(1)
        with pytest.raises(UsageError, match=r"await service\.aio\.lose"):
            service.lose(other)


def test_time_does_not_go_back(service: InMemoryService) -> None:
    for seconds in (-1, float("inf"), float("nan")):
        with pytest.raises(InvalidArgument):
            service.advance(seconds)


def test_the_clock_is_moved_only_while_a_service_runs() -> None:
    with InMemoryService() as first, InMemoryService({"p": 1}) as second:
        assert isinstance(default_clock(), MovableClock)
        grant = second.client().acquire("p")
        first.advance(3600, renewing=False)
        assert state(grant) == HoldingState.LOST
    assert type(default_clock()) is SystemClock
    with InMemoryService() as service:
        assert abs(service.now() - datetime.now(UTC)) < timedelta(seconds=REAL_SECONDS_MAX)


def test_a_loop_that_was_closed_blocks_no_client() -> None:
    import asyncio

    clock, called = MovableClock(), threading.Event()

    async def leave_a_timer() -> None:
        clock.call_at(clock.now() + 1000, called.set)

    asyncio.run(leave_a_timer())
    began = time.monotonic()
    clock.move(2000)
    assert time.monotonic() - began < 5
    assert not called.is_set()


def test_what_is_due_is_called_in_its_order_and_what_was_cancelled_is_not() -> None:
    import asyncio

    async def user_record() -> list[str]:
        clock, called = MovableClock(), list[str]()
        start = clock.now()
        clock.call_at(start + 30, lambda: called.append("third"))
        clock.call_at(start + 10, lambda: called.append("first"))
        gone = clock.call_at(start + 15, lambda: called.append("never"))
        clock.call_at(start + 20, lambda: called.append("second"))
        clock.call_at(start + 900, lambda: called.append("too early"))
        gone.cancel()
        await asyncio.to_thread(clock.move, 60)
        return called

    assert asyncio.run(user_record()) == ["first", "second", "third"]
