"""Several whole nodes in one process, over one store and real sockets between them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal

import grpc
import grpc.aio
import pytest
from tests.client.certificates import Authority
from tests.unit.kit import POOL, SharedStore, eventually, uuid7
from tests.unit.services import DEADLINE, Who, acquire_of, open_of, ref_of

from seatkeeper.client import AsyncSeatClient, ClientConfig, TlsConfig
from seatkeeper.client.session import home as home_module
from seatkeeper.core.ring import Ring
from seatkeeper.internal.v1 import peer_service_pb2, peer_service_pb2_grpc, state_pb2
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.node import Node
from seatkeeper.server.routing import peers as peers_module
from seatkeeper.server.store import Delete, MemoryStore, Put, records
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.telemetry.tally import Tally
from seatkeeper.v1 import seat_service_pb2, seat_service_pb2_grpc

STORE_KEYS = Keys()
A_POOL = Put(STORE_KEYS.pool(POOL), records.encode_spec(PoolSpec(POOL, 1)))


@dataclass
class Counts(Tally):
    """Counts what one node did."""

    decided: Counter[str] = field(default_factory=Counter)
    forwarded_to: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)

    def committed(self, pool: str, *, commands: int, writes: int, seconds: float) -> None:
        self.decided[pool] += commands

    def forwarded(self, pool: str, *, commands: int) -> None:
        self.forwarded_to[pool] += commands

    def forward_failed(self, pool: str) -> None:
        self.unanswered[pool] += 1


def _sees(node: Node, names: set[str]) -> bool:
    return set(node._routing.membership.ring.addresses) == names


class Town:
    """Some nodes, and what each of them did."""

    def __init__(self) -> None:
        self.store = SharedStore()
        self.store.start_expiry(timedelta(milliseconds=50))
        self.nodes: dict[str, Node] = {}
        self.counts: dict[str, Counts] = {}
        self._sessions = 0

    async def start(
        self,
        *names: str,
        routing: Literal["owner", "local"] = "owner",
        authority: Authority | None = None,
    ) -> None:
        """Start nodes, and wait until all know all."""
        for name in names:
            config = NodeConfig(
                node_id=name,
                listen="127.0.0.1:0",
                store="memory",
                stop_grace=0.5,
                routing=routing,
            )
            if authority is not None:
                cert, key = authority.issue(name)
                tls = {"tls_cert_file": cert, "tls_key_file": key}
                config = config.model_copy(update=tls | {"tls_client_ca_file": authority.ca})
            self.counts[name] = Counts()
            self.nodes[name] = await Node.start(
                config, store=self.store, tally=self.counts[name]
            )
        await self.all_see(set(self.nodes))

    async def all_see(self, names: set[str]) -> None:
        """Wait until every node has these in its ring."""
        for node in self.nodes.values():
            await eventually(partial(_sees, node, names))

    def owner(self, pool: str = POOL) -> str:
        """Return the node that decides for a pool."""
        (found,) = {node._routing.owner(pool) for node in self.nodes.values()}
        assert found is not None
        return found

    def other(self, *than: str) -> str:
        """Return a node that is none of these."""
        return next(name for name in self.nodes if name not in than)

    def stubs(
        self, name: str, stack: AsyncExitStack
    ) -> seat_service_pb2_grpc.SeatServiceAsyncStub:
        """Return the seat service of one node."""
        channel = grpc.aio.insecure_channel(self.nodes[name].address)
        stack.push_async_callback(channel.close)
        return seat_service_pb2_grpc.SeatServiceStub(channel)

    async def stop(self) -> None:
        """Stop all of them."""
        for node in self.nodes.values():
            await node.stop()
        await MemoryStore.close(self.store)


@pytest.fixture
async def town(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """Three nodes that know each other, and a pool of one seat.

    One that is alive answers in time, however busy the machine is.
    """
    monkeypatch.setattr(peers_module, "PING_SECONDS_MAX", DEADLINE)
    town = Town()
    await town.store.commit([A_POOL])
    await town.start("node-1", "node-2", "node-3")
    yield town
    await town.stop()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is closed at the end of a test."""
    async with AsyncExitStack() as stack:
        yield stack


async def opened(stub: seat_service_pb2_grpc.SeatServiceAsyncStub, number: int) -> Who:
    """Open a session through a node."""
    who = Who(uuid7(1000 + number), bytes([number]) * 16)
    request = seat_service_pb2.OpenSessionRequest(open=open_of(who, ttl=timedelta(minutes=1)))
    await stub.OpenSession(request, timeout=DEADLINE)
    return who


