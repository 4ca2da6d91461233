"""The real command: it starts, serves, stops, and says why when it cannot."""

from __future__ import annotations

import importlib.util
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.agent.site import OPTIONS, POOL, TIME_LIMIT_SECONDS
from tests.builder.models import conv_net, relu, relu_chain
from tests.cli.commands import Running, address_of, eventually, seatkeeper, started
from tests.client.certificates import Authority

from seatkeeper.cli.exits import Exit
from seatkeeper.client import AgentUnavailable, BuildFailed, SeatClient
from seatkeeper.testing.service import InMemoryService
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import build_service_pb2 as pb

LONG = relu_chain(10_000)
"""Compiles for more than a minute, so whatever ends sooner was ended."""


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    with InMemoryService({POOL: 4}) as service:
        yield service


@pytest.fixture(scope="module", autouse=True)
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An agent that finds no node. It tries for 10 s, while the other tests run."""
    folder = tmp_path_factory.mktemp("lonely")
    with socket.create_server(("127.0.0.1", 0)) as server:
        no_client = f"127.0.0.1:{server.getsockname()[1]}"
    with started(*arguments(no_client, folder / "engines"), folder=folder) as running:
        yield running


@pytest.fixture
def client(service: InMemoryService) -> Iterator[SeatClient]:
    with SeatClient(service.address, holder="alice") as client:
        yield client


def agent(
    service: InMemoryService, folder: Path, *flags: str
) -> AbstractContextManager[Running]:
    """Run an agent whose engines are in ``folder``."""
    return started(*arguments(service.address, folder), *flags, folder=folder.parent)


def arguments(nodes: str, folder: Path) -> list[str]:
    named = {
        "agent-id": "agent-1",
        "listen": "127.0.0.1:0",
        "nodes": nodes,
        "engines": str(folder),
        "stop-grace": "0",
    }
    return ["agent", *(word for name, value in named.items() for word in (f"--{name}", value))]


def workers(running: Running) -> list[psutil.Process]:
    return psutil.Process(running.process.pid).children()


def test_hup_has_an_agent_read_its_certificate_again(
    service: InMemoryService, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("agent")
    flags = ("--tls-cert-file", str(cert), "--tls-key-file", str(key))
    with agent(service, tmp_path / "engines", *flags) as running:
        running.says('"serving"')
        first = served(running)
        fresh, fresh_key = authority.issue("renewed")
        cert.write_bytes(fresh.read_bytes())
        running.send(signal.SIGHUP)  # the key is that of the old one still
        running.says('"reload_failed"')
        assert served(running) == first
        key.write_bytes(fresh_key.read_bytes())
        running.send(signal.SIGHUP)
        running.says('"reloaded"')
        eventually(lambda: served(running) != first, "the new certificate")


def served(running: Running) -> str:
    """The certificate that an agent shows to a new connection."""
    host, _, port = address_of(running).rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=20)


def test_an_agent_builds_stops_and_comes_back(
    service: InMemoryService, client: SeatClient, tmp_path: Path
) -> None:
    folder = tmp_path / "engines"
    with agent(service, folder) as running:
        running.says('"serving"')
        assert health_of(address_of(running)) == health_pb2.HealthCheckResponse.SERVING
        built = client.build(relu(), OPTIONS)
        assert built.manifest.agent_id == "agent-1"
        assert not any(
            "uvloop" in m.path for m in psutil.Process(running.process.pid).memory_maps()
        )
        running.send(signal.SIGTERM)
        running.ends().check(Exit.OK)
        assert '"stopped"' in running.err
    assert list(client.engines.agents()) == []

    with agent(service, folder) as running:
        running.says('"serving"')
        again = client.build(relu(), OPTIONS, to=tmp_path / "engine")
        assert again.cached
        assert again.manifest == built.manifest
        running.send(signal.SIGINT)
        running.ends().check(Exit.OK)


CONVERTERS = ("onnx", "numpy", "tensorrt", "nvinfer")


def test_an_agent_that_converts_and_compiles_has_no_compiler_in_itself(
    service: InMemoryService, client: SeatClient, tmp_path: Path
) -> None:
    """By what its process has mapped, while a build is in its worker and after it."""
    seen: set[str] = set()
    options = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])
    options.precision.precision = "fp16"

    def look(progress: pb.BuildProgress) -> None:
        process = psutil.Process(running.process.pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):  # it ended just now
                found = {Path(mapped.path).name for mapped in each.memory_maps()}
                (mapped_by_agent if each == process else seen).update(found)

    mapped_by_agent: set[str] = set()
    with agent(service, tmp_path / "engines") as running:
        running.says('"serving"')
        profile = options.profiles.add().shapes.add(input="x")
        for sizes in (profile.min, profile.opt, profile.max):
            sizes.extend((1, 3, 8, 8))
        built = client.build(conv_net().SerializeToString(), options, on_progress=look)
        look(pb.BuildProgress())
    assert built.manifest.precision.precision == "fp16"
    assert mapped_by_agent
    assert not [name for name in mapped_by_agent if any(each in name for each in CONVERTERS)]
    assert [name for name in seen if "onnx" in name], "otherwise that proves nothing"


def test_uvloop_is_there_for_an_agent_not_to_use() -> None:
    """Otherwise that it is not used would prove nothing."""
    assert importlib.util.find_spec("uvloop") is not None


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, Exit.OK), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_agent_that_ends_takes_its_builds_along(
    service: InMemoryService,
    client: SeatClient,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    folder = tmp_path / "engines"
    under_way = threading.Event()
    failures: list[Exception] = []

    def build_in_vain() -> None:
        try:
            client.build(LONG, OPTIONS, on_progress=note)
        except BuildFailed as error:
            failures.append(error)

    def note(progress: pb.BuildProgress) -> None:
        if progress.phase == pb.BUILD_PHASE_CHECKING:
            under_way.set()

    with agent(service, folder) as running:
        running.says('"serving"')
        building = threading.Thread(target=build_in_vain)
        building.start()
        assert under_way.wait(TIME_LIMIT_SECONDS)
        (worker,) = workers(running)
        running.send(number)
        assert running.ends().code == code
        building.join(TIME_LIMIT_SECONDS)
        eventually(lambda: not worker.is_running())
    assert [type(error) for error in failures] == [AgentUnavailable]
    assert service.held(POOL) == 0
    assert list(client.engines.list()) == []

    with agent(service, folder, "--agent-id", "agent-2") as running:
        running.says('"serving"')
        assert list((folder / "staging").iterdir()) == []
        assert not client.build(relu(), OPTIONS).cached


def test_a_port_that_is_in_use_is_named(service: InMemoryService, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = seatkeeper(*arguments(service.address, tmp_path), "--listen", address)
    assert address in last_line(result.check(Exit.CONFIG).err)
    assert "in use" in last_line(result.err)


def test_without_a_node_there_is_no_agent(lonely: Running) -> None:
    assert "no node takes this agent on" in last_line(lonely.ends().check(Exit.UNAVAILABLE).err)


def test_an_agent_id_that_is_taken_is_named(
    service: InMemoryService, client: SeatClient, tmp_path: Path
) -> None:
    client.engines.register_agent(pb.AgentInfo(agent_id="agent-1", pool=POOL))
    taken = arguments(service.address, tmp_path)
    result = seatkeeper(*taken, "--register-timeout", "0").check(Exit.UNAVAILABLE)
    assert "agent-1" in last_line(result.err)


def test_an_agent_waits_for_the_session_that_a_killed_one_left_behind(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "engines"
    # Longer than an agent takes to start on a busy machine.
    with InMemoryService({POOL: 4}, session_ttl=timedelta(seconds=12)) as service:
        with agent(service, folder) as running:
            running.says('"serving"')
            running.send(signal.SIGKILL)
            running.ends()
        with agent(service, folder) as running, SeatClient(service.address) as client:
            running.says("registration_waiting")
            running.says('"serving"')
            assert not client.build(relu(), OPTIONS).cached


def test_an_agent_that_is_asked_to_stop_while_it_waits_does_so_at_once(
    service: InMemoryService, client: SeatClient, tmp_path: Path
) -> None:
    client.engines.register_agent(pb.AgentInfo(agent_id="agent-1", pool=POOL))
    with agent(service, tmp_path / "engines") as running:
        running.says("registration_waiting")
        running.send(signal.SIGTERM)
        running.ends().check(Exit.OK)


def test_a_host_that_can_build_nothing_is_reported_what_to_install(
    service: InMemoryService, tmp_path: Path
) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')")
    result = seatkeeper(
        *arguments(service.address, tmp_path / "engines"), environ={"PYTHONPATH": str(tmp_path)}
    )
    line = last_line(result.check(Exit.CONFIG).err)
    assert "no backend can build on this host" in line
    assert "pip install" in line


def test_a_key_that_others_can_read_is_not_used(
    service: InMemoryService, tmp_path: Path
) -> None:
    (tmp_path / "agent-key.pem").write_text("secret")
    (tmp_path / "agent-key.pem").chmod(0o644)
    result = seatkeeper(*arguments(service.address, tmp_path)).check(Exit.CONFIG)
    assert "agent-key.pem is open to other users" in last_line(result.err)


def health_of(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        asked = health_pb2.HealthCheckRequest(service="seatkeeper.v1.BuildService")
        health = health_pb2_grpc.HealthStub(channel)
        return int(health.Check(asked, timeout=20).status)  # type: ignore[attr-defined]  # its stubs know the synchronous call only


def last_line(text: str) -> str:
    return text.splitlines()[-1]
