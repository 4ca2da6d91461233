"""The processes behind ``seatkeeper dev``, and the folder that keeps their state.

::

    <state>/lock       held by the one `dev` that runs here; has its pid
    <state>/dev.json   what must stay the same from one start to the next
    <state>/etcd/      data and logs of etcd
    <state>/engines/   what the agent published
    <state>/logs/      one file a process

Started in the order etcd, nodes, agent; stopped in the opposite order, because each needs the one
before to say goodbye. An agent that could not say it, because it was killed, leaves a session that
keeps its name for some seconds: the next one waits for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seatkeeper.cli.agent import AGENT_NEEDS
from seatkeeper.cli.dev import AGENT_OFFSET, ETCD_OFFSET, PORT_DEFAULT, Terminal
from seatkeeper.cli.render import Json, say, write_json
from seatkeeper.cli.serve import installed
from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.core.amounts import count
from seatkeeper.core.channels import dial
from seatkeeper.core.errors import PoolNotFound, SeatError, ServiceUnavailable
from seatkeeper.core.extras import explain
from seatkeeper.core.text import path_in_json
from seatkeeper.devcluster.etcd_binary import EtcdNotFoundError, find_etcd
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdProcessError
from seatkeeper.hold.launch import launched
from seatkeeper.hold.signals import caught
from seatkeeper.v1 import build_service_pb2

POOL = "tensorrt"
AGENT_ID = "dev-agent"
AGENT_SERVICE = build_service_pb2.DESCRIPTOR.services_by_name["BuildService"].full_name
PORTS_PER_MEMBER = 3
NODE_START_SECONDS_MAX = 30.0
AGENT_START_SECONDS_MAX = 60.0
"""A compiler's libraries take their time to load, and an agent that was killed to be forgotten."""
STOP_GRACE_SECONDS = 2
"""How long calls and builds may go on after a stop."""
NODE_STOP_SECONDS_MAX = 10.0
"""How long a node has to end by itself before it is killed."""
AGENT_STOP_SECONDS_MAX = 30.0
"""The same of the agent: what it is publishing gets into the catalogue, or not, and every claim is
given up; each is a call that may take its time."""
ONE_SIGNAL_SECONDS = 1.0
"""Signals that come within this time are one: a wrapper may tell us, and our group as well."""
POLL_SECONDS = 0.1
LOG_LINES_SHOWN = 5


class ClusterFailed(Exception):
    """The cluster cannot run. The message says what to do about it."""

    def __init__(self, message: str, *, mendable: bool = True) -> None:
        super().__init__(message)
        self.mendable = mendable
        """Whether the user's settings or machine are to be changed."""


