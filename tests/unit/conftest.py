"""Nodes' loops over one store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.unit.loops import Loops

from seatkeeper.server import pool_loop


@pytest.fixture
async def loops(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loops]:
    """No loops yet, over a store without a pool."""
    # Faults are many here and time is short.
    monkeypatch.setattr(pool_loop, "RETRY_PAUSE_MAX", 0.02)
    loops = Loops()
    yield loops
    await loops.close()
