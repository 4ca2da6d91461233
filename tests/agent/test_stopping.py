"""The end of a build - by client, signal, clock or agent - ends all of it, and no other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.agent.site import OPTIONS, POOL, Site, build, eventually, is_idle, key_of, workers
from tests.builder.models import light_model, relu, relu_chain

from seatkeeper.agent.failures import LINES_LOGGED_MAX
from seatkeeper.agent.main import Agent
from seatkeeper.client import CompilerCrashed
from seatkeeper.v1 import build_service_pb2 as pb
from seatkeeper.v1.engine_service_pb2 import ClaimGrantResponse

LONG = relu_chain(10_000)
"""Compiles for more than a minute, so whatever ends sooner was ended."""


async def test_kill_9_of_a_worker_fails_its_build_alone(site: Site, agent: Agent) -> None:
    alice, bob = [await site.grant(name) for name in ("alice", "bob")]
    first = build(agent, alice.token, LONG)
    await first.until(pb.BUILD_PHASE_CHECKING)
    (worker,) = workers(agent)
    second = build(agent, bob.token, light_model("resnet50"))
    await eventually(lambda: len(workers(agent)) == 2)

    os.kill(worker.pid, signal.SIGKILL)
    refusal = await first.refused()
    assert refusal.code is grpc.StatusCode.INTERNAL, refusal
    assert refusal.reason == "worker_killed"
    assert refusal.detail(error_details_pb2.DebugInfo) is not None
    done = await second.result()
    assert await site.published() == [key_of(done)]
    assert site.claims == []
    assert is_idle(agent)


async def test_a_client_whose_worker_was_killed_gives_its_seat_back(
    site: Site, agent: Agent
) -> None:
    def kill(progress: pb.BuildProgress) -> None:
        for worker in workers(agent):
            worker.kill()

    with pytest.raises(CompilerCrashed, match="killed"):
        await site.client().build(LONG, OPTIONS, on_progress=kill)
    assert site.service.held(POOL) == 0
    assert await site.published() == []
    assert is_idle(agent)


async def test_the_output_of_a_dying_compiler_is_logged_and_reported(
    site: Site, agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.build_runner.limits = replace(agent.build_runner.limits, stack_bytes=8 << 20)
    with pytest.raises(CompilerCrashed, match=r"^deep\.onnx: the compiler died") as caught:
        await site.client().build(relu_chain(3_000), OPTIONS, model_name="deep.onnx")
    assert "Segmentation fault" in caught.value.stderr_tail
    (record,) = [each for each in caplog.records if each.message == "worker_failed"]
    about = vars(record)
    assert (about["code"], about["model"]) == ("compiler_crashed", "deep.onnx")
    assert "Segmentation fault" in "".join(about["stderr_tail"])
    assert len(about["stderr_tail"]) <= LINES_LOGGED_MAX


@pytest.mark.parametrize("phase", [pb.BUILD_PHASE_CHECKING, pb.BUILD_PHASE_BUILDING])
async def test_a_build_ends_when_its_client_goes(
    site: Site, agent: Agent, phase: pb.BuildPhase.ValueType
) -> None:
    grant = await site.grant()
    call = build(agent, grant.token, LONG)
    await call.until(phase)
    (worker,) = workers(agent)
    call.cancel()
    await eventually(lambda: not worker.is_running())
    await eventually(lambda: is_idle(agent) and not site.claims)
    assert await site.published() == []
    assert agent.build_runner.store.keys() == []
    assert not (await build(agent, grant.token, relu()).result()).cached


async def test_a_client_that_is_interrupted_gives_its_seat_back(
    site: Site, agent: Agent
) -> None:
    building = asyncio.create_task(site.client().build(LONG, OPTIONS))
    await eventually(lambda: workers(agent))
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert site.service.held(POOL) == 0
    await eventually(lambda: is_idle(agent))
    assert site.claims == []


async def test_a_client_that_goes_while_its_seat_is_claimed_leaves_no_claim(
    site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has made the claim, and the agent does not know it yet."""
    grant = await site.grant()
    claim = agent.client.engines.claim

    async def slow_claim(
        token: str, *, agent_id: str, claim_id: str
    ) -> AsyncIterator[ClaimGrantResponse]:
        async for event in claim(token, agent_id=agent_id, claim_id=claim_id):
            await asyncio.Event().wait()
            yield event

    monkeypatch.setattr(agent.client.engines, "claim", slow_claim)
    call = build(agent, grant.token, relu())
    await eventually(lambda: site.claims)
    call.cancel()
    await eventually(lambda: not site.claims)


async def test_a_client_that_goes_while_it_waits_for_another_s_build_leaves_no_claim(
    site: Site, agent: Agent
) -> None:
    alice, bob = [await site.grant(name) for name in ("alice", "bob")]
    first = build(agent, alice.token, LONG)
    await first.until(pb.BUILD_PHASE_CHECKING)
    second = build(agent, bob.token, LONG)
    await eventually(lambda: len(site.claims) == 2)
    second.cancel()
    await eventually(lambda: site.claims == [(alice.grant_id, "agent-1")])
    assert len(workers(agent)) == 1
    first.cancel()
    await eventually(lambda: is_idle(agent))


async def test_who_waits_builds_when_the_other_gives_up(site: Site, agent: Agent) -> None:
    model = relu_chain(3)
    alice, bob = [await site.grant(name) for name in ("alice", "bob")]
    begun = asyncio.Event()
    compile_engine = agent.build_runner.compile

    async def compile_never(*arguments: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent.build_runner, "compile", compile_never)
        first = build(agent, alice.token, model)
        await begun.wait()
    assert agent.build_runner.compile == compile_engine
    second = build(agent, bob.token, model)
    await eventually(lambda: len(site.claims) == 2)
    first.cancel()
    assert not (await second.result()).cached


async def test_a_build_that_takes_too_long_is_ended(site: Site) -> None:
    agent = await site.start_agent(build_timeout=0.5)
    grant = await site.grant()
    refusal = await build(agent, grant.token, LONG).refused()
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED, refusal
    assert refusal.reason == "build_timeout"
    assert await site.published() == []
    assert site.claims == []
    assert is_idle(agent)


async def test_an_agent_that_stops_leaves_no_build_behind(site: Site) -> None:
    agent = await site.start_agent()
    grant = await site.grant()
    call = build(agent, grant.token, LONG)
    await call.until(pb.BUILD_PHASE_CHECKING)
    await agent.stop()
    assert is_idle(agent)
    assert site.claims == []
    refusal = await call.refused()
    assert refusal.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}, refusal
    assert await site.published() == []


async def test_a_build_that_is_nearly_done_may_finish_while_the_agent_stops(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await site.start_agent(stop_grace=60)
    grant = await site.grant()
    call = build(agent, grant.token, relu())
    await eventually(lambda: workers(agent))
    await agent.stop()
    done = await call.result()
    assert await site.published() == [key_of(done)]
