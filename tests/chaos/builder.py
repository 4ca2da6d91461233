"""Somebody who has real engines compiled all the time, each another one, under real seats."""

from __future__ import annotations

import asyncio
import itertools
import time

import onnx
from tests.builder import models
from tests.chaos.service import ChaosService

from seatkeeper.client import SeatError
from seatkeeper.oracle.record import Published, Record
from seatkeeper.v1 import build_pb2

PAUSE_SECONDS = 10.0
"""Between two builds: compilers take all the processor time there is."""
WAIT_SECONDS = 10.0
OPTIONS = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])


class Builder:
    """Builds one engine after the other, and writes down which were published."""

    def __init__(self, service: ChaosService, pool: str, record: Record) -> None:
        self._service = service
        self._pool = pool
        self._record = record
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._build_always())

    async def stop(self) -> None:
        """End, in the middle of a build if need be. Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _build_always(self) -> None:
        for number in itertools.count(1):
            # A client of its own each time: one whose session was lost finds a new one by itself,
            # and this finds out whether a new one can begin at any time.
            async with self._service.client("builder") as client:
                try:
                    built = await client.build(
                        _model(number), OPTIONS, pool=self._pool, wait=WAIT_SECONDS
                    )
                except SeatError:
                    continue
                finally:
                    await asyncio.sleep(PAUSE_SECONDS)
            manifest = built.manifest
            self._record.note(
                Published(
                    manifest.agent_id,
                    manifest.pool,
                    manifest.grant_id,
                    manifest.fence,
                    time.monotonic(),
                )
            )


def _model(number: int) -> bytes:
    """Return a small model that differs from every other."""
    made = onnx.load_from_string(models.relu())
    made.producer_name = f"chaos-{number}"
    made.graph.name = f"graph-{number}"
    return made.SerializeToString()
