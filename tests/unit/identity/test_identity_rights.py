"""The table of rights, against the contract; and the gate, against the table, over real TLS."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tests.client.certificates import Authority

import seatkeeper.internal.v1
import seatkeeper.v1
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.identity import (
    RIGHTS,
    Authorizer,
    Principal,
    Refused,
    Right,
    parse_names,
)
from seatkeeper.server.node import Node
from seatkeeper.v1 import cluster_service_pb2 as cluster_pb
from seatkeeper.v1 import cluster_service_pb2_grpc, pool_service_pb2_grpc
from seatkeeper.v1 import pool_service_pb2 as pools_pb

DEADLINE = 10.0
GARBAGE = b"\xff\xff\xff\xff"
ROLES = {"admin": Right.ADMINISTRATOR, "agent": Right.AGENT, "ci-runner": Right.NONE}
SERVED = [
    method for method in RIGHTS if "BuildService" not in method and "Health/List" not in method
]
"""By a node: not an agent's calls, nor one of a later release of the health service."""
Code = grpc.StatusCode


def services() -> Iterator[ServiceDescriptor]:
    """Yield every service of the contract, and the two standard ones."""
    for package in (seatkeeper.v1, seatkeeper.internal.v1):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.endswith("_pb2"):
                descriptor = importlib.import_module(module.name).DESCRIPTOR
                yield from descriptor.services_by_name.values()
    for module_pb in (health_pb2, reflection_pb2):
        yield from module_pb.DESCRIPTOR.services_by_name.values()


def test_every_call_of_the_contract_is_in_the_table_and_no_other() -> None:
    contract = {
        f"/{service.full_name}/{method.name}"
        for service in services()
        for method in service.methods
    }
    assert RIGHTS.keys() - {"/grpc.health.v1.Health/List"} == contract


def test_what_changes_something_of_others_is_not_foreverybody() -> None:
    """Names of calls say what they do; one that reads or is about a session may be open."""
    reads = (
        "Get",
        "List",
        "Watch",
        "Check",
        "Explain",
        "Fetch",
        "ServerReflectionInfo",
        "Build",
    )
    own = ("SeatService/", "BorrowService/")  # a secret of a session, or a signature
    for method, right in RIGHTS.items():
        name = method.rpartition("/")[2]
        if not name.startswith(reads) and not any(service in method for service in own):
            assert right is not Right.NONE, method


def test_a_call_that_is_not_in_the_table_is_refused_to_everybody() -> None:
    names = parse_names("dns:admin")
    authorizer = Authorizer(names, names, asks_for_certificates=True)
    admin = Principal(tuple(names), has_certificate=True, address="ipv4:127.0.0.1:1")
    assert authorizer.needs_asking("/seatkeeper.v1.PoolService/Forgotten")
    with pytest.raises(Refused, match="Forgotten"):
        authorizer.allow(admin, "/seatkeeper.v1.PoolService/Forgotten")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    for name in ("node", *ROLES):
        authority.issue(name)
    return authority


def config(authority: Authority, administrators: str = "", agents: str = "") -> NodeConfig:
    folder = authority.ca.parent
    return NodeConfig(
        node_id="node-1",
        listen="127.0.0.1:0",
        store="memory",
        stop_grace=0,
        tls_cert_file=folder / "node.pem",
        tls_key_file=folder / "node.key",
        tls_client_ca_file=authority.ca,
        administrators=administrators,
        agents=agents,
    )


def channel(node: Node, authority: Authority, name: str) -> grpc.aio.Channel:
    folder = authority.ca.parent
    credentials = grpc.ssl_channel_credentials(
        authority.ca.read_bytes(),
        (folder / f"{name}.key").read_bytes(),
        (folder / f"{name}.pem").read_bytes(),
    )
    return grpc.aio.secure_channel(node.address, credentials)


@asynccontextmanager
async def running(settings: NodeConfig) -> AsyncIterator[Node]:
    node = await Node.start(settings)
    try:
        yield node
    finally:
        await node.stop()


@pytest.fixture
async def node(authority: Authority) -> AsyncIterator[Node]:
    async with running(config(authority, "dns:admin", "dns:agent")) as node:
        yield node


