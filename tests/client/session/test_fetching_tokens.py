"""Tokens in a program's hands: asked for when they are needed, or from the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Literal

import pytest

from seatkeeper.client import (
    AsyncSeatClient,
    ClientConfig,
    SeatClient,
    SeatLost,
    ServiceUnavailable,
    UsageError,
    verify_token,
)
from seatkeeper.testing.service import InMemoryService
from seatkeeper.v1 import seat_service_pb2 as pb

pytestmark = pytest.mark.parametrize("keeper", ["helper", "process"])


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    with InMemoryService({"tensorrt": 2}) as service:
        yield service


@pytest.fixture
def config(keeper: Literal["helper", "process"]) -> ClientConfig:
    return ClientConfig(keeper=keeper, call_timeout=timedelta(seconds=2))


def test_one_is_signed_when_it_is_asked_for(
    service: InMemoryService, config: ClientConfig
) -> None:
    with (
        SeatClient(service.address, holder="anna", project="cv", config=config) as client,
        client.seat("tensorrt") as grant,
    ):
        token = grant.fetch_token()
        claims = verify_token(token, client.cluster.jwks(), pool="tensorrt")

        assert (claims.grant_id, claims.fence) == (grant.grant_id, grant.fence)
        assert (grant.holder, grant.project) == (claims.holder, claims.project)
        with pytest.raises(UsageError, match="fetch_token"):
            _ = grant.token


async def test_so_it_is_in_async_programs(
    service: InMemoryService, config: ClientConfig
) -> None:
    async with (
        AsyncSeatClient(service.address, config=config) as client,
        client.seat("tensorrt") as grant,
    ):
        token = await grant.fetch_token()
        claims = await client.cluster.verify_token(token, pool="tensorrt")
        assert claims.grant_id == grant.grant_id


async def test_a_node_that_cannot_read_the_grant_is_asked_again(
    service: InMemoryService, config: ClientConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while etcd elects a leader."""
    async with (
        AsyncSeatClient(service.address, config=config) as client,
        client.seat("tensorrt") as grant,
    ):
        renew, asked = client.seats.renew, 0

        async def without_at_first(
            who: pb.SessionCredentials, grants: Sequence[pb.GrantRef]
        ) -> pb.Renewed:
            nonlocal asked
            asked += 1
            return pb.Renewed() if asked <= 2 else await renew(who, grants)

        monkeypatch.setattr(client.seats, "renew", without_at_first)
        token = await grant.fetch_token()
        claims = verify_token(token, await client.cluster.jwks(), pool="tensorrt")
        assert (claims.fence, asked) == (grant.fence, 3)


def test_one_that_is_asked_for_at_the_start_is_at_hand(
    service: InMemoryService, config: ClientConfig
) -> None:
    with (
        SeatClient(service.address, config=config) as client,
        client.seat("tensorrt", token=True) as grant,
    ):
        token = grant.token
        assert verify_token(token, client.cluster.jwks(), pool="tensorrt").fence == grant.fence
        assert grant.fetch_token() == token


def test_there_is_none_for_what_is_no_longer_held(
    service: InMemoryService, config: ClientConfig
) -> None:
    with SeatClient(service.address, config=config) as client:
        grant = client.acquire("tensorrt")
        grant.release()
        with pytest.raises(SeatLost, match="released"):
            grant.fetch_token()


def test_without_a_node_there_is_none_and_the_seat_stays(
    service: InMemoryService, config: ClientConfig
) -> None:
    with SeatClient(service.address, config=config) as client:
        grant = client.acquire("tensorrt")
        service.go_away()
        with pytest.raises(ServiceUnavailable):
            grant.fetch_token()
        grant.raise_if_lost()
