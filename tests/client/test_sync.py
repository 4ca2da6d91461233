"""The client for programs without an event loop. The service runs on a thread of its own."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests import processes
from tests.client.scripted import ScriptedService, running

from seatkeeper.client import (
    ClientClosed,
    ClientConfig,
    HoldingState,
    NoSeatFree,
    SeatClient,
    SeatLost,
    UsageError,
    exit_on_signals,
)

until = processes.until


@pytest.fixture
def address(service: ScriptedService) -> Iterator[str]:
    started: list[str] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        async with running(service) as (node,):
            started.append(node.address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    yield started[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture(params=["process", "helper"])
def sync_client(address: str, request: pytest.FixtureRequest) -> Iterator[SeatClient]:
    config = ClientConfig(keeper=request.param)
    with SeatClient(address, holder="carol@host", project="cv", config=config) as client:
        yield client


def test_a_seat_is_held_inside_the_block_and_free_after_it(
    sync_client: SeatClient, service: ScriptedService
) -> None:
    with sync_client.seat("tensorrt", token=True) as grant:
        assert service.held("tensorrt") == 1
        assert (grant.pool, grant.seats, grant.fence) == ("tensorrt", 1, 1)
        assert grant.token.startswith(f"token-{grant.grant_id}")
        assert grant.granted_at.year == 2023
        assert "safe" in repr(grant)
        assert grant.token not in repr(grant)
        assert sync_client.state is HoldingState.SAFE
    assert service.held("tensorrt") == 0
    with pytest.raises(SeatLost):
        grant.raise_if_lost()


def test_a_seat_is_free_also_when_the_block_fails(
    sync_client: SeatClient, service: ScriptedService
) -> None:
    with pytest.raises(ZeroDivisionError), sync_client.seat("tensorrt"):
        _ = 1 / 0
    assert service.held("tensorrt") == 0


def test_many_threads_share_one_session(
    sync_client: SeatClient, service: ScriptedService
) -> None:
    def work(_: int) -> int:
        with sync_client.seat("tensorrt") as grant:
            assert service.held("tensorrt") <= 2
            return grant.fence

    with ThreadPoolExecutor(16) as threads:
        fences = list(threads.map(work, range(100)))
    assert len(set(fences)) == 100
    assert len(service.sessions) == 1


def test_a_request_that_does_not_wait_is_denied(sync_client: SeatClient) -> None:
    with sync_client.seat("tensorrt", seats=2), pytest.raises(NoSeatFree):
        sync_client.acquire("tensorrt", wait=0)


def test_releasing_twice_is_releasing_once(
    sync_client: SeatClient, service: ScriptedService
) -> None:
    grant = sync_client.acquire("tensorrt")
    grant.release()
    grant.release()
    assert service.count("release") == 1


def test_a_seat_can_be_a_decorator_of_plain_and_of_async_functions(
    sync_client: SeatClient, service: ScriptedService
) -> None:
    @sync_client.seat("tensorrt")
    def plain(a: int) -> int:
        assert service.held("tensorrt") == 1
        return a + 1

    @sync_client.seat("tensorrt")
    async def coroutine(a: int) -> int:
        assert service.held("tensorrt") == 1
        await asyncio.sleep(0)
        return a + 2

    assert plain(1) == 2
    assert asyncio.run(coroutine(1)) == 3
    assert service.held("tensorrt") == 0


def test_an_interrupt_while_waiting_leaves_the_queue(
    sync_client: SeatClient, service: ScriptedService
) -> None:
    def interrupt() -> None:
        until(lambda: len(service.tickets) == 1)
        os.kill(os.getpid(), signal.SIGINT)

    with sync_client.seat("tensorrt", seats=2):
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            sync_client.acquire("tensorrt")
        until(lambda: not service.tickets)


def test_an_interrupt_inside_the_block_gives_the_seat_back(
    sync_client: SeatClient, service: ScriptedService
) -> None:
    with pytest.raises(KeyboardInterrupt), sync_client.seat("tensorrt"):
        signal.raise_signal(signal.SIGINT)
    assert service.held("tensorrt") == 0


def test_the_end_of_the_process_can_be_made_to_give_the_seat_back(
    sync_client: SeatClient, service: ScriptedService
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(SystemExit) as caught,
        exit_on_signals(),
        sync_client.seat("tensorrt"),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert service.held("tensorrt") == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_closing_frees_everything_and_ends_the_thread(
    address: str, service: ScriptedService
) -> None:
    threads = threading.active_count()
    client = SeatClient(address)
    grant = client.acquire("tensorrt")
    client.close()
    client.close()
    assert not service.sessions
    assert threading.active_count() <= threads
    grant.release()
    with pytest.raises(ClientClosed):
        client.acquire("tensorrt")
    with pytest.raises(ClientClosed):
        client.pools.list()


def test_a_client_that_is_forgotten_holds_nothing(
    address: str, service: ScriptedService
) -> None:
    grant = SeatClient(address).acquire("tensorrt")
    assert service.held("tensorrt") == 1
    assert grant.state is HoldingState.SAFE
    del grant
    gc.collect()
    until(lambda: not service.sessions)


def test_a_callback_that_calls_the_client_gets_an_error_with_the_reason(
    sync_client: SeatClient,
) -> None:
    failures: list[Exception] = []

    def on_queued(at: object) -> None:
        try:
            sync_client.acquire("wide")
        except UsageError as error:
            failures.append(error)

    with ThreadPoolExecutor(1) as threads:
        with sync_client.seat("tensorrt", seats=2):
            waiting = threads.submit(
                lambda: sync_client.acquire("tensorrt", on_queued=on_queued)
            )
            until(lambda: bool(failures))
        waiting.result().release()
    assert "would wait for itself" in str(failures[0])


def test_a_client_in_a_forked_child_says_so_and_ends_quietly(
    sync_client: SeatClient, monkeypatch: pytest.MonkeyPatch, service: ScriptedService
) -> None:
    grant = sync_client.acquire("tensorrt")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(ClientClosed, match="fork"):
            sync_client.acquire("tensorrt")
        # The parent's seat is not the child's to give.
        grant.release()
    assert service.held("tensorrt") == 1


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with exit_on_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
