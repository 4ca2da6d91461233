"""Builds are admitted by number and by memory, and what runs is known."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import grpc
import pytest
from tests.processes import eventually

from seatkeeper.agent.places import SHOWN_BUILDS_MAX, Places, memory_for_builds
from seatkeeper.core.serving.failure import Failure
from seatkeeper.v1 import build_service_pb2 as pb

GIB = 1 << 30


async def take(
    places: Places, stack: AsyncExitStack, memory_bytes: int, model_name: str = "m.onnx"
) -> None:
    await stack.enter_async_context(
        places.take(model_name=model_name, holder="alice", memory_bytes=memory_bytes)
    )


@pytest.fixture
def places() -> Places:
    return Places(3, 10 * GIB)


async def test_builds_run_as_long_as_their_memory_fits(places: Places) -> None:
    async with AsyncExitStack() as stack:
        await take(places, stack, 6 * GIB)
        await take(places, stack, 4 * GIB)
        with pytest.raises(Failure) as caught:
            await take(places, stack, 1)
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert places.memory_reserved_bytes == 10 * GIB
    assert places.running == []
    assert places.memory_reserved_bytes == 0


async def test_a_build_alone_is_never_too_large(places: Places) -> None:
    async with AsyncExitStack() as stack:
        await take(places, stack, 100 * GIB)
        assert len(places.running) == 1


async def test_a_build_waits_for_memory(places: Places) -> None:
    places.memory_wait = timedelta(seconds=60)
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await take(places, first, 6 * GIB)
        waiting = [asyncio.create_task(take(places, second, gib * GIB)) for gib in (5, 4, 5)]
        await eventually(lambda: len(places.running) == 2)
        assert waiting[1].done()
        await first.aclose()
        await eventually(lambda: len(places.running) == 2 and waiting[0].done())
        assert not waiting[2].done()
        waiting[2].cancel()


async def test_a_build_that_waits_is_refused_when_the_agent_drains(places: Places) -> None:
    places.memory_wait = timedelta(seconds=60)
    async with AsyncExitStack() as stack:
        await take(places, stack, 9 * GIB)
        waiting = asyncio.create_task(take(places, stack, 9 * GIB))
        await asyncio.sleep(0)
        places.drain()
        with pytest.raises(Failure) as caught:
            await waiting
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert not places.drained.is_set()
    assert places.drained.is_set()


async def test_so_many_builds_and_no_more_whatever_they_need(places: Places) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await take(places, stack, 1)
        with pytest.raises(Failure, match="3 builds at a time"):
            await take(places, stack, 1)


async def test_an_agent_describes_what_it_builds(places: Places) -> None:
    info = pb.AgentInfo()
    async with AsyncExitStack() as stack:
        await take(places, stack, GIB, "n" * 200)
        assert places.changed.is_set()
        places.changed.clear()
        places.at_phase(places.running[0], pb.BUILD_PHASE_RECEIVING)
        assert not places.changed.is_set(), "it was that before"
        places.at_phase(places.running[0], pb.BUILD_PHASE_BUILDING)
        assert places.changed.is_set()
        places.describe(info)
        (build,) = info.load.builds
        assert (build.model_name, build.holder) == ("n" * 80, "alice")
        assert (build.phase, build.memory_bytes) == (pb.BUILD_PHASE_BUILDING, GIB)
        assert (info.load.running, info.load.memory_reserved_bytes) == (1, GIB)
    places.describe(info)
    assert info.load == pb.AgentLoad()


async def test_a_description_of_many_builds_fits_what_nodes_accept() -> None:
    places, info = Places(256, 1), pb.AgentInfo()
    async with AsyncExitStack() as stack:
        for _ in range(256):
            await take(places, stack, 0, "\N{GRINNING FACE}" * 255)
        places.describe(info)
    assert info.load.running == 256
    assert len(info.load.builds) == SHOWN_BUILDS_MAX
    assert info.ByteSize() < 64 * 1024


def test_builds_get_most_of_the_hosts_memory() -> None:
    assert GIB // 4 < memory_for_builds() < 1 << 50