async def code_of(
    one: grpc.aio.Channel, method: str, request: bytes = GARBAGE
) -> grpc.StatusCode:
    """Return how a call ends whose request is ``request``, through whichever kind of stub."""
    service, _, name = method.rpartition("/")
    descriptor = next(each for each in services() if f"/{each.full_name}" == service)
    rpc = descriptor.methods_by_name[name]
    try:
        if rpc.client_streaming:
            stream: grpc.aio.StreamStreamCall[bytes, bytes] = one.stream_stream(method)(
                timeout=DEADLINE
            )
            await stream.write(request)
            await stream.read()
            return await stream.code()
        if rpc.server_streaming:
            ask: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = one.unary_stream(method)
            answers = ask(request, timeout=DEADLINE)
            await answers.read()
            return await answers.code()
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = one.unary_unary(method)
        await call(request, timeout=DEADLINE)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return Code.OK


@pytest.mark.parametrize("method", SERVED)
async def test_the_table_is_what_happens(node: Node, authority: Authority, method: str) -> None:
    """Each call, with each kind of certificate: refused before its request is looked at, or not."""
    right = RIGHTS[method]
    for name, role in ROLES.items():
        async with channel(node, authority, name) as one:
            code = await code_of(one, method)
        refused = right not in {Right.NONE, Right.NODE, role}
        assert (code is Code.PERMISSION_DENIED) == refused, (name, code)
        assert code is not Code.UNIMPLEMENTED


async def test_an_administrators_calls_take_effect_and_an_ordinary_certificates_do_not(
    node: Node, authority: Authority
) -> None:
    spec = pools_pb.PoolSpec(name="p", seats=1)
    more = pools_pb.PoolSpec(name="p", seats=1000)
    for name in ("agent", "ci-runner"):
        async with channel(node, authority, name) as one:
            pools = pool_service_pb2_grpc.PoolServiceStub(one)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await pools.CreatePool(pools_pb.CreatePoolRequest(spec=spec), timeout=DEADLINE)
            assert refused.value.code() is Code.PERMISSION_DENIED
            listed = await pools.ListPools(pools_pb.ListPoolsRequest(), timeout=DEADLINE)
            assert not listed.pools
    async with channel(node, authority, "admin") as one:
        pools = pool_service_pb2_grpc.PoolServiceStub(one)
        await pools.CreatePool(pools_pb.CreatePoolRequest(spec=spec), timeout=DEADLINE)
        await pools.UpdatePool(pools_pb.UpdatePoolRequest(spec=more), timeout=DEADLINE)
        await pools.DeletePool(pools_pb.DeletePoolRequest(name="p"), timeout=DEADLINE)
        cluster = cluster_service_pb2_grpc.ClusterServiceStub(one)
        await cluster.DrainNode(cluster_pb.DrainNodeRequest(node_id="node-1"), timeout=DEADLINE)
    assert node.drained.is_set()