class StateFolder:
    """The folder of one `dev`, locked for as long as it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Make and lock it. Raises ``ClusterFailed`` when another `dev` has it."""
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ClusterFailed(f"--state {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise ClusterFailed(
                f"another `seatkeeper dev` (pid {pid}) runs on {self.path}; "
                "stop it, or choose another folder with --state and other ports with --port"
            ) from None
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unlock it."""
        if self._lock is not None:
            os.close(self._lock)

    def read(self) -> dict[str, int]:
        """Return what the last start wrote down; nothing when there was none."""
        try:
            found = json.loads((self.path / "dev.json").read_text())
            return {name: int(found[name]) for name in ("port", "etcd_members")}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ClusterFailed(
                f"{self.path / 'dev.json'} is damaged ({error}); remove {self.path} to start anew"
            ) from error

    def write(self, plan: Plan) -> None:
        """Write down what must stay the same."""
        kept = {"port": plan.port, "etcd_members": plan.members}
        (self.path / "dev.json").write_text(json.dumps(kept) + "\n")

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.path / "logs" / f"{name}.log"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run, and where."""

    nodes: int
    members: int
    seats: int
    port: int

    @classmethod
    def of(
        cls,
        folder: StateFolder,
        *,
        nodes: int,
        members: int | None,
        seats: int,
        port: int | None,
    ) -> Self:
        """Return the plan that the options and the state make together.

        Raises ``ClusterFailed`` when they contradict each other.
        """
        kept = folder.read()
        for flag, given, name in (
            ("--port", port, "port"),
            ("--etcd-members", members, "etcd_members"),
        ):
            if kept and given is not None and given != kept[name]:
                raise ClusterFailed(
                    f"{folder.path} was made with {flag} {kept[name]}, which etcd remembers; "
                    f"leave {flag} out, or choose another folder with --state"
                )
        return cls(
            nodes=nodes,
            members=kept.get("etcd_members", members or 1),
            seats=seats,
            port=kept.get("port", port or PORT_DEFAULT),
        )

    @property
    def node_addresses(self) -> list[str]:
        """Where the nodes listen."""
        return [f"127.0.0.1:{self.port + number}" for number in range(self.nodes)]

    @property
    def agent_address(self) -> str:
        """Where the agent listens."""
        return f"127.0.0.1:{self.port + AGENT_OFFSET}"

    @property
    def etcd_ports(self) -> list[int]:
        """Where etcd listens for clients; the two ports after each are its own."""
        first = self.port + ETCD_OFFSET
        return [first + PORTS_PER_MEMBER * number for number in range(self.members)]

    @property
    def ports(self) -> list[int]:
        """Every port."""
        etcd = [port + more for port in self.etcd_ports for more in range(PORTS_PER_MEMBER)]
        nodes = [self.port + number for number in range(self.nodes)]
        return [*nodes, self.port + AGENT_OFFSET, *etcd]


