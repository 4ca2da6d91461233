"""A user's tests lose a seat, let an hour pass and see a wait run out, in seconds."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cases.place import Place, needs

TESTS = """
from concurrent.futures import ThreadPoolExecutor

import pytest

from seatkeeper.client import HoldingState, NoSeatFree, SeatLost


def test_loss(seatkeeper):
    grant = seatkeeper.client().acquire(seatkeeper.pool("p"))
    seatkeeper.lose(grant)
    with pytest.raises(SeatLost):
        grant.raise_if_lost()


def test_a_day(seatkeeper):
    pool = seatkeeper.pool("p")
    grant = seatkeeper.client().acquire(pool)
    with ThreadPoolExecutor() as threads:
        late = threads.submit(seatkeeper.client().acquire, pool, wait=3600)
        seatkeeper.until_waiting(pool)
        seatkeeper.advance(3601)
        with pytest.raises(NoSeatFree):
            late.result(timeout=60)
    assert grant.state is HoldingState.SAFE
    seatkeeper.advance(86400, renewing=False)
    assert grant.state is HoldingState.LOST
    assert seatkeeper.held(pool) == 0
"""


def case(place: Place) -> None:
    needs("prometheus_client", extra="'.[server]'")
    (place.folder / "test_job.py").write_text(TESTS)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_job.py"],
        cwd=place.folder,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-600:]
    assert "2 passed" in ended.stdout, ended.stdout[-600:]
