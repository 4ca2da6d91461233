"""Supervises etcd, nodes and a build agent as processes of this machine.

They start in the order etcd, nodes, agent, and stop in the opposite order, because each needs the one
before to say goodbye. An agent that was killed leaves a session that keeps its name for some seconds:
the next one waits for its end.

What happens is reported to a callback as `Event` values; nothing is printed and no signal is handled
here. The caller runs `Cluster.run` and calls `stop` or `reload`, from the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.core.channels import dial
from seatkeeper.core.errors import PoolNotFound, SeatError, ServiceUnavailable
from seatkeeper.devcluster.etcd_binary import EtcdNotFoundError, find_etcd
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdProcessError
from seatkeeper.devcluster.plan import EtcdMissing, Plan, PortTaken, ServiceFailed
from seatkeeper.devcluster.ports import trouble_with
from seatkeeper.devcluster.service import POLL_SECONDS, Service
from seatkeeper.devcluster.state import StateFolder
from seatkeeper.v1 import build_service_pb2

AGENT_SERVICE = build_service_pb2.DESCRIPTOR.services_by_name["BuildService"].full_name
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


@dataclass(frozen=True)
class EtcdServing:
    """etcd serves."""

    version: str
    endpoints: Sequence[str]


@dataclass(frozen=True)
class NodeServing:
    """A node serves."""

    name: str
    address: str


@dataclass(frozen=True)
class PoolPresent:
    """The pool exists."""

    pool: str
    seats: int


@dataclass(frozen=True)
class AgentDelayed:
    """An agent that was killed keeps its name until its session ends; the new one waits for that."""


@dataclass(frozen=True)
class AgentServing:
    """The agent serves, and the nodes know it."""

    agent_id: str
    address: str


@dataclass(frozen=True)
class AgentNotReady:
    """The agent has not registered in time. It goes on trying; seats can be had without it."""

    log: Path


@dataclass(frozen=True)
class AgentAbsent:
    """No agent can run here; seats can be had without it."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Everything runs."""

    nodes: Sequence[str]
    etcd: Sequence[str]
    agent: str | None
    """Where it listens; None: there is none."""
    pool: str
    seats: int
    pids: Mapping[str, int | None]


@dataclass(frozen=True)
class Reloaded:
    """Nodes and agent were asked to read their settings again."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process ended that was not asked to."""

    name: str
    pid: int | None
    """None: it is etcd's."""
    exit_code: int | None
    log: Path


@dataclass(frozen=True)
class Stopped:
    """Nothing runs any more."""

    had_nodes: bool
    """Whether it came to start any."""


Event = (
    EtcdServing
    | NodeServing
    | PoolPresent
    | AgentDelayed
    | AgentServing
    | AgentNotReady
    | AgentAbsent
    | Ready
    | Reloaded
    | Ended
    | Stopped
)