async def test_the_refusal_says_who_asked_and_which_setting_decides(
    node: Node, authority: Authority
) -> None:
    async with channel(node, authority, "ci-runner") as one:
        cluster = cluster_service_pb2_grpc.ClusterServiceStub(one)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await cluster.DrainNode(cluster_pb.DrainNodeRequest(), timeout=DEADLINE)
    said = refused.value.details() or ""
    assert "dns:ci-runner" in said
    assert "`administrators`" in said
    assert "dns:admin" not in said, "the list is private"
    trailers = dict(refused.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(bytes(trailers["grpc-status-details-bin"]))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("NOT_AUTHORIZED", "seatkeeper")
    assert info.metadata["setting"] == "administrators"


async def test_an_empty_list_allows_no_client_and_start_up_logs_it(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(config(authority)) as node:
        said = [record for record in caplog.records if record.message == "rights"]
        assert {vars(record)["setting"] for record in said} == {"administrators", "agents"}
        assert all("no client" in vars(record)["effect"] for record in said)
        for name in ROLES:
            async with channel(node, authority, name) as one:
                code = await code_of(one, "/seatkeeper.v1.PoolService/CreatePool")
                assert code is Code.PERMISSION_DENIED


async def test_the_lists_may_change_while_a_connection_is_open(
    node: Node, authority: Authority
) -> None:
    drain = "/seatkeeper.v1.ClusterService/DrainNode"
    async with (
        channel(node, authority, "ci-runner") as one,
        channel(node, authority, "admin") as other,
    ):
        assert await code_of(one, drain) is Code.PERMISSION_DENIED
        node.reload(config(authority, administrators="dns:ci-runner"))
        assert await code_of(one, drain) is not Code.PERMISSION_DENIED
        assert await code_of(other, drain) is Code.PERMISSION_DENIED


async def test_plain_text_on_this_machine_is_open_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = NodeConfig(node_id="n", listen="127.0.0.1:0", store="memory", stop_grace=0)
    async with running(plain) as node, grpc.aio.insecure_channel(node.address) as one:
        effects = [vars(r)["effect"] for r in caplog.records if r.message == "rights"]
        assert len(effects) == 2
        assert all("this machine" in effect for effect in effects)
        pools = pool_service_pb2_grpc.PoolServiceStub(one)
        spec = pools_pb.PoolSpec(name="p", seats=1)
        await pools.CreatePool(pools_pb.CreatePoolRequest(spec=spec), timeout=DEADLINE)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("ipv4:127.0.0.1:1234", True),
        ("ipv4:127.8.8.8:1234", True),
        ("ipv6:[::1]:1234", True),
        ("ipv6:[::ffff:127.0.0.1]:1234", True),
        ("unix:/run/seats", True),
        ("ipv4:10.0.0.1:1234", False),
        ("ipv6:[::ffff:10.0.0.1]:1234", False),
        ("ipv6:[fe80::1%eth0]:1234", False),
        ("ipv4:127.0.0.1.evil.example:1", False),
        ("localhost:1", False),
        ("", False),
    ],
)
def test_without_certificates_only_this_machine_may_administer(
    address: str, local: bool
) -> None:
    no_client = parse_names("")
    caller = Principal(address=address)
    assert caller.is_local == local
    create = "/seatkeeper.v1.PoolService/CreatePool"
    closed = Authorizer(no_client, no_client, asks_for_certificates=False)
    if local:
        closed.allow(caller, create)
    else:
        with pytest.raises(Refused, match="anonymous"):
            closed.allow(caller, create)
    opened = Authorizer(parse_names("anonymous"), no_client, asks_for_certificates=False)
    opened.allow(caller, create)


def test_where_certificates_are_asked_for_the_machine_does_not_count() -> None:
    caller = Principal(address="ipv4:127.0.0.1:1", has_certificate=True)
    authorizer = Authorizer(
        parse_names("dns:admin"), parse_names(""), asks_for_certificates=True
    )
    with pytest.raises(Refused, match="no subject alternative name"):
        authorizer.allow(caller, "/seatkeeper.v1.PoolService/CreatePool")


async def test_each_act_is_logged_with_who_and_what_was_before(
    node: Node, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with channel(node, authority, "admin") as one:
        pools = pool_service_pb2_grpc.PoolServiceStub(one)

        spec = pools_pb.PoolSpec(name="p", seats=4)
        more = pools_pb.PoolSpec(name="p", seats=1000, description="all")
        await pools.CreatePool(pools_pb.CreatePoolRequest(spec=spec), timeout=DEADLINE)
        await pools.UpdatePool(pools_pb.UpdatePoolRequest(spec=more), timeout=DEADLINE)
        await pools.DeletePool(pools_pb.DeletePoolRequest(name="p"), timeout=DEADLINE)
        cluster = cluster_service_pb2_grpc.ClusterServiceStub(one)
        await cluster.DrainNode(cluster_pb.DrainNodeRequest(node_id="node-1"), timeout=DEADLINE)
    acts = {r.message: vars(r) for r in caplog.records if "by" in vars(r)}
    assert list(acts) == ["pool_created", "pool_updated", "pool_deleted", "node_drained"]
    assert all(act["by"].startswith("dns:admin") for act in acts.values())
    updated = acts["pool_updated"]
    assert (updated["pool"], updated["seats_before"], updated["seats_after"]) == ("p", 4, 1000)
    assert (updated["description_before"], updated["description_after"]) == ("", "all")
    assert acts["pool_deleted"]["seats"] == 1000


async def test_a_refused_caller_is_logged_and_cannot_flood_the_log(
    node: Node, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    drain = "/seatkeeper.v1.ClusterService/DrainNode"
    async with channel(node, authority, "ci-runner") as one:
        for _ in range(20):
            assert await code_of(one, drain) is Code.PERMISSION_DENIED
    refused = [record for record in caplog.records if record.message == "call_refused"]
    assert len(refused) == 1
    assert "dns:ci-runner" in vars(refused[0])["by"]
    assert vars(refused[0])["call"] == drain
