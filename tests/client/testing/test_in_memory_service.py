"""The in-memory service shows a test what production would show the program."""

from __future__ import annotations

import asyncio
import gc
import threading
from datetime import timedelta
from typing import Literal

import pytest
from tests.processes import until

from seatkeeper.client import AsyncSeatClient, ClientConfig, SeatClient, verify_token
from seatkeeper.core.errors import InvalidArgument, NoSeatFree, PoolNotFound, SeatLost
from seatkeeper.testing.service import InMemoryService

TIME_LIMIT = 20.0


def test_a_seat_that_is_held_is_not_given_twice() -> None:
    with (
        InMemoryService({"tensorrt": 1}) as service,
        SeatClient(service.address) as alice,
        SeatClient(service.address) as bob,
    ):
        with alice.seat("tensorrt"):
            assert service.held("tensorrt") == 1
            with pytest.raises(NoSeatFree):
                bob.acquire("tensorrt", wait=0)
        with bob.seat("tensorrt", wait=TIME_LIMIT) as grant:
            assert grant.fence == 2


def test_a_token_verifies_with_the_service_s_own_keys() -> None:
    with (
        InMemoryService({"tensorrt": 1}) as service,
        SeatClient(service.address) as client,
        client.seat("tensorrt", project="cv") as grant,
    ):
        claims = verify_token(grant.fetch_token(), client.cluster.jwks(), pool="tensorrt")
        assert (claims.grant_id, claims.project) == (grant.grant_id, "cv")


@pytest.mark.parametrize("keeper", ["helper", "process"])
def test_labels_are_shown_and_are_in_the_token(keeper: Literal["helper", "process"]) -> None:
    config = ClientConfig(keeper=keeper)
    labels = {"team": "cv", "ci/job": "build-7"}
    with (
        InMemoryService({"tensorrt": 1}) as service,
        SeatClient(service.address, config=config) as client,
        client.seat("tensorrt", labels=labels) as grant,
    ):
        (held,) = client.pools.get("tensorrt").grants
        assert dict(held.attributes.labels) == labels
        claims = verify_token(grant.fetch_token(), client.cluster.jwks(), pool="tensorrt")
        assert claims.labels == labels


@pytest.mark.parametrize(
    "labels", [{f"k{n}": "" for n in range(17)}, {"Team": "cv"}, {"k": "v" * 64}], ids=str
)
def test_labels_that_are_none_take_nothing(labels: dict[str, str]) -> None:
    with (
        InMemoryService({"tensorrt": 1}) as service,
        SeatClient(service.address) as client,
    ):
        with pytest.raises(InvalidArgument, match="labels"):
            client.acquire("tensorrt", labels=labels)
        assert service.held("tensorrt") == 0


def test_an_unknown_pool_is_said_to_be_unknown_until_it_is_created() -> None:
    with InMemoryService() as service, SeatClient(service.address) as client:
        with pytest.raises(PoolNotFound):
            client.acquire("tensorrt", wait=0)
        service.create_pool("tensorrt", 1)
        with client.seat("tensorrt", wait=TIME_LIMIT):
            assert service.held("tensorrt") == 1


def test_the_holder_is_notified_of_a_lost_session() -> None:
    lost = threading.Event()
    with (
        InMemoryService({"tensorrt": 1}, session_ttl=timedelta(seconds=2)) as service,
        SeatClient(service.address) as client,
    ):
        grant = client.acquire("tensorrt", on_state=lambda state: _note(lost, str(state)))
        service.lose_sessions()
        assert lost.wait(TIME_LIMIT)
        with pytest.raises(SeatLost):
            grant.raise_if_lost()
        assert service.held("tensorrt") == 0


def test_a_seat_outlives_a_short_absence_of_the_service() -> None:
    ttl = timedelta(seconds=30)
    with (
        InMemoryService({"tensorrt": 1}, session_ttl=ttl) as service,
        SeatClient(service.address) as client,
    ):
        with client.seat("tensorrt") as grant:
            address = service.address
            service.go_away()
            service.come_back()
            assert service.address == address
            grant.raise_if_lost()
            assert service.held("tensorrt") == 1
        assert service.held("tensorrt") == 0


async def test_the_service_can_be_used_from_an_event_loop() -> None:
    async with (
        InMemoryService({"tensorrt": 1}) as service,
        AsyncSeatClient(service.address) as client,
        client.seat("tensorrt") as grant,
    ):
        assert grant.fence == 1


def _note(lost: threading.Event, state: str) -> None:
    if "LOST" in state.upper():
        lost.set()


def test_a_part_of_a_client_keeps_it_alive() -> None:
    with InMemoryService({"tensorrt": 1}) as service:
        before = _client_threads()  # the service's own, and what another test has forgotten
        pools = SeatClient(service.address).pools
        watch = SeatClient(service.address).pools.watch("tensorrt")
        gc.collect()
        assert [pool.spec.name for pool in pools.list()] == ["tensorrt"]
        assert next(watch).spec.name == "tensorrt"
        assert len(_client_threads() - before) == 2
        del pools, watch
        gc.collect()
        until(lambda: not _client_threads() - before, within=TIME_LIMIT)


def test_a_forgotten_client_needs_no_garbage_collection() -> None:
    with InMemoryService({"tensorrt": 1}) as service:
        gc.disable()
        try:
            grant = SeatClient(service.address).acquire("tensorrt")
            assert service.held("tensorrt") == 1
            del grant
            until(lambda: service.held("tensorrt") == 0, within=TIME_LIMIT)
        finally:
            gc.enable()


def _client_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "seatkeeper"}


@pytest.mark.parametrize("keeper", ["process", "helper"])
async def test_a_request_whose_session_is_lost_while_it_waits_is_served_in_the_next_one(
    keeper: Literal["process", "helper"],
) -> None:
    config = ClientConfig(keeper=keeper)
    with InMemoryService({"tensorrt": 1}) as service:
        async with (
            AsyncSeatClient(service.address, holder="bert") as bert,
            AsyncSeatClient(service.address, holder="anna", config=config) as anna,
        ):
            await bert.acquire("tensorrt")
            waiting = asyncio.create_task(anna.acquire("tensorrt", wait=TIME_LIMIT))
            await service.aio.until_waiting("tensorrt")
            await asyncio.to_thread(service.lose_sessions)
            assert (await waiting).fence == 2
