"""``ClusterService`` over a socket, and what else every node answers."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.unit.kit import SharedStore
from tests.unit.services import DEADLINE, STORE_KEYS, Services, running_services

from seatkeeper.core.serving.listening import ListenError
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.node import Node, StartError
from seatkeeper.server.service import SERVICES
from seatkeeper.server.store import MemoryStore, StoreUnavailable
from seatkeeper.v1 import cluster_service_pb2 as pb

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_the_nodes_that_are_alive_are_listed(services: Services) -> None:
    response = await services.cluster.ListNodes(pb.ListNodesRequest(), timeout=DEADLINE)

    [node] = response.nodes
    assert (node.node_id, node.address) == ("node-1", services.node.address)
    assert node.version == version("seatkeeper")
    assert node.started_at.ToMilliseconds() == services.clock.now()


async def test_a_second_node_of_the_same_store_is_listed_until_it_stops(
    services: Services,
) -> None:
    services.store.__class__ = SharedStore
    config = NodeConfig(
        node_id="node-2",
        listen="127.0.0.1:0",
        advertise="far:7420",
        store="memory",
        stop_grace=0,
    )
    second = await Node.start(config, store=services.store, clock=services.clock)
    nodes = (await services.cluster.ListNodes(pb.ListNodesRequest(), timeout=DEADLINE)).nodes
    assert [(node.node_id, node.address) for node in nodes] == [
        ("node-1", services.node.address),
        ("node-2", "far:7420"),
    ]
    await second.stop()

    nodes = (await services.cluster.ListNodes(pb.ListNodesRequest(), timeout=DEADLINE)).nodes
    assert [node.node_id for node in nodes] == ["node-1"]
    keys = (await services.cluster.GetJwks(pb.GetJwksRequest(), timeout=DEADLINE)).jwks_json
    assert len(json.loads(keys)["keys"]) == 2, "its key outlives it, for the tokens it signed"
    services.store.__class__ = MemoryStore


async def test_the_id_of_a_node_that_lives_is_refused(services: Services) -> None:
    services.store.__class__ = SharedStore
    config = NodeConfig(node_id="node-1", listen="127.0.0.1:0", store="memory", stop_grace=0)
    with pytest.raises(StartError, match="node_id: node-1 is the id of a node that lives"):
        await Node.start(config, store=services.store, clock=services.clock)

    # One that died leaves its record for a while, and is not in the way of its successor.
    await services.node._server.server.stop(None)
    second = await Node.start(config, store=services.store, clock=services.clock)
    await second.stop()
    services.store.__class__ = MemoryStore


async def test_a_node_says_what_it_is(services: Services) -> None:
    reported = await services.cluster.GetVersion(pb.GetVersionRequest(), timeout=DEADLINE)
    assert (reported.node_id, reported.version) == ("node-1", version("seatkeeper"))
    assert (reported.store, list(reported.store_warnings)) == ("memory", [])


async def test_the_published_keys_verify_a_token(services: Services) -> None:
    await services.pool(1)
    granted = await services.acquire(await services.session(), 1)
    keys = (await services.cluster.GetJwks(pb.GetJwksRequest(), timeout=DEADLINE)).jwks_json
    assert services.verify(granted.token, keys=keys).fence == granted.fence


async def test_a_node_is_healthy_while_it_serves(services: Services) -> None:
    async with grpc.aio.insecure_channel(services.node.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", *SERVICES):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health.Check(request, timeout=DEADLINE)  # type: ignore[attr-defined]  # its stubs know the synchronous call only
            assert answer.status == SERVING


async def test_a_node_that_stops_takes_its_name_off_the_list(tmp_path: Path) -> None:
    async with running_services(tmp_path) as services:
        assert STORE_KEYS.node("node-1") in services.store._entries
    assert STORE_KEYS.node("node-1") not in services.store._entries
    assert STORE_KEYS.signing_key(services.signer.kid) in services.store._entries


async def test_a_port_that_is_taken_is_named(services: Services) -> None:
    config = NodeConfig(listen=services.node.address, store="memory")
    with pytest.raises(ListenError, match=services.node.address):
        await Node.start(config)


async def test_a_store_that_does_not_answer_is_named() -> None:
    class Down(MemoryStore):
        """No node is there."""

    async def refuse(call: str) -> None:
        raise StoreUnavailable("down")

    store = Down()
    store.before_call = refuse
    config = NodeConfig(listen="127.0.0.1:0", etcd_endpoints="10.9.8.7:2379", start_timeout=0.1)
    with pytest.raises(StartError, match=r"10\.9\.8\.7:2379.*--etcd-endpoints"):
        await Node.start(config, store=store)