class Service:
    """One process of ours: a node or the agent."""

    def __init__(self, name: str, log: Path, command: Sequence[str]) -> None:
        """Start it. It dies with us."""
        self.name = name
        self.log = log
        arguments = (sys.executable, "-P", "-m", "seatkeeper.cli", *command)
        # Settings for other nodes that the user has in the environment are not for these.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SEATKEEPER_")
        }
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                launched(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def reload(self) -> None:
        """Have it read its settings again."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def tail(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join(f"  {line}" for line in lines)

    async def stop(self, urgent: asyncio.Event, seconds_max: float) -> None:
        """End it: ask, wait, kill. ``hurry`` ends the waiting."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + seconds_max
        while self._process.poll() is None:
            if urgent.is_set() or asyncio.get_running_loop().time() >= deadline:
                self._process.kill()
                self._process.wait()
                return
            await asyncio.sleep(POLL_SECONDS)


class Cluster:
    """etcd, nodes and agent of one plan."""

    def __init__(
        self,
        folder: StateFolder,
        plan: Plan,
        *,
        etcd: Path | None,
        with_agent: bool,
        as_json: bool,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._etcd_program = etcd
        self._with_agent = with_agent
        self._as_json = as_json
        self._etcd: EtcdCluster | None = None
        self._nodes: list[Service] = []
        self._agent: Service | None = None
        self._told: set[str] = set()
        self._stopping = asyncio.Event()
        self._stopping_since = 0.0
        self._urgent = asyncio.Event()
        self._terminal = Terminal()
        self._is_ready = False

    async def run(self) -> None:
        """Run until we are told to stop. Raises ``ClusterFailed``; then nothing runs."""
        loop = asyncio.get_running_loop()
        for number in caught(signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        for number in caught(signal.SIGHUP):
            loop.add_signal_handler(number, self._on_hup)
        try:
            if await self._unless_stopped(self._start()):
                await self._unless_stopped(self._watch())
        finally:
            await self._stop()

    def _on_hup(self) -> None:
        if self._terminal.is_gone:
            self._on_signal()
            return
        if not self._is_ready:
            return  # they read them just now, and may not listen to signals yet
        for service in self._services():
            service.reload()
        self._tell("nodes and agent read their settings again; their logs say what has changed")

    def _on_signal(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._stopping.is_set():
            self._stopping_since = now
            self._stopping.set()
        elif now >= self._stopping_since + ONE_SIGNAL_SECONDS:
            self._urgent.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do ``work`` to its end, and return whether that came before we were told to stop."""
        doing = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if doing.done():
            doing.result()
            return True
        doing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await doing
        return False

    async def _start(self) -> None:
        for port in self._plan.ports:
            _check_free(port)
        await self._start_etcd()
        self._folder.write(self._plan)
        assert self._etcd is not None
        for number, address in enumerate(self._plan.node_addresses, start=1):
            name = f"dev-{number}"
            command = ["serve", "--node-id", name, "--listen", address]
            command += ["--stop-grace", str(STOP_GRACE_SECONDS)]
            command += ["--etcd-endpoints", ",".join(self._etcd.endpoints)]
            self._nodes.append(Service(name, self._folder.log(name), command))
        for service, address in zip(self._nodes, self._plan.node_addresses, strict=True):
            await _serving(service, address)
            self._tell(f"node {service.name} on {address}")
        async with AsyncSeatClient(
            self._plan.node_addresses, config=ClientConfig(keeper="process")
        ) as client:
            seats = await _have_pool(client, self._plan.seats)
            self._tell(f"pool {POOL} has {count(seats, 'seat')}")
            if self._with_agent:
                await self._start_agent(client)
        self._notify_ready(seats)

    async def _start_etcd(self) -> None:
        try:
            binary = find_etcd(self._etcd_program)
            self._etcd = EtcdCluster(
                binary.path,
                self._folder.path / "etcd",
                members=self._plan.members,
                client_ports=self._plan.etcd_ports,
            )
            await self._etcd.start()
        except EtcdNotFoundError as error:
            raise ClusterFailed(f"{error}; or name one with --etcd") from error
        except EtcdProcessError as error:
            raise ClusterFailed(f"etcd does not start: {error}", mendable=False) from error
        self._tell(f"etcd {binary.version} on {', '.join(self._etcd.endpoints)}")

    async def _start_agent(self, client: AsyncSeatClient) -> None:
        """Start the agent. Seats can be had without one, so its absence ends nothing."""
        if (missing := _missing_for_agent()) is not None:
            self._tell(f"no build agent: {missing}")
            return
        command = ["agent", "--agent-id", AGENT_ID, "--listen", self._plan.agent_address]
        command += ["--nodes", ",".join(self._plan.node_addresses), "--pool", POOL]
        command += ["--engines", str(self._folder.path / "engines")]
        command += ["--stop-grace", str(STOP_GRACE_SECONDS)]
        if any(each.agent_id == AGENT_ID for each in await client.engines.agents()):
            self._tell("the last run's agent was killed: its session ends in some seconds")
        self._agent = Service("agent", self._folder.log("agent"), command)
        try:
            async with asyncio.timeout(AGENT_START_SECONDS_MAX):
                # Not the list of agents: the last run's may still be on it.
                while not await _is_registered(self._plan.agent_address):
                    if self._agent.exit_code is not None:
                        return  # `_watch` will say so
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            self._tell(f"the build agent is not ready yet; its log: {self._agent.log}")
        else:
            self._tell(f"agent {AGENT_ID} on {self._plan.agent_address}")

    async def _watch(self) -> None:
        """Say so when something ends, for ever."""
        while True:
            for service in self._services():
                code = service.exit_code
                if code is not None and service.name not in self._told:
                    self._notify_ended(service.name, service.pid, code, service.log)
            for member in self._etcd.members if self._etcd else ():
                if not member.running and member.name not in self._told:
                    self._notify_ended(member.name, None, None, member.log_file)
            await asyncio.sleep(POLL_SECONDS)

    async def _stop(self) -> None:
        if self._agent is not None:
            await self._agent.stop(self._urgent, AGENT_STOP_SECONDS_MAX)
        nodes = (node.stop(self._urgent, NODE_STOP_SECONDS_MAX) for node in self._nodes)
        await asyncio.gather(*nodes)
        if self._etcd is not None:
            await self._etcd.stop()
        if self._as_json:
            write_json({"event": "stopped"})
        elif self._nodes:
            say(f"stopped; `seatkeeper dev --state {self._folder.path}` goes on from here")

    def _services(self) -> list[Service]:
        return [*self._nodes, *([self._agent] if self._agent else [])]

    def _tell(self, text: str) -> None:
        if not self._as_json:
            say(text)

    def _notify_ended(self, name: str, pid: int | None, code: int | None, log: Path) -> None:
        self._told.add(name)
        if self._as_json:
            write_json(
                {"event": "ended", "name": name, "exit_code": code, "log": path_in_json(log)}
            )
            return
        how = "" if code is None else f" with exit code {code}"
        who = name if pid is None else f"{name} (pid {pid})"
        say(f"{who} ended{how}; its log: {log}")

    def _notify_ready(self, seats: int) -> None:
        self._is_ready = True
        assert self._etcd is not None
        pids = {member.name: member.pid for member in self._etcd.members}
        pids |= {service.name: service.pid for service in self._services()}
        if self._as_json:
            ready: Json = {
                "event": "ready",
                "nodes": self._plan.node_addresses,
                "etcd": list(self._etcd.endpoints),
                "agent": self._plan.agent_address if self._agent else None,
                "pool": POOL,
                "seats": seats,
                "state": path_in_json(self._folder.path),
                "pids": pids,
            }
            write_json(ready)
            return
        steps = ["seatkeeper status", "seatkeeper run -- env"]
        if self._agent is not None:
            steps.append("seatkeeper build MODEL.onnx --target SM86 --output MODEL.engine")
        steps = [f"export SEATKEEPER_NODES={','.join(self._plan.node_addresses)}", *steps]
        say("")
        say(f"Ready. State and logs are in {self._folder.path}. Try in another terminal:")
        say("")
        for step in steps:
            say(f"  {step}")
        say("")
        say("Ctrl-C stops everything.")


async def _serving(service: Service, address: str) -> None:
    """Wait until a node answers."""
    quick = ClientConfig(call_timeout=timedelta(seconds=1), keeper="process")
    deadline = asyncio.get_running_loop().time() + NODE_START_SECONDS_MAX
    async with AsyncSeatClient(address, config=quick) as client:
        while True:
            if service.exit_code is not None:
                raise ClusterFailed(
                    f"node {service.name} ended while starting:\n{service.tail()}",
                    mendable=False,
                )
            with contextlib.suppress(ServiceUnavailable):
                await client.cluster.version()
                return
            if asyncio.get_running_loop().time() >= deadline:
                raise ClusterFailed(
                    f"node {service.name} does not answer:\n{service.tail()}", mendable=False
                )
            await asyncio.sleep(POLL_SECONDS)


async def _is_registered(agent_address: str) -> bool:
    """Return whether an agent serves, which it says once the nodes know it."""
    asked = health_pb2.HealthCheckRequest(service=AGENT_SERVICE)
    async with dial(agent_address) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(asked, timeout=1)  # type: ignore[attr-defined]
        except aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _have_pool(client: AsyncSeatClient, seats: int) -> int:
    """Return how many seats the pool has; make it when there is none."""
    try:
        return (await client.pools.get(POOL)).spec.seats
    except PoolNotFound:
        pass
    try:
        made = await client.pools.create(
            POOL, seats=seats, description="made by seatkeeper dev"
        )
    except SeatError as error:
        raise ClusterFailed(f"the pool cannot be made: {error}", mendable=False) from error
    return made.spec.seats


def _missing_for_agent() -> str | None:
    needed = ("onnx", "numpy", "seatkeeper.agent.main")
    return None if installed(*needed) else explain("an agent", *AGENT_NEEDS)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ClusterFailed(
                f"port {port}: {error.strerror}; choose other ports with --port, "
                "such as --port 17420, and another --state if this one has been used"
            ) from error
