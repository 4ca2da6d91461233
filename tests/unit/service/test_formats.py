"""Records of a newer format, and damaged ones: what they are about is not served; the rest is."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from tests.unit.kit import POOL
from tests.unit.services import (
    DEADLINE,
    STORE_KEYS,
    Services,
    acquire_of,
    refused,
    running_services,
)

from seatkeeper.core.serving.log_limit import LogLimit
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.events import log as events
from seatkeeper.server.node import Node, StartError
from seatkeeper.server.store import MemoryStore, Put
from seatkeeper.server.store.formats import COUNT_FORMAT
from seatkeeper.v1 import (
    build_service_pb2,
    cluster_service_pb2,
    engine_service_pb2,
    pool_service_pb2,
    seat_service_pb2,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NEWER = 2
GARBAGE = b"\xff\xff\xff\x01no record"
both = pytest.mark.parametrize("is_damaged", [False, True], ids=["newer", "damaged"])


@pytest.fixture(autouse=True)
def _fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_unreadable", LogLimit())


@both
async def test_a_pool_of_a_newer_format_is_unavailable_and_others_are_served(
    tmp_path: Path, is_damaged: bool
) -> None:
    async with running_services(tmp_path) as services:
        await services.pool(1)
        await services.pool(1, "newer")
        who = await services.session()
        newer = pool_service_pb2.PoolSpec(name="newer", seats=1, format=COUNT_FORMAT + 1)
        written = GARBAGE if is_damaged else newer.SerializeToString()
        said = "is no PoolSpec" if is_damaged else f"record format {COUNT_FORMAT + 1}"
        await services.store.commit([Put(STORE_KEYS.pool("newer"), written)])
        assert (await services.acquire(who, 1)).fence == 1

        asked = seat_service_pb2.AcquireRequest(
            credentials=who.credentials, acquire=acquire_of(2, pool="newer")
        )
        failure = await refused(services.seats.Acquire(asked, timeout=DEADLINE))
        assert failure.code is UNAVAILABLE
        assert said in failure.message
        assert failure.reason == "DENIAL_REASON_UNAVAILABLE"

        looked = await refused(services.look("newer"))
        assert looked.code is UNAVAILABLE
        update = pool_service_pb2.UpdatePoolRequest(
            spec=pool_service_pb2.PoolSpec(name="newer", seats=9)
        )
        assert (await refused(services.pools.UpdatePool(update))).code is UNAVAILABLE
        entry = await services.store.get(STORE_KEYS.pool("newer"))
        assert entry is not None
        assert entry.value == written

        listed = await services.pools.ListPools(pool_service_pb2.ListPoolsRequest())
        by_name = {pool.spec.name: pool for pool in listed.pools}
        assert by_name[POOL].held == 1
        assert said in by_name["newer"].spec.description


@both
async def test_a_session_of_a_newer_format_is_not_used(
    tmp_path: Path, is_damaged: bool
) -> None:
    async with running_services(tmp_path) as services:
        await services.pool(1)
        stranger = services.stranger()
        newer = state_pb2.SessionRecord(format=NEWER).SerializeToString()
        record = GARBAGE if is_damaged else newer
        await services.store.commit([Put(STORE_KEYS.session(stranger.session_id), record)])
        failure = await refused(services.acquire(stranger, 1))
        assert failure.code is UNAVAILABLE
        assert STORE_KEYS.session(stranger.session_id) in failure.message


async def _listed(services: Services) -> tuple[list[str], list[str], list[str], str]:
    nodes = await services.cluster.ListNodes(cluster_service_pb2.ListNodesRequest())
    agents = await services.engines.ListAgents(engine_service_pb2.ListAgentsRequest())
    engines = await services.engines.ListEngines(engine_service_pb2.ListEnginesRequest())
    jwks = await services.cluster.GetJwks(cluster_service_pb2.GetJwksRequest())
    return (
        [node.node_id for node in nodes.nodes],
        [agent.agent_id for agent in agents.agents],
        [engine.manifest.signature.decode() for engine in engines.engines],
        jwks.jwks_json,
    )


@both
async def test_listings_leave_out_what_is_of_a_newer_format(
    tmp_path: Path, is_damaged: bool
) -> None:
    async with running_services(tmp_path) as services:
        before = await _listed(services)
        key = "b" * 64
        info = build_service_pb2.AgentInfo(agent_id="new")
        newer = {
            STORE_KEYS.node("new"): state_pb2.NodeRecord(address="h:1", format=NEWER),
            STORE_KEYS.agent("new"): state_pb2.AgentRecord(agent=info, format=NEWER),
            STORE_KEYS.engine(key): state_pb2.EngineRecord(format=NEWER),
            STORE_KEYS.signing_key("new"): state_pb2.KeyRecord(jwk_json="{}", format=NEWER),
        }
        await services.store.commit(
            [
                Put(name, GARBAGE if is_damaged else record.SerializeToString())
                for name, record in newer.items()
            ]
        )
        assert await _listed(services) == before
        asked = engine_service_pb2.GetEngineRequest(key=key)
        assert (await refused(services.engines.GetEngine(asked))).code is UNAVAILABLE
        report = await services.cluster.GetReport(cluster_service_pb2.GetReportRequest())
        assert [node.node_id for node in report.nodes] == ["node-1"]


@both
async def test_a_node_does_not_start_on_a_deployment_of_a_newer_format(
    is_damaged: bool,
) -> None:
    store = MemoryStore(now=lambda: 1.0)
    record = state_pb2.DeploymentRecord(deployment_id="d", format=NEWER).SerializeToString()
    await store.commit([Put(STORE_KEYS.deployment(), GARBAGE if is_damaged else record)])
    config = NodeConfig(node_id="node-1", listen="127.0.0.1:0", store="memory")
    said = "is no DeploymentRecord" if is_damaged else "record format 2"
    with pytest.raises(StartError, match=said) as caught:
        await Node.start(config, store=store)
    do = "put back what was there" if is_damaged else "upgrade this node"
    assert do in str(caught.value)


@both
async def test_a_node_does_not_start_in_the_place_of_a_newer_one(is_damaged: bool) -> None:
    store = MemoryStore(now=lambda: 1.0)
    record = state_pb2.NodeRecord(address="h:1", format=NEWER).SerializeToString()
    await store.commit([Put(STORE_KEYS.node("node-1"), GARBAGE if is_damaged else record)])
    config = NodeConfig(node_id="node-1", listen="127.0.0.1:0", store="memory")
    with pytest.raises(StartError, match="newer version wrote it, or it is damaged"):
        await Node.start(config, store=store)
