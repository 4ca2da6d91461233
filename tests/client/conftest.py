from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.client.fakes import FakeClock
from tests.client.scripted import ScriptedNode, ScriptedService, running

from seatkeeper.client.aio import AsyncSeatClient


@pytest.fixture
def service() -> ScriptedService:
    return ScriptedService(tensorrt=2, wide=100)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def nodes(service: ScriptedService) -> AsyncIterator[list[ScriptedNode]]:
    """Two nodes of one service."""
    async with running(service, 2) as nodes:
        yield nodes


@pytest.fixture
def node(nodes: list[ScriptedNode]) -> ScriptedNode:
    return nodes[0]


@pytest.fixture
async def client(node: ScriptedNode, clock: FakeClock) -> AsyncIterator[AsyncSeatClient]:
    """A client that knows one node."""
    async with AsyncSeatClient(
        node.address, holder="alice@host", project="cv", clock=clock
    ) as client:
        yield client
        node.resume()


@pytest.fixture
async def roamer(nodes: list[ScriptedNode], clock: FakeClock) -> AsyncIterator[AsyncSeatClient]:
    """A client that knows both nodes."""
    addresses = [node.address for node in nodes]
    async with AsyncSeatClient(addresses, holder="bob@host", clock=clock) as client:
        yield client
        for node in nodes:
            node.resume()
