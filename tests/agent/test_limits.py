"""An agent that has no more to give says so, and works again when it has."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.agent.site import OPTIONS, Site, build, eventually, is_idle, key_of, workers
from tests.builder.full_disks import can_mount, create_file_with_room, tiny_disk
from tests.builder.models import relu, relu_chain

from seatkeeper.agent.main import Agent
from seatkeeper.artifacts.store import EngineStore
from seatkeeper.client import AgentFull
from seatkeeper.v1 import build_service_pb2 as pb

LONG = relu_chain(10_000)
"""Compiles for more than a minute, so whatever ends sooner was ended."""
ROOMY = 1 << 30


async def test_a_model_that_is_too_large_is_refused_unread(site: Site) -> None:
    agent = await site.start_agent(model_bytes_max=100)
    grant = await site.grant()
    refusal = await build(agent, grant.token, bytes(101)).refused()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
    assert refusal.reason == "model_too_large"
    assert refusal.detail(error_details_pb2.RetryInfo) is None
    assert site.claims == []


async def test_an_engine_that_is_too_large_is_not_published(site: Site) -> None:
    agent = await site.start_agent(engine_bytes_max=100_000)
    grant = await site.grant()
    refusal = await build(agent, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
    assert refusal.reason == "engine_too_large"
    assert await site.published() == []
    assert is_idle(agent)


async def test_a_build_that_needs_too_much_memory_is_ended(site: Site) -> None:
    agent = await site.start_agent()
    agent.build_runner.limits = replace(agent.build_runner.limits, memory_bytes=150 << 20)
    grant = await site.grant()
    refusal = await build(agent, grant.token, LONG).refused()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
    assert refusal.reason == "out_of_memory"
    assert site.claims == []
    assert is_idle(agent)


async def test_an_agent_runs_so_many_builds_and_no_more(site: Site) -> None:
    agent = await site.start_agent(builds_max=1)
    alice, bob = [await site.grant(name) for name in ("alice", "bob")]
    first = build(agent, alice.token, LONG)
    await first.until(pb.BUILD_PHASE_CHECKING)

    refusal = await build(agent, bob.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
    retry = refusal.detail(error_details_pb2.RetryInfo)
    assert retry is not None
    assert retry.retry_delay.ToTimedelta() > timedelta(0)
    assert site.claims == [(alice.grant_id, "agent-1")]
    assert len(workers(agent)) == 1

    first.cancel()
    await eventually(lambda: is_idle(agent) and not site.claims)
    assert not (await build(agent, bob.token, relu()).result()).cached


async def test_a_client_goes_to_the_next_agent_when_one_is_full(site: Site) -> None:
    agents = [await site.start_agent(name, builds_max=1) for name in ("agent-1", "agent-2")]
    busy = [
        build(agent, (await site.grant(f"user-{number}")).token, relu_chain(10_000 + number))
        for number, agent in enumerate(agents)
    ]
    for call in busy:
        await call.until(pb.BUILD_PHASE_CHECKING)
    with pytest.raises(AgentFull):
        await site.client().build(relu(), OPTIONS)
    busy[1].cancel()
    await eventually(lambda: is_idle(agents[1]))
    built = await site.client().build(relu(), OPTIONS)
    assert built.manifest.agent_id == "agent-2"
    busy[0].cancel()
    await eventually(lambda: is_idle(agents[0]))


@pytest.mark.parametrize(
    "rooms", [(1_000,), (ROOMY, 10)], ids=["for_the_engine", "for_the_manifest"]
)
async def test_a_disk_that_is_full_while_publishing_publishes_nothing(
    site: Site, agent: Agent, rooms: tuple[int, ...]
) -> None:
    folder = agent.build_runner.store.staging.parent
    agent.build_runner.holdings.local = EngineStore(
        folder, create_file=create_file_with_room(*rooms, ROOMY, ROOMY)
    )
    grant = await site.grant()
    refusal = await build(agent, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
    assert refusal.reason == "disk_full"
    assert refusal.detail(error_details_pb2.RetryInfo) is not None
    assert await site.published() == []
    assert agent.build_runner.store.keys() == []
    assert site.claims == []
    assert is_idle(agent)

    done = await build(agent, grant.token, relu()).result()
    assert await site.published() == [key_of(done)]


async def test_a_disk_that_is_full_before_the_model_comes_is_reported(
    site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*arguments: Any, **named: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    grant = await site.grant()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", no_room)
        refusal = await build(agent, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
    assert refusal.reason == "disk_full"
    assert site.claims == []
    assert not (await build(agent, grant.token, relu()).result()).cached


if can_mount():

    async def test_a_model_that_fills_the_disk_is_reported(site: Site, agent: Agent) -> None:
        grant = await site.grant()
        with tiny_disk(agent.build_runner.store.staging):
            refusal = await build(agent, grant.token, bytes(1 << 20)).refused()
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
            assert refusal.reason == "disk_full"
            assert is_idle(agent)
        assert not (await build(agent, grant.token, relu()).result()).cached


async def test_builds_are_admitted_by_memory_and_go_elsewhere_where_there_is_none(
    site: Site,
) -> None:
    settings = {"memory_bytes": 1 << 30, "memory_wait": 0, "builds_max": 4}
    first, second = [
        await site.start_agent(name, **settings) for name in ("agent-1", "agent-2")
    ]
    alice, bob = [await site.grant(name) for name in ("alice", "bob")]
    busy = build(first, alice.token, LONG)
    await busy.until(pb.BUILD_PHASE_CHECKING)
    refusal = await build(first, bob.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
    assert "are free here" in refusal.message
    assert refusal.detail(error_details_pb2.RetryInfo) is not None
    await bob.release()

    built = await site.client("carol").build(relu(), OPTIONS)
    assert built.manifest.agent_id == "agent-2"
    busy.cancel()
    await eventually(lambda: is_idle(first) and is_idle(second))


async def test_what_a_model_needed_before_is_what_is_set_aside(site: Site) -> None:
    agent = await site.start_agent()
    runner = agent.build_runner
    built = await site.client().build(relu(), OPTIONS)
    peak = built.manifest.stats.peak_memory_bytes
    assert 50 << 20 < peak < 1 << 30
    sha256 = built.manifest.model_sha256
    assert runner.memory_needed(sha256, len(relu())) == int(1.25 * peak)
    assert runner.memory_needed("b" * 64, 1 << 30) > 4 << 30
    assert runner.memory_needed("b" * 64, 1 << 60) == runner.limits.memory_bytes
    await agent.stop()

    again = await site.start_agent()
    assert again.build_runner.memory_needed(sha256, 1) == int(1.25 * peak)
