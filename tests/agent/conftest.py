from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Self

import pytest
from tests.agent.site import Site, running_site

from seatkeeper.agent import build
from seatkeeper.agent import build_runner as build_runner
from seatkeeper.agent.claim import Claim
from seatkeeper.agent.main import Agent
from seatkeeper.builder.job import BuildLimits
from seatkeeper.v1.build_service_pb2 import BackendInfo

Backends = dict[str, BackendInfo]


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Backends:
    """What can be built on this host, found out once: it takes a second."""
    return asyncio.run(build_runner._probe(tmp_path_factory.mktemp("probe"), BuildLimits()))


@pytest.fixture
async def site(
    tmp_path: Path, backends: Backends, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    _probe_at_once(backends, refusal, monkeypatch)
    async with running_site(tmp_path) as site:
        yield site


@pytest.fixture
async def retrying_site(
    tmp_path: Path, backends: Backends, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    """A site where sessions outlive the absences of the service."""
    _probe_at_once(backends, refusal, monkeypatch)
    async with running_site(tmp_path, session_ttl=timedelta(minutes=5)) as site:
        yield site


@pytest.fixture(scope="session")
def refusal(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Why builds cannot be isolated on this host, found out once; empty: they can."""
    return asyncio.run(
        build_runner._refusal(tmp_path_factory.mktemp("isolation"), BuildLimits())
    )


def _probe_at_once(backends: Backends, refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def probed(scratch: Path, limits: BuildLimits) -> Backends:
        return dict(backends)

    async def permitted(scratch: Path, limits: BuildLimits) -> str:
        return refusal

    monkeypatch.setattr(build_runner, "_probe", probed)
    monkeypatch.setattr(build_runner, "_refusal", permitted)


@pytest.fixture
async def agent(site: Site) -> Agent:
    return await site.start_agent()


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    """Every claim that an agent has made, in order."""
    made: list[Claim] = []

    class Noted(Claim):
        async def __aenter__(self) -> Self:
            made.append(self)
            return await super().__aenter__()

    monkeypatch.setattr(build, "Claim", Noted)
    return made