async def taken(
    stub: seat_service_pb2_grpc.SeatServiceAsyncStub, who: Who, number: int
) -> seat_service_pb2.AcquireResponse:
    acquire = acquire_of(number, wait=timedelta(seconds=DEADLINE))
    request = seat_service_pb2.AcquireRequest(credentials=who.credentials, acquire=acquire)
    return await stub.Acquire(request, timeout=DEADLINE)


async def given_back(
    stub: seat_service_pb2_grpc.SeatServiceAsyncStub, who: Who, number: int
) -> None:
    release = seat_service_pb2.Release(grant=ref_of(number))
    request = seat_service_pb2.ReleaseRequest(credentials=who.credentials, release=release)
    await stub.Release(request, timeout=DEADLINE)


async def test_only_the_owner_decides_whichever_node_is_asked(
    town: Town, stack: AsyncExitStack
) -> None:
    owner = town.owner()
    for number, name in enumerate(town.nodes, start=1):
        stub = town.stubs(name, stack)
        who = await opened(stub, number)
        response = await taken(stub, who, number)
        assert response.granted.fence == number
        await given_back(stub, who, number)

    assert {name for name, counts in town.counts.items() if counts.decided} == {owner}
    forwards = {name: counts.forwarded_to[POOL] for name, counts in town.counts.items()}
    assert forwards == {name: 0 if name == owner else 2 for name in town.nodes}


async def test_who_waits_at_one_node_is_served_by_a_release_at_another(
    town: Town, stack: AsyncExitStack
) -> None:
    owner = town.owner()
    here, there = (name for name in town.nodes if name != owner)
    holder, waiter = town.stubs(here, stack), town.stubs(there, stack)
    anna, bert = await opened(holder, 1), await opened(waiter, 2)
    await taken(holder, anna, 1)
    waiting = asyncio.create_task(taken(waiter, bert, 2))
    state = town.nodes[owner]._core.seats
    await eventually(lambda: (loop := state._loops.get(POOL)) and loop.state.tickets)
    await given_back(holder, anna, 1)

    assert (await waiting).granted.fence == 2
    assert town.counts[there].decided[POOL] == 0


async def test_when_the_owner_has_died_its_pools_are_decided_elsewhere_and_then_again_there(
    town: Town, stack: AsyncExitStack
) -> None:
    """Its record is still there, as after ``kill -9``."""
    owner = town.owner()
    address = town.nodes[owner].address
    await town.nodes[owner]._server.server.stop(None)
    name = town.other(owner)
    stub = town.stubs(name, stack)
    who = await opened(stub, 1)
    await taken(stub, who, 1)
    membership = town.nodes[name]._routing.membership
    assert membership.silent == {owner}
    assert town.counts[name].unanswered[POOL] == 1
    heir = membership.owner(POOL)
    assert heir not in (owner, None)
    await given_back(stub, who, 1)
    assert town.counts[name].unanswered[POOL] == 1, "one deadline, once"

    back = grpc.aio.server()
    peer_service_pb2_grpc.add_PeerServiceServicer_to_server(Awake(), back)
    assert back.add_insecure_port(address)
    await back.start()
    stack.push_async_callback(back.stop, None)
    await eventually(lambda: not membership.silent)
    assert membership.owner(POOL) == owner


class Unreported(peer_service_pb2_grpc.PeerServiceServicer):
    """A node that is not asked for its report."""

    async def Report(
        self, request: peer_service_pb2.ReportRequest, context: object
    ) -> peer_service_pb2.ReportResponse:
        raise NotImplementedError


class Awake(Unreported):
    """A node that answers pings."""

    async def Decide(
        self, request: peer_service_pb2.DecideRequest, context: object
    ) -> peer_service_pb2.DecideResponse:
        raise AssertionError

    async def Ping(
        self, request: peer_service_pb2.PingRequest, context: object
    ) -> peer_service_pb2.PingResponse:
        return peer_service_pb2.PingResponse()


class Asleep(Unreported):
    """A node that accepts calls and answers none, as a paused one."""

    async def Decide(
        self, request: peer_service_pb2.DecideRequest, context: object
    ) -> peer_service_pb2.DecideResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def Ping(
        self, request: peer_service_pb2.PingRequest, context: object
    ) -> peer_service_pb2.PingResponse:
        await asyncio.Event().wait()
        raise AssertionError


