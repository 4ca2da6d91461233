"""Three real agents: one is killed at each stage of a build, or drained, and the build is not lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from onnx import TensorProto
from tests.agent.site import POOL, TIME_LIMIT_SECONDS
from tests.builder.models import conv_net, light_model, model, relu
from tests.cli.commands import Running, eventually, seatkeeper, started

from seatkeeper.artifacts.store import EngineStore
from seatkeeper.cli.exits import Exit
from seatkeeper.client import BuiltEngine, SeatClient
from seatkeeper.testing.service import InMemoryService
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import build_service_pb2 as pb

NAMES = ("agent-1", "agent-2", "agent-3")
WIDE = 512
OPTIONS = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])


@dataclass
class Fleet:
    """A service with one seat, three agents, and a client."""

    service: InMemoryService
    client: SeatClient
    observer: SeatClient
    folder: Path
    running: dict[str, Running] = field(default_factory=dict)

    def builder(self) -> str:
        """The agent that has claimed the seat; empty: none has."""
        grants = self.observer.pools.get(POOL).grants
        return next((grant.agent_id for grant in grants if grant.agent_id), "")

    def kill(self, name: str) -> None:
        """As if its host had burnt down."""
        self.running[name].send(signal.SIGKILL)

    def cli(self, *words: str) -> Any:
        """What a command says in JSON."""
        return seatkeeper(*words, "--nodes", self.service.address, "--json").check(Exit.OK).json

    def check(self) -> None:
        """Fail unless no seat is held, and every engine that can be seen is whole."""
        eventually(lambda: self.service.held(POOL) == 0, "the seat is free")
        listed = {
            build_pb2.EngineManifest.FromString(each.manifest.manifest).key: each
            for each in self.client.engines.list()
        }
        for key, engine in listed.items():
            if engine.addresses:
                self.client.fetch(key, self.folder / "fetched")
        for name in NAMES:
            store = EngineStore(self.folder / name)
            for key in list(store.keys()):
                with store.open(key) as whole:
                    assert whole.manifest.key == key


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        # Sessions outlive the moments in which this process packs a large model, on a busy machine.
        service = stack.enter_context(
            InMemoryService({POOL: 1}, session_ttl=timedelta(seconds=15))
        )
        client = stack.enter_context(SeatClient(service.address, holder="alice"))
        observer = stack.enter_context(SeatClient(service.address, holder="observer"))
        fleet = Fleet(service, client, observer, tmp_path)
        for name in NAMES:
            words = ["agent", "--agent-id", name, "--listen", "127.0.0.1:0"]
            words += ["--nodes", service.address, "--engines", str(tmp_path / name)]
            says = tmp_path / f"{name}-says"
            says.mkdir()
            fleet.running[name] = stack.enter_context(started(*words, folder=says))
        for running in fleet.running.values():
            running.says('"serving"')
        yield fleet


def wide_net() -> bytes:
    """``conv_net`` on large images, which takes its time to calibrate and to compare."""
    found = conv_net()
    for dim in found.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = WIDE
    return found.SerializeToString()


def sized_options(precision: str = "") -> build_pb2.BuildOptions:
    """Options for ``conv_net``."""
    options = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])
    options.precision.precision = precision
    shape = options.profiles.add().shapes.add(input="x")
    side = WIDE if precision == "int8" else 8
    for sizes in (shape.min, shape.opt, shape.max):
        sizes.extend((1, 3, side, side))
    return options


class Killer:
    """Kills the agent that builds, once, as soon as the build is seen at a stage."""

    def __init__(self, fleet: Fleet, stage: str) -> None:
        self.killed = ""
        self.grants: set[str] = set()
        self._fleet = fleet
        self._stage = stage
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        if self._stage in {"claimed", "receiving"}:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(TIME_LIMIT_SECONDS)

    def look(self, progress: pb.BuildProgress) -> None:
        """Receive the progress of the build."""
        self._note_grant()
        phase = pb.BuildPhase.Name(progress.phase).removeprefix("BUILD_PHASE_").lower()
        if self._stage == "calibrating" and progress.step in {"int8", "comparing"}:
            phase = self._stage
        if phase == self._stage != "receiving":
            self._kill()

    def _watch(self) -> None:
        """See what no progress reports: a claim, and a model of which a part is there."""
        while not self.killed and not self._over.is_set():
            name = self._fleet.builder()
            parts = (self._fleet.folder / name / "staging" / "uploads").rglob("*")
            if name and (self._stage == "claimed" or any(_size(part) for part in parts)):
                self._kill()

    def _kill(self) -> None:
        if not self.killed and (name := self._fleet.builder()):
            self.killed = name
            self._note_grant()
            self._fleet.kill(name)

    def _note_grant(self) -> None:
        grants = self._fleet.observer.pools.get(POOL).grants
        self.grants.update(grant.grant_id for grant in grants)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def ballast() -> bytes:
    """A small model in a large file, which takes its time to come."""
    weights = TensorProto(name="unused", dims=[50 << 20], data_type=TensorProto.FLOAT)
    weights.raw_data = bytes(200 << 20)
    return model(constants=[weights]).SerializeToString()


MODELS: dict[str, Callable[[], bytes]] = {
    "claimed": lambda: light_model("squeezenet"),
    "receiving": ballast,
    "converting": lambda: conv_net().SerializeToString(),
    "calibrating": wide_net,
    "building": lambda: light_model("squeezenet"),
    "publishing": lambda: light_model("squeezenet"),
}


PRECISIONS = {"converting": "fp16", "calibrating": "int8"}


@pytest.mark.parametrize("stage", MODELS)
def test_a_build_survives_the_agent_that_runs_it(fleet: Fleet, stage: str) -> None:
    """Killed with -9 at a stage, once; its seat stays, and another agent builds."""
    options = OPTIONS
    if stage in PRECISIONS:
        options = sized_options(PRECISIONS[stage])
        options.precision.calibration.random = stage == "calibrating"
        options.precision.tolerance = 1.0
    with Killer(fleet, stage) as killer:
        built = fleet.client.build(MODELS[stage](), options, on_progress=killer.look)
    assert killer.killed, "the stage was not seen"
    # What was published just before the agent died is found, and nothing is built again.
    assert stage == "publishing" or built.manifest.agent_id != killer.killed
    assert len(killer.grants) == 1, "the same grant to the end"
    fleet.check()


def test_a_drained_agent_finishes_its_build_takes_no_more_and_leaves(fleet: Fleet) -> None:
    results: list[BuiltEngine] = []
    building = threading.Event()

    def look(progress: pb.BuildProgress) -> None:
        if progress.phase == pb.BUILD_PHASE_BUILDING:
            building.set()

    def build() -> None:
        network = light_model("resnet50")
        results.append(fleet.client.build(network, OPTIONS, on_progress=look))

    thread = threading.Thread(target=build)
    thread.start()
    assert building.wait(TIME_LIMIT_SECONDS)
    name = fleet.builder()

    listed = fleet.cli("agent", "list")
    eventually(
        lambda: _builds_of(fleet, name) == [("alice", "building")], "the build is listed"
    )
    assert {agent["agent_id"] for agent in listed["agents"]} == set(NAMES)

    assert fleet.cli("agent", "drain", name)["agent_id"] == name
    thread.join(TIME_LIMIT_SECONDS)
    assert results[0].manifest.agent_id == name
    fleet.client.fetch(results[0].key, fleet.folder / "engine")
    fleet.running[name].ends().check(Exit.OK)
    assert '"drained"' in fleet.running[name].err
    assert {agent.agent_id for agent in fleet.client.engines.agents()} == {*NAMES} - {name}

    again = fleet.client.build(relu(), OPTIONS)
    assert again.manifest.agent_id != name
    fleet.check()


def test_an_agent_that_does_not_exist_cannot_be_drained(fleet: Fleet) -> None:
    words = ("agent", "drain", "agent-9", "--nodes", fleet.service.address)
    assert "agent-1, agent-2, agent-3" in seatkeeper(*words).check(Exit.NOT_FOUND).err
    human = seatkeeper("agent", "list", "--nodes", fleet.service.address).check(Exit.OK)
    assert "0 of 2" in human.out


def _builds_of(fleet: Fleet, name: str) -> list[tuple[str, str]]:
    (found,) = [a for a in fleet.client.engines.agents() if a.agent_id == name]
    return [
        (build.holder, pb.BuildPhase.Name(build.phase).removeprefix("BUILD_PHASE_").lower())
        for build in found.load.builds
    ]
