"""What is seen of a service from here: what does not answer is written down, and raises nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.ports import closed_address

from seatkeeper.client import AsyncSeatClient, ClientConfig, ServiceUnavailable
from seatkeeper.client.diagnosis.diagnosis import Level, diagnose
from seatkeeper.client.diagnosis.observe import observe
from seatkeeper.testing.service import InMemoryService

QUICK = ClientConfig(
    connect_timeout=timedelta(seconds=1), call_timeout=timedelta(seconds=1), keeper="process"
)


def direct(address: str) -> AsyncSeatClient:
    return AsyncSeatClient(address, config=QUICK)


async def test_a_service_is_seen_with_its_pools_and_what_does_not_answer() -> None:
    closed = closed_address()
    with InMemoryService({"tensorrt": 2}) as service:
        address = service.address
        given = [address, closed]
        async with direct(address) as client:
            seen = await observe(client, given, direct)
    assert [pool.spec.name for pool in seen.pools or ()] == ["tensorrt"]
    assert seen.agents is not None
    assert list(seen.agents) == []
    assert seen.given == given
    assert seen.unreached.keys() == {closed}
    assert seen.deployments.keys() == {address}
    assert seen.took > timedelta(0)
    ports = [finding for finding in diagnose(seen) if finding.about == "ports"]
    assert [finding.level for finding in ports] == [Level.WARNING]
    assert closed in ports[0].what


async def test_a_service_that_does_not_answer_at_all_is_an_error() -> None:
    async with direct(closed_address()) as client:
        with pytest.raises(ServiceUnavailable):
            await observe(client, [], direct)


async def test_a_fault_of_our_own_is_not_taken_for_an_address_that_does_not_answer() -> None:
    def broken(address: str) -> AsyncSeatClient:
        return AsyncSeatClient(f"{address},{address}", holder="", config=QUICK)

    def worse(address: str) -> AsyncSeatClient:
        raise RuntimeError(address)

    with InMemoryService() as service:
        address = service.address
        async with direct(address) as client:
            with pytest.raises(RuntimeError, match=address):
                await observe(client, [address], worse)
            seen = await observe(client, [address], broken)
    assert "holder" in seen.unreached[address]