async def start_imposing(
    town: Town, stack: AsyncExitStack, service: peer_service_pb2_grpc.PeerServiceServicer
) -> str:
    """Run something else as the node that owns the pool; return its id."""
    server = grpc.aio.server()
    peer_service_pb2_grpc.add_PeerServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    ring = town.nodes["node-1"]._routing.membership.ring
    names = (f"odd-{number}" for number in range(1000))
    name = next(
        name for name in names if Ring(1, {**ring.addresses, name: ""}).owner(POOL) == name
    )
    record = state_pb2.NodeRecord(address=f"127.0.0.1:{port}").SerializeToString()
    await town.store.commit([Put(STORE_KEYS.node(name), record)])
    await town.all_see({*town.nodes, name})
    assert town.owner() == name
    return name


async def test_a_paused_owner_costs_one_deadline_and_nothing_else(
    town: Town, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "TIME_LIMIT_SECONDS", 0.05)
    # The pool's next owner is asked: it forwards to none that a busy machine may make silent too.
    heir = town.owner()
    paused = await start_imposing(town, stack, Asleep())
    monkeypatch.setattr(peers_module, "PING_SECONDS_MAX", 0.05)
    stub = town.stubs(heir, stack)
    who = await opened(stub, 1)
    for number in range(1, 4):
        assert (await taken(stub, who, number)).granted.fence == number
        await given_back(stub, who, number)

    membership = town.nodes[heir]._routing.membership
    assert membership.silent == {paused}
    assert town.counts[heir].unanswered[POOL] == 1


class Slow(Unreported):
    """A node that is alive, and decides after it was pinged twice: it forwards to a real one."""

    def __init__(self, real: peer_service_pb2_grpc.PeerServiceAsyncStub, secret: str) -> None:
        self.real = real
        self.metadata = ((peers_module.SECRET_METADATA, secret),)
        self.decided = 0
        self.pings = 0

    async def Decide(
        self, request: peer_service_pb2.DecideRequest, context: object
    ) -> peer_service_pb2.DecideResponse:
        await eventually(lambda: self.pings >= 2)
        self.decided += 1
        return await self.real.Decide(request, metadata=self.metadata)

    async def Ping(
        self, request: peer_service_pb2.PingRequest, context: object
    ) -> peer_service_pb2.PingResponse:
        self.pings += 1
        return peer_service_pb2.PingResponse()


async def secret_of(town: Town) -> str:
    entry = await town.store.get(STORE_KEYS.secret())
    assert entry is not None
    return entry.value.decode()


async def test_an_owner_that_is_slow_and_alive_is_waited_for(
    town: Town, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "TIME_LIMIT_SECONDS", 0.05)
    channel = grpc.aio.insecure_channel(town.nodes["node-2"].address)
    stack.push_async_callback(channel.close)
    slow = Slow(peer_service_pb2_grpc.PeerServiceStub(channel), await secret_of(town))
    await start_imposing(town, stack, slow)
    stub = town.stubs("node-1", stack)
    who = await opened(stub, 1)
    await taken(stub, who, 1)

    assert slow.decided == 1
    assert not town.counts["node-1"].unanswered
    assert not town.nodes["node-1"]._routing.membership.silent


