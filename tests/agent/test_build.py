"""From a model to a published engine, with a real compiler under a real seat."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.agent.site import (
    OPTIONS,
    POOL,
    Site,
    build,
    eventually,
    is_idle,
    workers,
)
from tests.builder.models import dynamic_relu, light_model, relu, relu_chain

from seatkeeper.agent.main import Agent
from seatkeeper.artifacts.manifest import verify_engine_file, verify_manifest
from seatkeeper.builder.backends.tensorrt import check_rtx_engine
from seatkeeper.builder.compile import CompiledEngine
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import build_service_pb2 as pb


@pytest.mark.parametrize("network", ["squeezenet", "resnet50"])
async def test_a_network_becomes_an_engine_under_a_seat(
    site: Site, agent: Agent, tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = light_model(network)
    progress: list[pb.BuildProgress] = []
    held: list[int] = []
    compile_once = agent.build_runner.compile

    async def compile_before_a_quick_client(*given: Any) -> CompiledEngine:
        """Only the newest progress is kept for a client: this one receives it before the next."""
        engine = await compile_once(*given)
        await eventually(lambda: progress and progress[-1].steps > 0)
        return engine

    monkeypatch.setattr(agent.build_runner, "compile", compile_before_a_quick_client)

    def on_progress(now: pb.BuildProgress) -> None:
        progress.append(now)
        held.append(site.service.held(POOL))

    to = tmp_path / "model.engine"
    built = await site.client().build(
        model, OPTIONS, model_name="net.onnx", to=to, on_progress=on_progress
    )

    assert not built.cached
    assert set(held) == {1}
    phases = [each.phase for each in progress]
    assert phases == sorted(phases)
    assert phases[0] == pb.BUILD_PHASE_RECEIVING
    assert pb.BUILD_PHASE_BUILDING in phases
    assert any(each.steps > 0 for each in progress)
    times = [each.elapsed_millis for each in progress]
    assert all(earlier <= later for earlier, later in pairwise(times))

    published = await site.client().engines.get(built.key)
    assert verify_engine_file(to, published.manifest, agent.info.public_key) == built.manifest
    assert list(published.addresses) == [agent.info.address]
    check_rtx_engine(to.read_bytes())
    assert built.manifest.model_sha256 == hashlib.sha256(model).hexdigest()
    assert built.manifest.model_name == "net.onnx"
    assert built.manifest.agent_id == "agent-1"
    assert (built.manifest.holder, built.manifest.project) == ("alice", "cv")
    assert (built.manifest.pool, built.manifest.fence) == (POOL, 1)

    assert await site.published() == [built.key]
    assert site.service.held(POOL) == 0
    assert is_idle(agent)


async def test_what_was_built_before_needs_no_seat(site: Site, agent: Agent) -> None:
    first = await site.client().build(relu(), OPTIONS)
    assert site.fence == 1
    again = await site.client("bob").build(relu(), OPTIONS)
    assert again.cached
    assert again.manifest == first.manifest
    assert site.fence == 1


async def test_an_agent_that_is_asked_again_does_not_build_again(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    first = await build(agent, grant.token, relu()).result()
    again = await build(agent, grant.token, relu()).result()
    assert (first.cached, again.cached) == (False, True)
    assert again.manifest == first.manifest
    assert site.claims == []


async def test_one_seat_is_good_for_one_build_after_another(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    keys = set()
    for length in (1, 2, 3):
        done = await build(agent, grant.token, relu_chain(length)).result()
        keys.add(verify_manifest(done.manifest, agent.info.public_key).key)
    assert sorted(keys) == await site.published()
    assert len(keys) == 3
    assert site.fence == 1


async def test_two_seats_for_the_same_share_one_build(site: Site, agent: Agent) -> None:
    """As clients have them whose requests do not name the work."""
    model = light_model("resnet50")
    calls = [
        build(agent, (await site.grant(name)).token, model, model_name=name)
        for name in ("alice", "bob")
    ]
    seen: set[int] = set()

    async def look() -> None:
        while True:
            seen.update(process.pid for process in workers(agent))
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    alice, bob = await asyncio.gather(*(call.result() for call in calls))
    looking.cancel()
    assert alice.manifest == bob.manifest
    assert {alice.cached, bob.cached} == {True, False}
    assert len(seen) == 1


async def test_another_option_is_another_engine(site: Site, agent: Agent) -> None:
    profile = build_pb2.Profile(
        shapes=[build_pb2.ProfileShape(input="x", min=[1, 4], opt=[8, 4], max=[32, 4])]
    )
    model = dynamic_relu().SerializeToString()
    first = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"], profiles=[profile])
    others = [build_pb2.BuildOptions() for _ in range(3)]
    for other in others:
        other.CopyFrom(first)
    others[0].targets[:] = ["SM89"]
    others[1].optimisation_level = 1
    others[2].profiles[0].shapes[0].max[0] = 64
    keys = {
        (await site.client().build(model, options, model_name="m.onnx")).key
        for options in (first, *others)
    }
    assert sorted(keys) == await site.published()
    assert len(keys) == 4


async def test_the_order_of_targets_makes_no_other_engine(site: Site, agent: Agent) -> None:
    one, other = (
        build_pb2.BuildOptions(backend="tensorrt_rtx", targets=targets)
        for targets in (["SM86", "SM89"], ["SM89", "SM86", "SM86"])
    )
    first = await site.client().build(relu(), one)
    again = await site.client().build(relu(), other)
    assert again.cached
    assert again.key == first.key


async def test_builds_of_different_keys_run_side_by_side(site: Site, agent: Agent) -> None:
    grants = [await site.grant(name) for name in ("alice", "bob")]
    calls = [
        build(agent, grant.token, relu_chain(length))
        for grant, length in zip(grants, (10_000, 10_001), strict=True)
    ]
    await eventually(lambda: len(workers(agent)) == 2)
    for call in calls:
        call.cancel()
    await eventually(lambda: is_idle(agent))
