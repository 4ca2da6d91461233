"""What an engine can be beside fast: part of the plan where it is asked for, or refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from seatkeeper.agent.plugins import Plugins
from seatkeeper.artifacts.errors import FeatureUnsupported, OptionInvalid
from seatkeeper.artifacts.features import Feature, lacking_features, missing_plugins
from seatkeeper.artifacts.plan import BuildPlan, engine_key, plan_from_options, plan_to_options
from seatkeeper.artifacts.precision import Precision, PrecisionPlan
from seatkeeper.client.builds.builds import able_agents, conversion_of
from seatkeeper.core.errors import AgentUnavailable
from seatkeeper.v1 import build_service_pb2 as pb

MODEL = "ab" * 32
PLUGIN, OTHER = "cd" * 32, "ef" * 32
PLAN = BuildPlan(backend="tensorrt_rtx", targets=("SM86",))


@pytest.mark.parametrize(
    "plan",
    [
        *(replace(PLAN, features=frozenset({each})) for each in Feature),
        replace(PLAN, features=frozenset(Feature), plugins=(OTHER, PLUGIN, OTHER)),
        replace(PLAN, plugins=(PLUGIN,)),
    ],
)
def test_a_plan_goes_over_the_wire_and_has_a_key_of_its_own(plan: BuildPlan) -> None:
    assert plan_from_options(plan_to_options(plan)) == plan
    assert engine_key(MODEL, plan, "1.7") != engine_key(MODEL, PLAN, "1.7")


def test_the_order_in_which_plugins_are_named_is_of_no_matter() -> None:
    plans = [replace(PLAN, plugins=each) for each in ((PLUGIN, OTHER), (OTHER, PLUGIN, PLUGIN))]
    assert len({engine_key(MODEL, plan, "1.7") for plan in plans}) == 1


def test_without_any_the_key_is_that_of_older_versions() -> None:
    key = "0e5ed097c6947980bbb9cad8faabf922dc12b15f92c9b0e58f50edbbc302035a"
    assert engine_key(MODEL, PLAN, "1.7.1.116") == key
    assert not PLAN.needs_features


@pytest.mark.parametrize(
    "plugins",
    [("ab",), ("AB" * 32,), ("../" * 21 + "x",), tuple(f"{n:064x}" for n in range(17))],
)
def test_what_is_no_plugin_s_hash_is_refused(plugins: tuple[str, ...]) -> None:
    with pytest.raises(OptionInvalid, match="plugin"):
        replace(PLAN, plugins=plugins)


def test_what_a_backend_does_not_speak_of_it_does_not_know() -> None:
    offered = {"refit": "", "strip_weights": "no GPU"}
    assert lacking_features([Feature.REFIT], offered) == []
    assert lacking_features([Feature.STRIP_WEIGHTS], offered) == ["strip_weights: no GPU"]
    (why,) = lacking_features([Feature.VERSION_COMPATIBLE], offered)
    assert why == "version_compatible: this agent does not know it"
    assert missing_plugins([PLUGIN], [PLUGIN, OTHER]) == ""
    assert "cdcdcdcdcdcd... is not among those" in missing_plugins([PLUGIN], [OTHER])


def agent(name: str, *plugins: str, **features: str) -> pb.AgentInfo:
    backend = pb.BackendInfo(name="tensorrt_rtx", version="1.7", targets=["SM86"])
    for each, lacking in features.items():
        backend.features.add(name=each, lacking=lacking)
    return pb.AgentInfo(
        agent_id=name, backends=[backend], pool="p", model_bytes_max=100, plugins=plugins
    )


def test_only_agents_that_can_are_asked() -> None:
    older, poor, rich = (
        agent("old"),
        agent("poor", refit="no GPU"),
        agent("r", PLUGIN, refit=""),
    )
    refit = replace(PLAN, features=frozenset({Feature.REFIT}))
    both = replace(refit, plugins=(PLUGIN,))
    assert able_agents([older, poor, rich], refit, 1, None)[0] == [rich]
    assert able_agents([older, poor, rich], both, 1, None)[0] == [rich]
    assert len(able_agents([older, poor, rich], PLAN, 1, None)[0]) == 3
    with pytest.raises(AgentUnavailable, match="can build this: refit: no GPU"):
        able_agents([poor], refit, 1, None)
    with pytest.raises(AgentUnavailable, match="refit: this agent does not know it"):
        able_agents([older], refit, 1, None)
    with pytest.raises(AgentUnavailable, match=r"plugin efef.* administrator lists"):
        able_agents([rich], replace(PLAN, plugins=(OTHER,)), 1, None)


def test_agents_that_convert_otherwise_are_asked_only_for_what_is_not_converted() -> None:
    half = replace(PLAN, precision=PrecisionPlan(precision=Precision.FP16))
    agents: list[pb.AgentInfo] = []
    for conversion in ("", "1 onnx-1.9.0", "1 onnx-1.23.2", "1 onnx-1.23.2", "1 onnx-1.3"):
        agents.append(agent(f"agent-{len(agents)}"))
        agents[-1].backends[0].conversion = conversion
        agents[-1].backends[0].precisions.extend(["model", "fp16"])
    able, _ = able_agents(agents, half, 1, None)
    assert [each.agent_id for each in able] == ["agent-2", "agent-3"]
    assert conversion_of(able[0], half) == "1 onnx-1.23.2"
    assert able_agents(agents, PLAN, 1, None)[0] == agents
    assert conversion_of(able[0], PLAN) == ""
    assert able_agents(agents[:1], half, 1, None)[0] == agents[:1], "an older agent alone"


def test_a_plugin_is_copied_only_with_the_bytes_that_it_had(tmp_path: Path) -> None:
    library = tmp_path / "libx.so"
    library.write_bytes(b"as listed")
    sha256 = hashlib.sha256(b"as listed").hexdigest()
    plugins = Plugins.listed([library])
    assert set(plugins.paths) == {sha256}
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    (copy,) = plugins.copied([sha256], tmp_path / "first")
    assert (copy.read_bytes(), copy.suffix) == (b"as listed", ".so")
    library.write_bytes(b"replaced")
    with pytest.raises(FeatureUnsupported, match=r"libx\.so has changed"):
        plugins.copied([sha256], tmp_path / "second")
    library.unlink()
    with pytest.raises(FeatureUnsupported, match=r"libx\.so has changed"):
        plugins.copied([sha256], tmp_path / "third")
    with pytest.raises(OSError, match="No such file"):
        Plugins.listed([library])
