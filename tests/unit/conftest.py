"""Nodes over a store in memory: their loops alone, and whole, behind a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.doors import Doors, running_doors
from tests.unit.loops import Loops

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
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    """A node behind a socket."""
    async with running_doors(tmp_path) as doors:
        yield doors
