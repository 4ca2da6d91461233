from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.client.scripted import ScriptedNode, ScriptedService, running

from seatkeeper.client.aio import AsyncSeatClient


@pytest.fixture
def service() -> ScriptedService:
    return ScriptedService(tensorrt=2, wide=100)


@pytest.fixture
async def node(service: ScriptedService) -> AsyncIterator[ScriptedNode]:
    async with running(service) as nodes:
        yield nodes[0]


@pytest.fixture
async def client(node: ScriptedNode) -> AsyncIterator[AsyncSeatClient]:
    async with AsyncSeatClient(node.address, holder="alice@host", project="cv") as client:
        yield client
