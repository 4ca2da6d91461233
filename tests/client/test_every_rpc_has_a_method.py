"""Every RPC of the contract has a client method that makes that call, and no method makes up one.

The service here knows sessions and nothing else; what counts is which RPC arrived.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.client.scripted import ScriptedNode

import seatkeeper.v1
from seatkeeper.client import AsyncSeatClient, SeatClient, SeatError
from seatkeeper.client.admin.borrowing import AsyncBorrowing
from seatkeeper.client.admin.cluster import AsyncCluster
from seatkeeper.client.admin.engines import AsyncEngines
from seatkeeper.client.admin.pools import AsyncPools
from seatkeeper.client.admin.seats import AsyncUnarySeats
from seatkeeper.client.admin.sync import Borrowing, Cluster, Engines, Pools, UnarySeats
from seatkeeper.client.builds.agents import AsyncAgent
from seatkeeper.client.session.grants import AsyncGrant
from seatkeeper.client.sync import Grant
from seatkeeper.v1 import build_pb2, build_service_pb2, pool_service_pb2, seat_pb2
from seatkeeper.v1 import seat_service_pb2 as seats_pb

CREDENTIALS = seats_pb.SessionCredentials(session_id="s", secret=b"secret")
REF = seats_pb.GrantRef(pool="p", grant_id="g")
KEY = "0" * 64


async def no_chunks() -> AsyncIterator[bytes]:
    return
    yield


# The method, the RPC that it is for, and a call of it.
METHODS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "session": ("SeatService/Session", lambda c: c.session()),
    "seats.open_session": (
        "SeatService/OpenSession",
        lambda c: c.seats.open_session(CREDENTIALS, holder="h", ttl=timedelta(seconds=5)),
    ),
    "seats.acquire": (
        "SeatService/Acquire",
        lambda c: c.seats.acquire(CREDENTIALS, seat_pb2.Acquire(pool="p")),
    ),
    "seats.renew": ("SeatService/Renew", lambda c: c.seats.renew(CREDENTIALS, [REF])),
    "seats.release": ("SeatService/Release", lambda c: c.seats.release(CREDENTIALS, REF)),
    "seats.close_session": (
        "SeatService/CloseSession",
        lambda c: c.seats.close_session(CREDENTIALS),
    ),
    "pools.create": ("PoolService/CreatePool", lambda c: c.pools.create("p", seats=1)),
    "pools.update": ("PoolService/GetPool", lambda c: c.pools.update("p", seats=1)),
    "pools.replace": (
        "PoolService/UpdatePool",
        lambda c: c.pools.replace(pool_service_pb2.PoolSpec(name="p", seats=1)),
    ),
    "pools.delete": ("PoolService/DeletePool", lambda c: c.pools.delete("p")),
    "pools.apply": (
        "PoolService/ApplyPools",
        lambda c: c.pools.apply([pool_service_pb2.PoolChange(name="p")]),
    ),
    "pools.get": ("PoolService/GetPool", lambda c: c.pools.get("p")),
    "pools.list": ("PoolService/ListPools", lambda c: c.pools.list()),
    "pools.watch": ("PoolService/WatchPool", lambda c: c.pools.watch("p")),
    "pools.explain": ("PoolService/ExplainTicket", lambda c: c.pools.explain("p", "g")),
    "pools.remove": (
        "PoolService/RemoveTicket",
        lambda c: c.pools.remove("p", "g", reason="why"),
    ),
    "pools.drain": ("PoolService/DrainPool", lambda c: c.pools.drain("p", reason="why")),
    "pools.open": ("PoolService/OpenPool", lambda c: c.pools.open("p")),
    "pools.move": (
        "PoolService/MoveTicket",
        lambda c: c.pools.move("p", "g", reason="why", first=True),
    ),
    "pools.revoke": (
        "PoolService/RevokeGrant",
        lambda c: c.pools.revoke("p", "g", notice=timedelta(seconds=9), reason="why"),
    ),
    "pools.withdraw_revoke": (
        "PoolService/WithdrawRevoke",
        lambda c: c.pools.withdraw_revoke("p", "g", reason="why"),
    ),
    "pools.extend": (
        "PoolService/ExtendGrant",
        lambda c: c.pools.extend("p", "g", by=timedelta(hours=1), reason="why"),
    ),
    "pools.release_now": (
        "PoolService/ReleaseGrant",
        lambda c: c.pools.release_now("p", "g", reason="why"),
    ),
    "cluster.nodes": ("ClusterService/ListNodes", lambda c: c.cluster.nodes()),
    "cluster.version": ("ClusterService/GetVersion", lambda c: c.cluster.version()),
    "cluster.report": ("ClusterService/GetReport", lambda c: c.cluster.report()),
    "cluster.drain": ("ClusterService/DrainNode", lambda c: c.cluster.drain("n")),
    "cluster.jwks": ("ClusterService/GetJwks", lambda c: c.cluster.jwks()),
    "cluster.verify_token": ("ClusterService/GetJwks", lambda c: c.cluster.verify_token("t")),
    "engines.register_agent": (
        "EngineService/RegisterAgent",
        lambda c: c.engines.register_agent(build_service_pb2.AgentInfo(agent_id="a")),
    ),
    "engines.drain_agent": (
        "EngineService/DrainAgent",
        lambda c: c.engines.drain_agent("a"),
    ),
    "engines.agents": ("EngineService/ListAgents", lambda c: c.engines.agents()),
    "engines.claim": (
        "EngineService/ClaimGrant",
        lambda c: c.engines.claim("token", agent_id="a", claim_id="c"),
    ),
    "engines.yield_claim": (
        "EngineService/YieldGrant",
        lambda c: c.engines.yield_claim(pool="p", grant_id="g", claim_id="c"),
    ),
    "engines.publish": (
        "EngineService/PublishEngine",
        lambda c: c.engines.publish(build_pb2.SignedManifest(), claim_id="c"),
    ),
    "engines.get": ("EngineService/GetEngine", lambda c: c.engines.get(KEY)),
    "engines.list": ("EngineService/ListEngines", lambda c: c.engines.list()),
    "borrowing.borrow": (
        "BorrowService/BorrowGrant",
        lambda c: c.borrowing.borrow(
            *(CREDENTIALS, REF), length=timedelta(days=1), machine_key=b"k" * 32, proof="j"
        ),
    ),
    "borrowing.return_grant": (
        "BorrowService/ReturnGrant",
        lambda c: c.borrowing.return_grant("p", "g", statement="j"),
    ),
    "agent.build": (
        "BuildService/Build",
        lambda c: c.agent.build(build_service_pb2.BuildHeader(), no_chunks()),
    ),
    "agent.fetch": ("BuildService/FetchEngine", lambda c: c.agent.fetch(KEY)),
    "agent.capabilities": (
        "BuildService/GetCapabilities",
        lambda c: c.agent.capabilities(),
    ),
}
PARTS = {
    "seats": AsyncUnarySeats,
    "borrowing": AsyncBorrowing,
    "pools": AsyncPools,
    "cluster": AsyncCluster,
    "engines": AsyncEngines,
    "agent": AsyncAgent,
}


def public_methods(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}


def test_every_rpc_has_a_method() -> None:
    contract = set()
    (folder,) = seatkeeper.v1.__path__ if len(seatkeeper.v1.__path__) == 1 else [None]
    assert folder is not None
    assert Path(folder).name == "v1"
    for module in pkgutil.iter_modules([folder]):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(f"seatkeeper.v1.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                contract |= {f"{service.name}/{method.name}" for method in service.methods}
    assert {rpc for rpc, _ in METHODS.values()} == contract


def test_every_method_is_for_an_rpc() -> None:
    offered = {
        f"{part}.{name}" for part, kind in PARTS.items() for name in public_methods(kind)
    }
    assert {name for name in METHODS if "." in name} == offered


class _WithAgent:
    """A client whose node is also an agent, as far as addresses go."""

    def __init__(self, client: AsyncSeatClient, agent: AsyncAgent) -> None:
        self.agent = agent
        self.session = client.session
        self.seats = client.seats
        self.borrowing = client.borrowing
        self.pools = client.pools
        self.cluster = client.cluster
        self.engines = client.engines


@pytest.mark.parametrize(("rpc", "call"), METHODS.values(), ids=METHODS)
async def test_a_method_makes_its_call(
    client: AsyncSeatClient, node: ScriptedNode, rpc: str, call: Callable[[Any], Any]
) -> None:
    async with client.agent(node.address) as agent:
        try:
            made = call(_WithAgent(client, agent))
            if inspect.isasyncgen(made):
                async for _ in made:
                    pass
            else:
                await made
        except SeatError:
            pass
    assert f"/seatkeeper.v1.{rpc}" in node.calls


@pytest.mark.parametrize(
    ("rpc", "call"),
    [
        both
        for name, both in METHODS.items()
        if name.partition(".")[0] in PARTS.keys() - {"agent"}
    ],
    ids=[name for name in METHODS if name.partition(".")[0] in PARTS.keys() - {"agent"}],
)
async def test_a_method_without_an_event_loop_makes_the_same_call(
    node: ScriptedNode, rpc: str, call: Callable[[Any], Any]
) -> None:
    def work() -> None:
        with SeatClient(node.address) as client:
            try:
                made = call(client)
                if inspect.isgenerator(made):
                    for _ in made:
                        pass
            except SeatError:
                pass

    await asyncio.to_thread(work)
    assert f"/seatkeeper.v1.{rpc}" in node.calls


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (AsyncPools, Pools),
        (AsyncCluster, Cluster),
        (AsyncEngines, Engines),
        (AsyncUnarySeats, UnarySeats),
        (AsyncBorrowing, Borrowing),
        (AsyncGrant, Grant),
        (AsyncSeatClient, SeatClient),
    ],
)
def test_both_clients_offer_the_same(one: type, other: type) -> None:
    # A connection to one agent is for programs with an event loop; the session's proof too. The
    # others are what grants need of their client.
    only_async = {"agent", "session", "now", "take", "give_back", "is_here", "freshen"}
    if one is AsyncSeatClient:
        only_async |= {
            "fetch_token",
            "report_activity",
        }  # both kinds of grants have one of their own
    only_async |= {"lease_times"}  # for the watchdogs of programs with an event loop
    only_sync = {"capabilities"}
    assert public_methods(one) - only_async == public_methods(other) - only_sync
    for name in public_methods(one) & public_methods(other):
        theirs = inspect.signature(getattr(other, name)).parameters
        ours = inspect.signature(getattr(one, name)).parameters
        assert {n: (p.kind, p.default) for n, p in ours.items()} == {
            n: (p.kind, p.default) for n, p in theirs.items()
        }, name