class Cluster:
    """etcd, nodes and agent of one plan."""

    def __init__(
        self,
        folder: StateFolder,
        plan: Plan,
        *,
        etcd: Path | None,
        with_agent: bool,
        agent_trouble: str | None = None,
        notify: Callable[[Event], None],
    ) -> None:
        """Start nothing yet.

        ``etcd``: its program; None: found. ``agent_trouble``: why an agent that is wanted cannot run
        here, None where it can. ``notify`` gets each event, in the event loop.
        """
        self._folder = folder
        self._plan = plan
        self._etcd_program = etcd
        self._with_agent = with_agent
        self._agent_trouble = agent_trouble
        self._notify = notify
        self._etcd: EtcdCluster | None = None
        self._nodes: list[Service] = []
        self._agent: Service | None = None
        self._reported: set[str] = set()
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()
        self._is_ready = False

    async def run(self) -> None:
        """Run until `stop` is called. Raises ``ClusterFailed``; then nothing runs."""
        try:
            if await self._unless_stopped(self._start()):
                await self._unless_stopped(self._watch())
        finally:
            await self._stop()

    def stop(self, *, at_once: bool = False) -> None:
        """Have `run` stop everything and return. ``at_once``: kill what does not end by itself."""
        self._stopping.set()
        if at_once:
            self._at_once.set()

    def reload(self) -> None:
        """Have nodes and agent read their settings again. Before all is ready it does nothing.

        Until then they have just read them, and may not listen to signals yet.
        """
        if not self._is_ready:
            return
        for service in self._services():
            service.reload()
        self._notify(Reloaded())

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do ``work`` to its end, and return whether that came before `stop` was called."""
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
        etcd = await self._start_etcd()
        self._folder.write(self._plan.kept)
        for number, address in enumerate(self._plan.node_addresses, start=1):
            name = f"dev-{number}"
            command = ["serve", "--node-id", name, "--listen", address]
            command += ["--stop-grace", str(STOP_GRACE_SECONDS)]
            command += ["--etcd-endpoints", ",".join(etcd.endpoints)]
            self._nodes.append(Service(name, self._folder.log(name), command))
        for service, address in zip(self._nodes, self._plan.node_addresses, strict=True):
            await _serving(service, address)
            self._notify(NodeServing(service.name, address))
        async with AsyncSeatClient(
            self._plan.node_addresses, config=ClientConfig(keeper="process")
        ) as client:
            seats = await _have_pool(client, self._plan)
            self._notify(PoolPresent(self._plan.pool, seats))
            if self._with_agent:
                await self._start_agent(client)
        self._is_ready = True
        pids = {member.name: member.pid for member in etcd.members}
        pids |= {service.name: service.pid for service in self._services()}
        self._notify(
            Ready(
                nodes=self._plan.node_addresses,
                etcd=etcd.endpoints,
                agent=self._plan.agent_address if self._agent else None,
                pool=self._plan.pool,
                seats=seats,
                pids=pids,
            )
        )

    async def _start_etcd(self) -> EtcdCluster:
        try:
            binary = find_etcd(self._etcd_program)
            self._etcd = EtcdCluster(
                binary.path,
                self._folder.etcd,
                members=self._plan.members,
                client_ports=self._plan.etcd_ports,
            )
            await self._etcd.start()
        except EtcdNotFoundError as error:
            raise EtcdMissing(str(error)) from error
        except EtcdProcessError as error:
            raise ServiceFailed(f"etcd does not start: {error}") from error
        self._notify(EtcdServing(binary.version, self._etcd.endpoints))
        return self._etcd

    async def _start_agent(self, client: AsyncSeatClient) -> None:
        """Start the agent. Seats can be had without one, so its absence ends nothing."""
        if self._agent_trouble is not None:
            self._notify(AgentAbsent(self._agent_trouble))
            return
        plan = self._plan
        command = ["agent", "--agent-id", plan.agent_id, "--listen", plan.agent_address]
        command += ["--nodes", ",".join(plan.node_addresses), "--pool", plan.pool]
        command += ["--engines", str(self._folder.engines)]
        command += ["--stop-grace", str(STOP_GRACE_SECONDS)]
        if any(each.agent_id == plan.agent_id for each in await client.engines.agents()):
            self._notify(AgentDelayed())
        self._agent = Service("agent", self._folder.log("agent"), command)
        try:
            async with asyncio.timeout(AGENT_START_SECONDS_MAX):
                # Not the list of agents: the last run's may still be on it.
                while not await _is_registered(plan.agent_address):
                    if self._agent.exit_code is not None:
                        return  # `_watch` will say so
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            self._notify(AgentNotReady(self._agent.log))
        else:
            self._notify(AgentServing(plan.agent_id, plan.agent_address))

    async def _watch(self) -> None:
        """Report each process that ends, without limit."""
        while True:
            for service in self._services():
                code = service.exit_code
                if code is not None:
                    self._notify_ended(service.name, service.pid, code, service.log)
            for member in self._etcd.members if self._etcd else ():
                if not member.running:
                    self._notify_ended(member.name, None, None, member.log_file)
            await asyncio.sleep(POLL_SECONDS)

    async def _stop(self) -> None:
        if self._agent is not None:
            await self._agent.stop(self._at_once, AGENT_STOP_SECONDS_MAX)
        nodes = (node.stop(self._at_once, NODE_STOP_SECONDS_MAX) for node in self._nodes)
        await asyncio.gather(*nodes)
        if self._etcd is not None:
            await self._etcd.stop()
        self._notify(Stopped(had_nodes=bool(self._nodes)))

    def _services(self) -> list[Service]:
        return [*self._nodes, *([self._agent] if self._agent else [])]

    def _notify_ended(self, name: str, pid: int | None, code: int | None, log: Path) -> None:
        if name not in self._reported:
            self._reported.add(name)
            self._notify(Ended(name=name, pid=pid, exit_code=code, log=log))


async def _serving(service: Service, address: str) -> None:
    """Wait until a node answers. Raises ``ServiceFailed``."""
    quick = ClientConfig(call_timeout=timedelta(seconds=1), keeper="process")
    deadline = asyncio.get_running_loop().time() + NODE_START_SECONDS_MAX
    async with AsyncSeatClient(address, config=quick) as client:
        while True:
            if service.exit_code is not None:
                raise ServiceFailed(
                    f"node {service.name} ended while starting:\n{service.log_tail()}"
                )
            with contextlib.suppress(ServiceUnavailable):
                await client.cluster.version()
                return
            if asyncio.get_running_loop().time() >= deadline:
                raise ServiceFailed(
                    f"node {service.name} does not answer:\n{service.log_tail()}"
                )
            await asyncio.sleep(POLL_SECONDS)


async def _is_registered(agent_address: str) -> bool:
    """Return whether an agent serves, which it says once the nodes know it."""
    asked = health_pb2.HealthCheckRequest(service=AGENT_SERVICE)
    async with dial(agent_address) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(asked, timeout=1)  # type: ignore[attr-defined]  # its stubs know the synchronous call only
        except aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _have_pool(client: AsyncSeatClient, plan: Plan) -> int:
    """Return how many seats the pool has; make it when there is none."""
    try:
        return (await client.pools.get(plan.pool)).spec.seats
    except PoolNotFound:
        pass
    try:
        made = await client.pools.create(
            plan.pool, seats=plan.seats, description="made by seatkeeper dev"
        )
    except SeatError as error:
        raise ServiceFailed(f"the pool cannot be made: {error}") from error
    return made.spec.seats


def _check_free(port: int) -> None:
    if trouble := trouble_with(port):
        raise PortTaken(port, trouble)