class Undecided(Awake):
    """A node that is alive, and never done."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def Decide(
        self, request: peer_service_pb2.DecideRequest, context: object
    ) -> peer_service_pb2.DecideResponse:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_an_owner_that_leaves_during_a_call_stops_no_pool(
    town: Town, stack: AsyncExitStack
) -> None:
    """The connection to it is closed, which cancels the call, and nothing beside it."""
    owner = Undecided()
    name = await start_imposing(town, stack, owner)
    stub = town.stubs("node-1", stack)
    who = await opened(stub, 1)
    first = asyncio.create_task(taken(stub, who, 1))
    await owner.asked.wait()
    await town.store.commit([Delete(STORE_KEYS.node(name))])
    await town.all_see(set(town.nodes))
    # Another connection is made, and those to nodes that have left are looked for.
    await town.nodes["node-1"]._routing.peers.report("node-2")

    assert (await first).granted.fence == 1
    await given_back(stub, who, 1)
    assert (await taken(stub, who, 2)).granted.fence == 2


@pytest.mark.parametrize("secret", [None, "", "wrong"])
async def test_who_does_not_know_the_secret_is_no_node(
    town: Town, stack: AsyncExitStack, secret: str | None
) -> None:
    channel = grpc.aio.insecure_channel(town.nodes["node-1"].address)
    stack.push_async_callback(channel.close)
    stub = peer_service_pb2_grpc.PeerServiceStub(channel)
    metadata = None if secret is None else ((peers_module.SECRET_METADATA, secret),)
    for call in (
        stub.Decide(peer_service_pb2.DecideRequest(pool=POOL), metadata=metadata),
        stub.Ping(peer_service_pb2.PingRequest(), metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_pool_that_does_not_exist_is_refused_by_every_node_by_name(
    town: Town, stack: AsyncExitStack
) -> None:
    for number, name in enumerate(town.nodes, start=1):
        stub = town.stubs(name, stack)
        who = await opened(stub, number)
        acquire = acquire_of(number, pool="nosuch")
        request = seat_service_pb2.AcquireRequest(credentials=who.credentials, acquire=acquire)
        with pytest.raises(grpc.aio.AioRpcError, match="'nosuch'"):
            await stub.Acquire(request, timeout=DEADLINE)


async def test_denials_and_deadlines_come_through_from_the_owner(
    town: Town, stack: AsyncExitStack
) -> None:
    owner = town.owner()
    stub = town.stubs(town.other(owner), stack)
    anna, bert = await opened(stub, 1), await opened(stub, 2)
    await taken(stub, anna, 1)
    for fields, code in (
        ({"seats": 2}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"wait": timedelta(0)}, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"wait": timedelta(seconds=0.2)}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        acquire = acquire_of(len(str(fields)), **fields)
        request = seat_service_pb2.AcquireRequest(credentials=bert.credentials, acquire=acquire)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Acquire(request, timeout=DEADLINE)
        assert refused.value.code() is code


async def test_a_client_learns_the_ring_and_goes_to_the_owner(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_module, "MOVE_SECONDS", (0.0, 0.1))
    owner = town.owner()
    first = town.other(owner)
    address = town.nodes[first].address
    async with AsyncSeatClient(address) as client:
        grant = await client.acquire(POOL)
        streams = town.nodes[owner]._seat_service._streams
        await eventually(lambda: streams)
        assert not town.nodes[first]._seat_service._streams
        await grant.release()
        again = await client.acquire(POOL)
        assert again.fence == grant.fence + 1
        await again.release()


async def test_a_client_configured_not_to_follow_stays_where_it_is(town: Town) -> None:
    owner = town.owner()
    first = town.other(owner)
    config = ClientConfig(follow_ring=False)
    async with AsyncSeatClient(town.nodes[first].address, config=config) as client:
        grant = await client.acquire(POOL)
        await grant.release()
        assert client._nodes.addresses == (town.nodes[first].address,)


async def test_with_local_routing_each_node_decides_for_itself(stack: AsyncExitStack) -> None:
    town = Town()
    stack.push_async_callback(town.stop)
    await town.store.commit([A_POOL])
    await town.start("node-1", "node-2", routing="local")
    for number, name in enumerate(town.nodes, start=1):
        stub = town.stubs(name, stack)
        who = await opened(stub, number)
        await taken(stub, who, number)
        await given_back(stub, who, number)
        assert town.counts[name].decided[POOL] == 2


async def test_nodes_forward_to_each_other_under_mutual_tls(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    town, authority = Town(), Authority(tmp_path)
    stack.push_async_callback(town.stop)
    await town.store.commit([A_POOL])
    await town.start("node-1", "node-2", authority=authority)
    cert, key = authority.issue("client")
    tls = TlsConfig(ca=authority.ca, cert=cert, key=key)
    owner = town.owner()
    name = town.other(owner)
    config = ClientConfig(follow_ring=False)
    async with AsyncSeatClient(town.nodes[name].address, tls=tls, config=config) as client:
        grant = await client.acquire(POOL)
        await grant.release()
    assert town.counts[name].forwarded_to[POOL] == 2
    assert not town.counts[name].unanswered


async def test_a_draining_node_leaves_the_ring_and_its_clients_keep_their_seats(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_module, "MOVE_SECONDS", (0.0, 0.1))
    owner = town.owner()
    addresses = [node.address for node in town.nodes.values()]
    async with AsyncSeatClient(addresses) as client, AsyncSeatClient(addresses) as another:
        grant = await client.acquire(POOL)
        waiting = asyncio.create_task(another.acquire(POOL))
        await eventually(lambda: town.nodes[owner]._seat_service._streams)
        async with AsyncSeatClient(town.nodes[owner].address) as operator:
            await operator.cluster.drain(owner)
        await town.nodes[owner].drained.wait()
        await town.nodes.pop(owner).stop()
        await town.all_see(set(town.nodes))
        await grant.release()
        assert (await asyncio.wait_for(waiting, DEADLINE)).fence == grant.fence + 1
