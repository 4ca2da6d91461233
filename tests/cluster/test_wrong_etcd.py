"""Nodes whose etcd is wiped, exchanged or restored, and the step that follows a restore."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from bench.service import ServerProcess, Service, spawn, start_node
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.contract.restoring import restore, save, wipe

from seatkeeper.cli.exits import Exit
from seatkeeper.client import AsyncSeatClient, ClientConfig, SeatError, ServiceUnavailable
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.server.store import Delete, Put
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.keys import Keys

POOL = "p"
TIME_LIMIT = 40.0
FLAGS = ("--stop-grace", "0.5", "--etcd-timeout", "1")
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
async def service(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> AsyncIterator[Service]:
    """One node over an etcd of its own."""
    etcd = EtcdCluster(etcd_program, tmp_path / "etcd", options=etcd_options)
    await etcd.start()
    service = Service(tmp_path, etcd)
    try:
        await start_node(service, "node-1", FLAGS)
        async with AsyncSeatClient(service.addresses[0]) as client:
            await client.pools.create(POOL, seats=1)
        yield service
    finally:
        await asyncio.gather(*(node.stop() for node in service.nodes))
        etcd.kill()


async def eventually(condition: Callable[[], Awaitable[bool]], node: ServerProcess) -> None:
    deadline = time.monotonic() + TIME_LIMIT
    while not await condition():
        assert time.monotonic() < deadline, events(node)[-10:]
        await asyncio.sleep(0.1)


async def fence_of_a_seat(address: str) -> int:
    async with AsyncSeatClient(address) as client, client.seat(POOL, wait=20) as grant:
        return grant.fence


async def health_of(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)  # type: ignore[attr-defined]  # its stubs know the synchronous call only
        return int(answer.status)


async def refusal(address: str) -> str:
    """Return why a node grants nothing."""
    config = ClientConfig(call_timeout=timedelta(seconds=2))
    with pytest.raises(SeatError) as refused:
        async with AsyncSeatClient(address, config=config) as client:
            await client.pools.get(POOL)
    assert isinstance(refused.value, ServiceUnavailable)
    return str(refused.value)


def events(node: ServerProcess) -> list[dict[str, object]]:
    lines = node.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


async def is_alarmed(service: Service) -> bool:
    (node,) = service.nodes
    alarms = [e for e in events(node) if e["event"] in {"etcd_foreign", "store_foreign"}]
    return bool(alarms) and await health_of(node.address) == NOT_SERVING


async def ended(service: Service, *flags: str) -> tuple[int, str]:
    """Run a node that is expected to end by itself; return its exit code and the end of its output."""
    settings = ("--etcd-endpoints", ",".join(service.etcd.endpoints))
    command = ["serve", "--listen", "127.0.0.1:0", *settings, *FLAGS, *flags]
    server = spawn(service.folder, "refused", command)
    try:
        code = await asyncio.to_thread(server.process.wait, 30)
    finally:
        server.kill()
    return code, server.log.read_text()


async def adopt(service: Service, wait: str = "0") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("seatkeeper"),
        *("adopt", "--adopt-wait", wait, "--etcd-endpoints", ",".join(service.etcd.endpoints)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_node_whose_etcd_was_wiped_says_so_and_serves_nothing(service: Service) -> None:
    (node,) = service.nodes
    assert await fence_of_a_seat(node.address) == 1
    await wipe(service.etcd)
    await eventually(lambda: is_alarmed(service), node)
    said = await refusal(node.address)
    assert "seatkeeper adopt" in said


async def test_keys_that_are_gone_stop_a_node_until_they_are_back(service: Service) -> None:
    (node,) = service.nodes
    store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
    key = Keys().deployment()
    entry = await store.get(key)
    assert entry is not None
    await store.commit([Delete(key)])
    await eventually(lambda: is_alarmed(service), node)
    assert "is gone from etcd" in await refusal(node.address)
    await restore_key(store, key, entry.value)

    async def serves() -> bool:
        return await health_of(node.address) == SERVING

    await eventually(serves, node)
    assert await fence_of_a_seat(node.address) == 1
    await store.close()


async def restore_key(store: EtcdStore, key: str, value: bytes) -> None:
    await store.commit([Put(key, value)])


@pytest.mark.parametrize(
    ("token", "bump"), [("another", True), ("etcd-cluster", False), ("etcd-cluster", True)]
)
async def test_a_restored_etcd_is_served_from_after_it_was_adopted(
    service: Service, etcd_program: Path, tmp_path: Path, token: str, bump: bool
) -> None:
    """Whether etcd calls itself by another id or not, and whether its revision went back or not."""
    (node,) = service.nodes
    await fence_of_a_seat(node.address)
    await save(etcd_program, service.etcd, tmp_path / "snapshot")
    forgotten = [await fence_of_a_seat(node.address) for _ in range(3)]
    await restore(etcd_program, service.etcd, tmp_path / "snapshot", token=token, bump=bump)
    await eventually(lambda: is_alarmed(service), node)
    assert "seatkeeper adopt" in await refusal(node.address)

    await node.stop()
    if token == "another":
        code, words = await ended(service)
        assert code == Exit.UNAVAILABLE
        assert "seatkeeper adopt" in words
    code, said = await adopt(service)
    assert code == 0, said
    deployment = said.partition("deployment ")[2].partition(":")[0]
    service.nodes.clear()
    again = await start_node(service, "node-2", (*FLAGS, "--deployment", deployment))
    assert await fence_of_a_seat(again.address) > max(forgotten) + (1 << 31)
    async with AsyncSeatClient(again.address) as client:
        new = await client.pools.create("new", seats=1)
        assert new.fence > 1 << 31, "a pool that the snapshot does not know of is above, too"


async def test_what_is_pinned_is_wanted_and_adopting_wants_no_nodes(service: Service) -> None:
    (node,) = service.nodes
    code, words = await ended(service, "--deployment", "0123456789abcdef")
    assert code == Exit.UNAVAILABLE
    assert "wants 0123456789abcdef" in words
    serving = next(event for event in events(node) if event["event"] == "serving")
    await start_node(service, "node-2", (*FLAGS, "--deployment", str(serving["deployment"])))
    await asyncio.gather(*(each.stop() for each in service.nodes))
    service.nodes.clear()
    await wipe(service.etcd)
    code, words = await ended(service, "--deployment", str(serving["deployment"]))
    assert code == Exit.UNAVAILABLE
    assert "holds no deployment" in words
