"""Nodes over a store in memory: their loops alone, and whole, behind a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.loops import Loops
from tests.unit.services import Services, running_services

from seatkeeper.server.pool import loop as pool_loop


@pytest.fixture
async def loops(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loops]:
    """No loops yet, over a store without a pool."""
    # Faults are many here and time is short.
    monkeypatch.setattr(pool_loop, "RETRY_PAUSE_MAX", 0.02)
    loops = Loops()
    yield loops
    await loops.close()


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """A node behind a socket."""
    async with running_services(tmp_path) as services:
        yield services
