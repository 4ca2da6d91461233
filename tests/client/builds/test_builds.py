"""From a model to an engine on disk, with agents that compile nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import DebugInfo
from tests.client.fakes import FakeClock
from tests.client.scripted import ScriptedNode, ScriptedService, eventually
from tests.client.scripted_agent import VERSION, ScriptedAgent, ScriptedCatalogue

from seatkeeper.artifacts.manifest import AgentKey
from seatkeeper.artifacts.plan import plan_from_options
from seatkeeper.client import (
    AgentFull,
    AgentUnavailable,
    AsyncSeatClient,
    BuildTimedOut,
    CompilerCrashed,
    EngineDamaged,
    EngineNotFound,
    InvalidArgument,
    ModelRejected,
    SeatClient,
    SeatError,
    SeatLost,
)
from seatkeeper.client.builds.builds import able_agents
from seatkeeper.client.builds.model import Model
from seatkeeper.client.builds.placement import in_ring_order
from seatkeeper.v1 import build_pb2, build_service_pb2

OPTIONS = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])
MODEL = bytes(range(256)) * 10_000
Code = grpc.StatusCode


@pytest.fixture
def catalogue() -> ScriptedCatalogue:
    return ScriptedCatalogue()


@pytest.fixture
async def agents(catalogue: ScriptedCatalogue) -> AsyncIterator[list[ScriptedAgent]]:
    agents = [ScriptedAgent(catalogue, f"agent-{i}") for i in (1, 2, 3)]
    for agent in agents:
        await agent.start()
    yield agents
    for agent in agents:
        await agent.kill()


@pytest.fixture
async def node(
    service: ScriptedService, catalogue: ScriptedCatalogue
) -> AsyncIterator[ScriptedNode]:
    node = ScriptedNode(service, "node-1")
    node.more.append(catalogue.add_to)
    await node.start()
    yield node
    await node.kill()


@pytest.fixture(params=["process", "helper"])
async def client(
    node: ScriptedNode, clock: FakeClock, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncSeatClient]:
    """A client that knows one node, and keeps its session itself, or has a helper do it."""
    async with AsyncSeatClient(
        node.address,
        holder="alice@host",
        project="cv",
        clock=clock if request.param == "process" else None,
    ) as client:
        yield client
        node.resume()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL)
    return path


def builders(agents: list[ScriptedAgent]) -> list[ScriptedAgent]:
    return [agent for agent in agents if agent.builds]


async def test_a_model_becomes_an_engine_under_a_seat(
    client: AsyncSeatClient,
    agents: list[ScriptedAgent],
    service: ScriptedService,
    model: Path,
    tmp_path: Path,
) -> None:
    progress: list[build_service_pb2.BuildProgress] = []
    to = tmp_path / "model.engine"
    built = await client.build(model, OPTIONS, to=to, on_progress=progress.append)
    (builder,) = builders(agents)
    (header,) = builder.builds
    assert header.token.startswith("token-")
    assert header.model_name == "model.onnx"
    assert header.model_sha256 == hashlib.sha256(MODEL).hexdigest()
    assert builder.models == [MODEL]
    assert to.read_bytes() == MODEL[::-1]
    assert built.path == to
    assert not built.cached
    assert built.manifest.agent_id == builder.info.agent_id
    assert [p.steps for p in progress] == [7]
    assert service.count("acquire") == 1
    assert not service.grants


async def test_what_is_said_of_the_seat_of_a_build_reaches_the_service(
    client: AsyncSeatClient, agents: list[ScriptedAgent], service: ScriptedService
) -> None:
    async with client.seat("tensorrt", seats=2):
        building = asyncio.create_task(
            client.build(MODEL, OPTIONS, project="nlp", priority=3, labels={"ci/job": "7"})
        )
        await eventually(lambda: bool(service.tickets))
        (ticket,) = service.tickets.values()
    await building
    asked = ticket.acquire
    assert (asked.pool, asked.project, asked.priority) == ("tensorrt", "nlp", 3)
    assert asked.attributes.labels == {"ci/job": "7"}


async def test_an_engine_that_exists_needs_no_seat(
    client: AsyncSeatClient, agents: list[ScriptedAgent], service: ScriptedService
) -> None:
    first = await client.build(MODEL, OPTIONS)
    again = await client.build(MODEL, OPTIONS)
    assert again.cached
    assert again.key == first.key
    assert again.waited == timedelta(0)
    assert service.count("acquire") == 1
    assert len(builders(agents)) == 1


async def test_an_engine_that_was_published_while_we_waited_is_not_built_again(
    client: AsyncSeatClient, agents: list[ScriptedAgent], service: ScriptedService
) -> None:
    async with client.seat("tensorrt", seats=2):
        building = asyncio.create_task(client.build(MODEL, OPTIONS))
        await eventually(lambda: bool(service.tickets))
        agents[0].publish(OPTIONS, MODEL)
    assert (await building).cached
    assert not builders(agents)


async def test_an_engine_whose_agents_are_gone_is_built_again(
    client: AsyncSeatClient, agents: list[ScriptedAgent], catalogue: ScriptedCatalogue
) -> None:
    first = await client.build(MODEL, OPTIONS)
    catalogue.engines[first.key].ClearField("addresses")
    assert not (await client.build(MODEL, OPTIONS)).cached


async def test_everybody_asks_the_same_agent_first_and_the_next_when_it_is_gone(
    client: AsyncSeatClient, agents: list[ScriptedAgent]
) -> None:
    built = await client.build(MODEL, OPTIONS)
    by_id = {agent.info.agent_id: agent for agent in agents}
    order = [
        by_id[info.agent_id] for info in in_ring_order([a.info for a in agents], built.key)
    ]
    assert builders(agents) == [order[0]]
    await order[0].kill()
    order[1].fail_with = (Code.RESOURCE_EXHAUSTED, "full")
    order[2].catalogue.engines.clear()
    again = await client.build(MODEL, OPTIONS)
    assert again.manifest.agent_id == order[2].info.agent_id


async def test_when_every_agent_is_full_the_error_may_be_retried(
    client: AsyncSeatClient, agents: list[ScriptedAgent], service: ScriptedService
) -> None:
    for agent in agents:
        agent.fail_with = (Code.RESOURCE_EXHAUSTED, "full")
    with pytest.raises(AgentFull) as caught:
        await client.build(MODEL, OPTIONS)
    assert caught.value.retryable
    assert not service.grants


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.INVALID_ARGUMENT, ModelRejected),
        (Code.DEADLINE_EXCEEDED, BuildTimedOut),
        (Code.ABORTED, SeatLost),
    ],
)
async def test_what_went_wrong_has_a_name_and_is_not_tried_elsewhere(
    client: AsyncSeatClient,
    agents: list[ScriptedAgent],
    service: ScriptedService,
    code: Code,
    kind: type[SeatError],
) -> None:
    for agent in agents:
        agent.fail_with = (code, "reported")
    # Most of these name the model: who builds many must know which it was.
    named = "" if code is Code.ABORTED else "^light.onnx: "
    with pytest.raises(kind, match=f"{named}reported"):
        await client.build(MODEL, OPTIONS, model_name="light.onnx")
    assert len(builders(agents)) == 1
    assert not service.grants


async def test_a_crash_comes_with_its_stderr_tail_and_is_not_tried_elsewhere(
    client: AsyncSeatClient, agents: list[ScriptedAgent]
) -> None:
    for agent in agents:
        agent.fail_with = (Code.INTERNAL, "died", DebugInfo(detail="Segmentation fault"))
    with pytest.raises(CompilerCrashed, match="died") as caught:
        await client.build(MODEL, OPTIONS)
    assert caught.value.stderr_tail == "Segmentation fault"
    assert len(builders(agents)) == 1


async def test_a_call_that_breaks_inside_grpc_is_no_crash_and_is_tried_elsewhere(
    client: AsyncSeatClient, agents: list[ScriptedAgent]
) -> None:
    for agent in agents[:-1]:
        agent.fail_with = (Code.INTERNAL, "Internal error from Core")
    built = await client.build(MODEL, OPTIONS)
    assert built.manifest.agent_id == agents[-1].info.agent_id
    agents[-1].fail_with = agents[0].fail_with
    with pytest.raises(AgentUnavailable) as caught:
        await client.build(MODEL + b" another", OPTIONS)
    assert caught.value.retryable


async def test_a_build_stops_when_its_seat_is_lost(
    client: AsyncSeatClient, agents: list[ScriptedAgent], service: ScriptedService
) -> None:
    for agent in agents:
        agent.hang = True
    building = asyncio.create_task(client.build(MODEL, OPTIONS))
    await eventually(lambda: any(agent.models for agent in agents))
    (grant_id,) = service.grants
    service.force_release(grant_id)
    with pytest.raises(SeatLost, match="lost before the agent said"):
        await building
    await builders(agents)[0].stopped.wait()


async def test_cancelling_stops_the_build_and_gives_the_seat_back(
    client: AsyncSeatClient, agents: list[ScriptedAgent], service: ScriptedService
) -> None:
    for agent in agents:
        agent.hang = True
    building = asyncio.create_task(client.build(MODEL, OPTIONS))
    await eventually(lambda: any(agent.models for agent in agents))
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    await builders(agents)[0].stopped.wait()
    await eventually(lambda: not service.grants)


async def test_a_manifest_by_another_key_is_not_believed(
    client: AsyncSeatClient, agents: list[ScriptedAgent]
) -> None:
    for agent in agents:
        agent.signs_with = AgentKey.generate()
    with pytest.raises(EngineDamaged, match="another key"):
        await client.build(MODEL, OPTIONS)


async def test_a_damaged_engine_never_reaches_its_place(
    client: AsyncSeatClient, agents: list[ScriptedAgent], tmp_path: Path
) -> None:
    built = await client.build(MODEL, OPTIONS)
    (builder,) = builders(agents)
    to = tmp_path / "model.engine"
    to.write_bytes(b"old")
    for damage in (b"x", None):
        if damage is None:
            builder.damage = b""
            builder.bytes_of[built.key] = builder.bytes_of[built.key][:-1]
        else:
            builder.damage = damage
        with pytest.raises(EngineDamaged):
            await client.fetch(built.key, to)
    assert to.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [to.name]


async def test_an_engine_is_fetched_from_an_agent_that_has_it(
    client: AsyncSeatClient,
    agents: list[ScriptedAgent],
    catalogue: ScriptedCatalogue,
    tmp_path: Path,
) -> None:
    built = await client.build(MODEL, OPTIONS)
    others = [agent for agent in agents if not agent.builds]
    await others[0].kill()
    catalogue.engines[built.key].addresses[:] = [
        others[0].info.address,
        others[1].info.address,
        builders(agents)[0].info.address,
    ]
    to = tmp_path / "model.engine"
    manifest = await client.fetch(built.key, to)
    assert to.read_bytes() == MODEL[::-1]
    assert manifest == built.manifest


async def test_an_engine_that_no_agent_has_is_not_found(
    client: AsyncSeatClient,
    agents: list[ScriptedAgent],
    catalogue: ScriptedCatalogue,
    tmp_path: Path,
) -> None:
    with pytest.raises(EngineNotFound):
        await client.fetch("0" * 64, tmp_path / "e")
    built = await client.build(MODEL, OPTIONS)
    catalogue.engines[built.key].ClearField("addresses")
    with pytest.raises(AgentUnavailable, match="build it again"):
        await client.fetch(built.key, tmp_path / "e")
    assert not os.listdir(tmp_path)


async def test_a_program_without_an_event_loop_builds_too(
    node: ScriptedNode, agents: list[ScriptedAgent], tmp_path: Path
) -> None:
    def work() -> None:
        with SeatClient(node.address) as client:
            built = client.build(MODEL, OPTIONS, model_name="m.onnx", to=tmp_path / "e")
            assert client.fetch(built.key, tmp_path / "e2") == built.manifest
            assert client.capabilities(agents[0].info.address) == agents[0].info

    await asyncio.to_thread(work)
    assert (tmp_path / "e").read_bytes() == (tmp_path / "e2").read_bytes()


async def test_every_engine_is_listed_page_by_page(
    client: AsyncSeatClient, agents: list[ScriptedAgent], catalogue: ScriptedCatalogue
) -> None:
    for number in range(5):
        agents[0].publish(OPTIONS, bytes([number]))
    listed = [engine async for engine in client.engines.list()]
    assert listed == [catalogue.engines[key] for key in sorted(catalogue.engines)]


@pytest.mark.parametrize(
    "options",
    [
        build_pb2.BuildOptions(backend="other", targets=["SM86"]),
        build_pb2.BuildOptions(backend="tensorrt_rtx"),
    ],
)
async def test_options_that_contradict_themselves_are_the_callers_mistake(
    client: AsyncSeatClient, options: build_pb2.BuildOptions
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.build(MODEL, options)
    assert caught.value.field == "options"


async def test_a_model_that_cannot_be_read_is_the_callers_mistake(
    client: AsyncSeatClient, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        await client.build(tmp_path / "none.onnx", OPTIONS)


def info(name: str, version: str = VERSION, **fields: object) -> build_service_pb2.AgentInfo:
    backend = build_service_pb2.BackendInfo(
        name="tensorrt_rtx", version=version, targets=["SM86", "SM89"]
    )
    made = build_service_pb2.AgentInfo(
        agent_id=name, backends=[backend], pool="tensorrt", model_bytes_max=100
    )
    for field, value in fields.items():
        setattr(made, field, value)
    return made


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (b"net.onnx", "net.onnx"),
        (b"a net.onnx", "a net.onnx"),
        (b"mod\xe9le.onnx", "mod%e9le.onnx"),
        (b"\xff\xfe", "%ff%fe"),
        (b"a\\b.onnx", "a%b.onnx"),
        ("mod\u00e8le.onnx".encode(), "mod\u00e8le.onnx"),
    ],
)
def test_a_manifest_has_the_whole_name_of_a_file(
    tmp_path: Path, file: bytes, name: str
) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + file))
    path.write_bytes(b"a model")
    assert Model.read(path, None).name == name


def test_only_agents_that_can_do_it_are_asked() -> None:
    plan = plan_from_options(OPTIONS)
    small = info("small", model_bytes_max=10)
    old, new, newest = info("old", "1.7.1"), info("new", "1.10.0"), info("newest", "1.10.0.1")
    able, version = able_agents([small, old, newest, new], plan, 50, None)
    assert ([agent.agent_id for agent in able], version) == (["newest"], "1.10.0.1")
    assert [agent.agent_id for agent in able_agents([small, old], plan, 10, None)[0]] == [
        "small"
    ]


@pytest.mark.parametrize(
    ("agents", "plan", "pool", "why"),
    [
        ([], {}, None, ["no build agent is alive", "`seatkeeper agent`"]),
        (["big"], {}, "other", ["seats of pool other;", "seats of tensorrt"]),
        (["big"], {"backend": "tensorrt"}, None, ["backend tensorrt;", "tensorrt_rtx"]),
        (
            ["big", "small"],
            {"targets": ["SM86", "SM120"]},
            "tensorrt",
            ["of pool tensorrt", "for SM86, SM120;", "build for SM86 SM89"],
        ),
        (["tiny", "small"], {}, None, ["50 bytes", "than 10 (agent small)", "model_bytes_max"]),
    ],
    ids=["no_agent", "pool", "backend", "targets", "size"],
)
def test_when_no_agent_can_do_it_the_error_says_what_they_lack(
    agents: list[str], plan: dict[str, Any], pool: str | None, why: list[str]
) -> None:
    limits = {"tiny": 5, "small": 10, "big": 100}
    known = [info(name, model_bytes_max=limits[name]) for name in agents]
    options = {"backend": "tensorrt_rtx", "targets": ["SM86"]} | plan
    with pytest.raises(AgentUnavailable) as caught:
        able_agents(known, plan_from_options(build_pb2.BuildOptions(**options)), 50, pool)
    assert [words for words in why if words not in str(caught.value)] == []
    # The size is to blame only when it is.
    assert ("bytes" in str(caught.value)) == ("50 bytes" in why)


def test_an_agent_that_does_not_name_a_precision_is_not_asked_for_it() -> None:
    """An older one knows nothing of precisions, and would compile the model as it is."""
    options = build_pb2.BuildOptions()
    options.CopyFrom(OPTIONS)
    options.precision.precision = "fp16"
    plan = plan_from_options(options)
    old, new = info("old"), info("new")
    new.backends[0].precisions.append("fp16")
    assert [agent.agent_id for agent in able_agents([old, new], plan, 1, None)[0]] == ["new"]
    with pytest.raises(AgentUnavailable, match="for SM86 converts to fp16; use a newer agent"):
        able_agents([old], plan, 1, None)


def test_agents_of_one_pool_only_share_a_build() -> None:
    able, _ = able_agents(
        [info("a", pool="b-pool"), info("b", pool="a-pool")],
        plan_from_options(OPTIONS),
        1,
        None,
    )
    assert [agent.agent_id for agent in able] == ["b"]


def test_the_ring_moves_little_when_an_agent_goes() -> None:
    agents = [info(f"agent-{i}") for i in range(8)]
    keys = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
    before = {key: in_ring_order(agents, key)[0].agent_id for key in keys}
    after = {key: in_ring_order(agents[1:], key)[0].agent_id for key in keys}
    moved = [key for key in keys if before[key] != after[key]]
    assert {before[key] for key in moved} == {"agent-0"}
