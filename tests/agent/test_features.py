"""Plugins and compatible, stripped or refittable engines: refused by name before a seat is taken."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grpc
import pytest
from tests.agent.site import Site, build, is_idle
from tests.builder.compilers.stub_library import stub_library
from tests.builder.models import relu

from seatkeeper.agent.main import Agent
from seatkeeper.artifacts.features import Feature
from seatkeeper.artifacts.plan import BuildPlan, plan_to_options
from seatkeeper.core.errors import AgentUnavailable, ModelRejected
from seatkeeper.v1 import build_pb2

RELU = relu()
PLUGIN_FUNCTIONS = ["getCreators", "getPluginCreators", "setLoggerFinder"]
REASONS = {
    Feature.VERSION_COMPATIBLE: r"libnvinfer_lean\.so\.1",
    Feature.HARDWARE_COMPATIBLE: "name each with --target",
    Feature.STRIP_WEIGHTS: "this host has no GPU",
    Feature.REFIT: "this host has no GPU",
}
"""Of TensorRT-RTX where there is no GPU."""


def options(*features: Feature, plugins: tuple[str, ...] = ()) -> build_pb2.BuildOptions:
    return plan_to_options(
        BuildPlan(
            backend="tensorrt_rtx",
            targets=("SM86",),
            features=frozenset(features),
            plugins=plugins,
        )
    )


async def assert_refused_on_the_wire(
    site: Site, agent: Agent, wanted: build_pb2.BuildOptions
) -> None:
    grant = await site.grant()
    refusal = await build(agent, grant.token, RELU, options=wanted).refused()
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, refusal
    assert refusal.reason == "feature_unsupported"
    assert site.claims == []
    assert await site.published() == []
    assert is_idle(agent)


@pytest.mark.parametrize("feature", Feature)
async def test_what_the_library_cannot_do_here_is_refused_with_its_reason(
    site: Site, agent: Agent, feature: Feature
) -> None:
    wanted = options(feature)
    with pytest.raises(AgentUnavailable, match=rf"{feature}: .*{REASONS[feature]}"):
        await site.client().build(RELU, wanted)
    assert site.fence == 0, "no seat was taken"
    await assert_refused_on_the_wire(site, agent, wanted)


async def test_a_plugin_that_is_not_listed_takes_no_seat(site: Site, agent: Agent) -> None:
    wanted = options(plugins=("ab" * 32,))
    with pytest.raises(AgentUnavailable, match=r"plugin abab.* administrator lists"):
        await site.client().build(RELU, wanted)
    assert site.fence == 0
    await assert_refused_on_the_wire(site, agent, wanted)


async def test_a_plugin_that_is_listed_is_loaded_and_refused_in_the_library_s_words(
    site: Site, tmp_path: Path
) -> None:
    """A library without a plugin in it: the compiler loads it, and refuses it in its own words."""
    library = tmp_path / "libplugin.so"
    library.write_bytes(stub_library("libplugin.so", PLUGIN_FUNCTIONS))
    sha256 = hashlib.sha256(library.read_bytes()).hexdigest()
    agent = await site.start_agent("with-plugins", plugins=str(library))
    assert list(agent.info.plugins) == [sha256]
    with pytest.raises(ModelRejected, match=r"cannot load plugin-.*No creator returned"):
        await site.client().build(RELU, options(plugins=(sha256,)))
    assert site.claims == []
    assert await site.published() == []
    assert is_idle(agent)
    library.write_bytes(b"replaced")
    await assert_refused_on_the_wire(site, agent, options(plugins=(sha256,)))
    assert not (await site.client("bob").build(RELU, options())).cached
