"""What nodes say of themselves and of each other, to operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest
from tests.client.certificates import Authority
from tests.unit.kit import SharedStore, eventually

from seatkeeper.server.config import NodeConfig
from seatkeeper.server.domain import Instant
from seatkeeper.server.node import Node
from seatkeeper.server.report.certificate_expiry import certificates
from seatkeeper.server.store import MemoryStore, StoreUnavailable
from seatkeeper.server.system_clock import SystemClock
from seatkeeper.server.telemetry.tally import RECENT_MAX, Tally
from seatkeeper.v1 import cluster_service_pb2 as pb
from seatkeeper.v1 import cluster_service_pb2_grpc as pb_grpc

DEADLINE = 10.0
AHEAD = timedelta(seconds=40)


class FastClock(SystemClock):
    """A machine's clock that is ahead."""

    def now(self) -> Instant:
        return Instant(super().now() + int(AHEAD.total_seconds() * 1000))


@asynccontextmanager
async def two_nodes(
    tally: Tally | None = None,
) -> AsyncIterator[tuple[Node, Node, SharedStore]]:
    """Two nodes that know each other; the clock of the second is ahead."""
    store = SharedStore()
    configs = [
        NodeConfig(node_id=f"node-{number}", listen="127.0.0.1:0", store="memory", stop_grace=0)
        for number in (1, 2)
    ]
    first = await Node.start(configs[0], store=store, tally=tally)
    second = await Node.start(configs[1], store=store, clock=FastClock())
    await eventually(lambda: len(first._routing.membership.ring.addresses) == 2)
    try:
        yield first, second, store
    finally:
        store.before_call = None
        for node in (first, second):
            await node.stop()
        await MemoryStore.close(store)


async def report_of(node: Node) -> pb.GetReportResponse:
    async with grpc.aio.insecure_channel(node.address) as channel:
        stub = pb_grpc.ClusterServiceStub(channel)
        return await stub.GetReport(pb.GetReportRequest(), timeout=DEADLINE)


async def test_one_node_reports_all_of_them_and_the_store() -> None:
    tally = Tally()
    tally.committed("p", commands=3, writes=4, seconds=0.002)
    async with two_nodes(tally) as (first, second, _):
        report = await report_of(first)

    assert report.node_id == "node-1"
    assert [(node.node_id, node.address) for node in report.nodes] == [
        ("node-1", first.address),
        ("node-2", second.address),
    ]
    for node in report.nodes:
        assert not node.failure
        assert list(node.ring) == ["node-1", "node-2"]
        assert list(node.silent) == []
    work = report.nodes[0].work
    assert (work.commits, work.commands) == (1, 3)
    assert work.commit_p50.ToTimedelta() == timedelta(milliseconds=2)
    assert report.nodes[1].work.commits == 0
    assert report.store.kind == "memory"
    assert report.store.leases >= 4, "two nodes, two signing keys"


async def test_a_clock_that_is_wrong_is_seen_by_the_other_node() -> None:
    async with two_nodes() as (first, _, _):
        (mine, other) = (await report_of(first)).nodes

    assert mine.clock_ahead.ToTimedelta() == timedelta(0)
    error = other.clock_error.ToTimedelta() + timedelta(milliseconds=1)
    assert abs(other.clock_ahead.ToTimedelta() - AHEAD) <= error


async def test_a_node_that_does_not_answer_is_in_the_report_with_the_reason() -> None:
    async with two_nodes() as (first, second, _):
        await second._server.server.stop(None)
        report = await report_of(first)

    (mine, other) = report.nodes
    assert not mine.failure
    assert (other.node_id, other.address) == ("node-2", second.address)
    assert "UNAVAILABLE" in other.failure


async def test_there_is_a_report_while_the_store_is_down() -> None:
    async def refuse(call: str) -> None:
        raise StoreUnavailable("no member answers")

    async with two_nodes() as (first, _, store):
        store.before_call = refuse
        report = await report_of(first)

    assert [node.node_id for node in report.nodes] == ["node-1", "node-2"]
    assert not any(node.failure for node in report.nodes)


async def test_streams_are_counted_while_they_are_open() -> None:
    tally = Tally()
    tally.stream_opened()
    tally.stream_opened()
    tally.stream_closed()
    assert tally.streams == 1


@pytest.mark.parametrize(("share", "millis"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
async def test_a_share_of_the_commits_stays_below_its_time(share: float, millis: int) -> None:
    tally = Tally()
    for number in reversed(range(1, 101)):
        tally.committed("p", commands=1, writes=1, seconds=number / 1000)
    assert tally.commit_time(share) == timedelta(milliseconds=millis)


async def test_of_old_commits_the_times_are_forgotten() -> None:
    tally = Tally()
    assert tally.commit_time(0.5) is None
    tally.committed("p", commands=1, writes=1, seconds=9.0)
    for _ in range(RECENT_MAX):
        tally.committed("p", commands=1, writes=1, seconds=0.001)
    assert tally.commit_time(1.0) == timedelta(milliseconds=1)
    assert tally.commits == RECENT_MAX + 1


async def test_the_certificate_that_ends_first_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, _ = authority.issue("node-1")
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + authority.ca.read_bytes())
    (reported, alone) = certificates({"tls_cert_file": both, "etcd_ca_file": authority.ca})

    assert (reported.setting, reported.failure) == ("tls_cert_file", "")
    assert alone.not_after.ToDatetime(UTC) > datetime.now(UTC)
    ends = [
        each.not_after.ToDatetime(UTC) for each in certificates({"a": cert, "b": authority.ca})
    ]
    assert reported.not_after.ToDatetime(UTC) == min(ends)


async def test_a_missing_or_wrong_key_is_reported_and_a_right_one_is_not(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("node-1")
    _, another = authority.issue("node-2")

    def of_key(file: Path) -> list[str]:
        reported = certificates({"tls_cert_file": cert, "tls_key_file": file})
        return [each.failure for each in reported if each.setting == "tls_key_file"]

    assert of_key(key) == []
    (gone,) = of_key(tmp_path / "gone.key")
    assert "No such file" in gone
    (wrong,) = of_key(another)
    assert f"is not the key of {cert}" in wrong
    (none,) = of_key(cert)
    assert "holds no unencrypted private key" in none


async def test_a_file_without_a_certificate_is_reported_with_the_reason(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    missing, wrong = certificates(
        {"etcd_ca_file": tmp_path / "gone.pem", "tls_cert_file": empty}
    )

    assert "No such file" in missing.failure
    assert "holds no certificate" in wrong.failure
