from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.agent.site import Site, running_site

from seatkeeper.builder.agent import workshop
from seatkeeper.builder.agent.main import Agent
from seatkeeper.builder.job import BuildLimits
from seatkeeper.v1.build_service_pb2 import BackendInfo

Backends = dict[str, BackendInfo]


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Backends:
    """What can be built on this host, found out once: it takes a second."""
    return asyncio.run(workshop._probe(tmp_path_factory.mktemp("probe"), BuildLimits()))


@pytest.fixture
async def site(
    tmp_path: Path, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    async def probed(scratch: Path, limits: BuildLimits) -> Backends:
        return backends

    monkeypatch.setattr(workshop, "_probe", probed)
    async with running_site(tmp_path) as site:
        yield site


@pytest.fixture
async def agent(site: Site) -> Agent:
    return await site.start_agent()
