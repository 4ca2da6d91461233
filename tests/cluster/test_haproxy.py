"""Three nodes behind a real HAProxy, on the configurations that are shipped.

What is promised of nodes holds behind a balancer too: a client that knows one address only keeps
its seat and its place when a node dies, when a stream is idle, and when HAProxy is reloaded.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest
from bench.service import ServerProcess, Service, start_node
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.client.certificates import Authority
from tests.cluster.balancer import CONFIGS, Balancer, free_ports, launch, page, until
from tests.cluster.clients import Client, StreamEnded
from tests.debian_tools import HAPROXY, need

from seatkeeper.client import AsyncGrant, AsyncSeatClient, ClientConfig, HoldingState
from seatkeeper.devcluster.etcd_process import EtcdCluster
from seatkeeper.v1 import pool_service_pb2, pool_service_pb2_grpc

NODES = 3
DEADLINE = 20.0
MODES = ("l4", "l7")
WAITERS = 5
HARD_STOP_SECONDS = 3
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Site:
    """Nodes of this file's own, and a balancer of each kind in front of them."""

    service: Service
    program: Path
    flags: tuple[str, ...]
    ports: list[int]
    metrics_ports: list[int]
    nodes: dict[int, ServerProcess] = field(default_factory=dict)
    balancers: dict[str, Balancer] = field(default_factory=dict)

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]

    async def start(self, place: int) -> None:
        """Start a node, or start it again where it was."""
        flags = ("--listen", self.addresses[place], *self.flags)
        metrics = ("--metrics-listen", f"127.0.0.1:{self.metrics_ports[place]}")
        node = await start_node(self.service, f"balanced-{place}", (*flags, *metrics))
        self.nodes[place] = node

    async def streams(self) -> list[int]:
        """Return how many session streams each node has; a dead one has none."""
        pages = await asyncio.gather(
            *(page(f"http://127.0.0.1:{port}/metrics") for port in self.metrics_ports)
        )
        lines = [line for text in pages for line in [*text.splitlines(), "end"]]
        found = [
            line for line in lines if line.startswith(("seatkeeper_session_streams ", "end"))
        ]
        counts, count = [], 0
        for line in found:
            if line == "end":
                counts.append(count)
                count = 0
            else:
                count = int(float(line.split()[1]))
        return counts

    async def quiet(self) -> None:
        """Wait until every node is up and no client is left of an earlier test."""

        async def is_quiet() -> bool:
            return sum(await self.streams()) == 0

        await until(is_quiet, "no streams")
        for balancer in self.balancers.values():
            for number in range(1, NODES + 1):
                await balancer.wait_for(f"node-{number}", "UP")

    async def pool(self) -> str:
        """Create a pool of one seat."""
        name = f"pool-{secrets.token_hex(4)}"
        async with grpc.aio.insecure_channel(self.addresses[0]) as channel:
            stub = pool_service_pb2_grpc.PoolServiceStub(channel)
            spec = pool_service_pb2.PoolSpec(name=name, seats=1)
            request = pool_service_pb2.CreatePoolRequest(spec=spec)
            await stub.CreatePool(request, timeout=DEADLINE)
        return name


@pytest.fixture(scope="module")
def site(etcd: EtcdCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("balanced")
    flags = ("--prefix", f"balanced-{secrets.token_hex(4)}", "--stop-grace", "2")
    ports = free_ports(2 * NODES)
    site = Site(Service(folder, etcd), need(HAPROXY), flags, ports[:NODES], ports[NODES:])

    async def start() -> None:
        await asyncio.gather(*(site.start(place) for place in range(NODES)))
        for mode in MODES:
            site.balancers[mode] = launch(
                site.program,
                mode,
                site.addresses,
                folder,
                HAPROXY_HARD_STOP=f"{HARD_STOP_SECONDS}s",
            )
            await site.balancers[mode].wait_serving()

    async def stop() -> None:
        for balancer in site.balancers.values():
            balancer.stop()
        await asyncio.gather(*(node.stop() for node in site.service.nodes))

    try:
        asyncio.run(start())
        yield site
    finally:
        asyncio.run(stop())


@dataclass
class Party:
    """One client that holds the only seat of a pool, and others in its queue."""

    site: Site
    name: str
    grant: AsyncGrant
    states: list[HoldingState]
    home: int
    """The node that the holder's stream goes to."""
    waits: list[asyncio.Task[AsyncGrant]] = field(default_factory=list)

    async def records(self) -> list[tuple[str, object]]:
        """Return who holds under which fence, then the queue: as etcd has it, in order."""
        pool = await self._pool()
        held = [(each.grant_id, each.fence) for each in pool.grants]
        queue = [(each.grant_id, each.queued_at.ToNanoseconds()) for each in pool.tickets]
        assert len(held) == 1
        return [*held, *queue]

    async def all_connected(self) -> None:
        """Wait until every client has a stream on some node."""

        async def is_so() -> bool:
            return sum(await self.site.streams()) == 1 + WAITERS

        await until(is_so, "a stream of every client")

    async def served_in_turn(self) -> None:
        """Hand the seat from one to the next: in order, each with the next fence."""
        records = await self.records()
        held = self.grant
        assert [(held.grant_id, held.fence)] == records[:1]
        for wait, (grant_id, _) in zip(self.waits, records[1:], strict=True):
            held.raise_if_lost()
            await held.release()
            got = await asyncio.wait_for(wait, DEADLINE)
            assert (got.grant_id, got.fence) == (grant_id, held.fence + 1)
            held = got
        await held.release()
        assert HoldingState.LOST not in self.states

    async def over(self) -> None:
        """End all waits."""
        for wait in self.waits:
            wait.cancel()
        await asyncio.gather(*self.waits, return_exceptions=True)

    async def _pool(self) -> pool_service_pb2.Pool:
        for address in self.site.addresses:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = pool_service_pb2_grpc.PoolServiceStub(channel)
                request = pool_service_pb2.GetPoolRequest(name=self.name)
                with suppress(grpc.aio.AioRpcError):
                    return (await stub.GetPool(request, timeout=DEADLINE)).pool
        raise AssertionError("no node answers")


@asynccontextmanager
async def party(site: Site, address: str) -> AsyncIterator[Party]:
    """A holder and its queue, all of whom know one address only: the balancer's."""
    await site.quiet()
    name = await site.pool()
    async with AsyncExitStack() as stack:

        async def client(holder: str) -> AsyncSeatClient:
            return await stack.enter_async_context(AsyncSeatClient(address, holder=holder))

        states: list[HoldingState] = []
        grant = await (await client("holder")).acquire(name, on_state=states.append)
        home = (await site.streams()).index(1)
        party = Party(site, name, grant, states, home)
        for number in range(WAITERS):
            waiting = (await client(f"waiter-{number}")).acquire(name, wait=60)
            party.waits.append(asyncio.create_task(waiting))

            async def is_queued(length: int = number + 2) -> bool:
                return len(await party.records()) == length

            await until(is_queued, "a place in the queue")
        stack.push_async_callback(party.over)
        await party.all_connected()
        yield party
        await party.served_in_turn()


@pytest.mark.parametrize("mode", MODES)
async def test_seats_and_places_are_had_through_the_balancer(site: Site, mode: str) -> None:
    async with party(site, site.balancers[mode].address):
        assert min(await site.streams()) > 0, "the streams are spread over all nodes"


@pytest.mark.parametrize("mode", MODES)
async def test_a_killed_node_is_taken_out_and_its_clients_keep_seat_and_place(
    site: Site, mode: str
) -> None:
    balancer = site.balancers[mode]
    async with party(site, balancer.address) as them:
        before = await them.records()
        victim = them.home
        assert (await site.streams())[victim] > 1, "somebody who waits is there as well"
        site.nodes[victim].kill()
        await balancer.wait_for(f"node-{victim + 1}", "DOWN")
        await them.all_connected()
        assert (await site.streams())[victim] == 0
        assert await them.records() == before
        for _ in range(2 * NODES):
            await ask_once(balancer.address)
    await site.start(victim)
    await balancer.wait_for(f"node-{victim + 1}", "UP")


@pytest.mark.parametrize("mode", MODES)
async def test_a_node_that_is_stopped_is_left_without_a_failed_call(
    site: Site, mode: str
) -> None:
    balancer = site.balancers[mode]
    async with party(site, balancer.address) as them, calling(balancer.address):
        before = await them.records()
        node = site.nodes[0]
        node.process.send_signal(signal.SIGTERM)
        await balancer.wait_for("node-1", "DOWN")
        assert await asyncio.to_thread(node.process.wait, DEADLINE) == 0
        await them.all_connected()
        assert await them.records() == before
        await site.start(0)
        await balancer.wait_for("node-1", "UP")


@pytest.mark.parametrize("mode", MODES)
async def test_a_reload_of_haproxy_loses_no_seat_and_no_place(site: Site, mode: str) -> None:
    balancer = site.balancers[mode]
    async with party(site, balancer.address) as them, calling(balancer.address):
        raw = Client(ttl=timedelta(seconds=30))
        async with raw.attached(balancer.address):
            before = await them.records()
            old = await balancer.reload()
            # The old worker has kept its streams, and the new one has the new ones.
            await raw.renew()
            await ask_once(balancer.address)
            assert psutil.pid_exists(old)
            # It ends for good, and with it what still went through it.
            await until(lambda: not psutil.pid_exists(old), "the end of the old worker")
            with pytest.raises(StreamEnded):
                await raw.event("granted")
        await them.all_connected()
        assert await them.records() == before
        async with raw.attached(balancer.address):
            await raw.close()


async def test_an_idle_stream_outlives_the_balancers_timeouts(
    site: Site, tmp_path: Path
) -> None:
    """Through L4 by the client's pings. Through L7 pings do not get, but renewals do."""
    await site.quiet()
    seconds = {"l4": 12, "l7": 8}
    config = {
        # Pinged every 10 s, the least there is; renewed every 20 s.
        "l4": ClientConfig(ttl=timedelta(seconds=60), keepalive=timedelta(seconds=10)),
        # Renewed every 5 s.
        "l7": ClientConfig(ttl=timedelta(seconds=15), keepalive=timedelta(seconds=10)),
    }

    async def idle(mode: str) -> None:
        balancer = launch(
            site.program, mode, site.addresses, tmp_path, HAPROXY_IDLE=f"{seconds[mode]}s"
        )
        try:
            await balancer.wait_serving()
            client = AsyncSeatClient(balancer.address, config=config[mode])
            pool = await site.pool()
            silent = Client(ttl=timedelta(seconds=60))
            async with client, silent.attached(balancer.address):
                grant = await client.acquire(pool)
                connections = await total(balancer)
                # A client that neither pings nor renews is cut off, so the time was long enough.
                with pytest.raises(StreamEnded):
                    await silent.event("granted", within=seconds[mode] + DEADLINE)
                await grant.release()
                assert await total(balancer) == connections, "it was the same stream throughout"
        finally:
            balancer.stop()

    await asyncio.gather(*(idle(mode) for mode in MODES))


@pytest.mark.parametrize("mode", MODES)
async def test_a_node_that_says_it_does_not_serve_gets_nothing_new_and_keeps_what_it_has(
    site: Site, mode: str, tmp_path: Path
) -> None:
    """Health alone decides: these servers never stop answering."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(health_server()) for _ in range(NODES)]
        balancer = launch(site.program, mode, [at for at, _ in servers], tmp_path)
        stack.callback(balancer.stop)
        await balancer.wait_serving()
        channels = [
            await stack.enter_async_context(connection(balancer.address)) for _ in range(NODES)
        ]
        watches = [watch(channel) for channel in channels]
        for one in watches:
            assert await one.read() == health_pb2.HealthCheckResponse(status=SERVING)

        await servers[1][1].set("", NOT_SERVING)
        await balancer.wait_for("node-2", "DOWN")
        assert (await balancer.answers())["node-2"] == "L7STS"
        for _ in range(2 * NODES):
            assert await check(balancer.address) == SERVING
        # The streams of before are still where they were: one of them is notified.
        reported = [asyncio.ensure_future(one.read()) for one in watches]
        done, waiting = await asyncio.wait(
            reported, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED
        )
        assert [one.result() for one in done] == [
            health_pb2.HealthCheckResponse(status=NOT_SERVING)
        ]
        await servers[1][1].set("", SERVING)
        await balancer.wait_for("node-2", "UP")
        for one in watches:
            one.cancel()
        await asyncio.wait(waiting)


async def test_with_mutual_tls_l4_passes_it_through_and_asks_under_a_certificate_of_its_own(
    site: Site, tmp_path: Path
) -> None:
    """With the changes that docs/how-to/deploy.md describes."""
    authority = Authority(tmp_path)
    names = ("node", "client", "haproxy")
    pems = {name: [file.read_bytes() for file in authority.issue(name)] for name in names}
    (tmp_path / "both.pem").write_bytes(b"".join(pems["haproxy"]))
    ca = authority.ca.read_bytes()
    ours = grpc.ssl_server_credentials([(pems["node"][1], pems["node"][0])], ca, True)
    theirs = grpc.ssl_channel_credentials(ca, pems["client"][1], pems["client"][0])
    verify = f"verify required ca-file {authority.ca} crt {tmp_path / 'both.pem'}"
    config = tmp_path / "l4-tls.cfg"
    config.write_text(
        (CONFIGS / "l4.cfg")
        .read_text()
        .replace("tcp-check connect\n", "tcp-check connect ssl alpn h2\n")
        .replace("default-server check", f"default-server {verify} check")
    )
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(health_server(ours)) for _ in range(NODES)]
        await servers[0][1].set("", NOT_SERVING)
        addresses = [at for at, _ in servers]
        balancer = launch(site.program, "l4", addresses, tmp_path, config=config)
        stack.callback(balancer.stop)

        async def is_distinguished() -> bool:
            said = {"node-1": "L7STS", "node-2": "L7OK", "node-3": "L7OK"}
            return await balancer.answers() == said

        await until(is_distinguished, balancer.log.read_text())
        channel = grpc.aio.secure_channel(balancer.address, theirs)
        async with channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)  # type: ignore[attr-defined]  # its stubs know the synchronous call only
            assert answer.status == SERVING


# What the tests look at -------------------------------------------------------------------------


def connection(address: str) -> grpc.aio.Channel:
    """Return a channel that shares its connection with no other."""
    return grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


async def ask_once(address: str) -> None:
    """Make a call on a connection of its own."""
    async with connection(address) as channel:
        stub = pool_service_pb2_grpc.PoolServiceStub(channel)
        await stub.ListPools(pool_service_pb2.ListPoolsRequest(), timeout=DEADLINE)


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[None]:
    """Make calls all the time, as a client does; any that fails fails the test."""
    done = asyncio.Event()
    calls = 0

    async def call() -> None:
        nonlocal calls
        while not done.is_set():
            # A client of its own each time: a new connection, and a new choice of node.
            async with AsyncSeatClient(address) as client:
                for _ in range(5):
                    await client.pools.list()
                    calls += 1

    task = asyncio.create_task(call())
    try:
        yield
    finally:
        done.set()
        await task
    assert calls > 0


async def total(balancer: Balancer) -> int:
    """Return how many streams or connections have ever come for the nodes."""
    text = await page(f"http://{balancer.admin}/metrics")
    name = 'haproxy_backend_sessions_total{proxy="nodes"}'
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return int(float(line.split()[1]))


@asynccontextmanager
async def health_server(
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[tuple[str, health.aio.HealthServicer]]:
    """A server whose health is set by the test."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = (
        server.add_secure_port("127.0.0.1:0", credentials)
        if credentials
        else server.add_insecure_port("127.0.0.1:0")
    )
    await servicer.set("", SERVING)
    await server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        await server.stop(None)


def watch(
    channel: grpc.aio.Channel,
) -> grpc.aio.UnaryStreamCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]:
    call: grpc.aio.UnaryStreamCall[
        health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    ] = health_pb2_grpc.HealthStub(channel).Watch(  # type: ignore[attr-defined]  # its stubs know the synchronous call only
        health_pb2.HealthCheckRequest(), timeout=120
    )
    return call


async def check(address: str) -> int:
    """Ask through the balancer, on a connection of its own."""
    async with connection(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)  # type: ignore[attr-defined]  # its stubs know the synchronous call only
        return int(answer.status)
