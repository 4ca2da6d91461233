"""The network at its worst: answers that are lost after the fact, and links that fall silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio
import pytest

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store import (
    LeaseExists,
    OutcomeUnknown,
    Put,
    StoreUnavailable,
    Unchanged,
    WatchEnded,
)
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.etcd.calls import LEASE_KEEP_ALIVE, TXN, WATCH

if TYPE_CHECKING:
    from tests.contract.conftest import Subject

    from seatkeeper.chaos.relay import Relay
    from seatkeeper.devcluster.etcd_process import EtcdCluster

T = TypeVar("T")
CALL_TIMEOUT = timedelta(milliseconds=700)
WATCH_SILENCE = timedelta(seconds=1)


def config(*endpoints: str) -> EtcdConfig:
    return EtcdConfig(
        endpoints=endpoints, call_timeout=CALL_TIMEOUT, watch_silence=WATCH_SILENCE
    )


@pytest.fixture
def shared_etcd(etcd: EtcdCluster) -> EtcdCluster:
    """``subject`` is the real etcd here, reached directly."""
    return etcd


@pytest.fixture
async def proxy(etcd: EtcdCluster, proxy_to: Callable[[str], Awaitable[Relay]]) -> Relay:
    return await proxy_to(etcd.endpoints[0])


@pytest.fixture
async def store(proxy: Relay) -> AsyncIterator[EtcdStore]:
    """A store behind the proxy."""
    store = EtcdStore(config(proxy.endpoint))
    await store.status()
    yield store
    await store.close()


@pytest.mark.parametrize("reported", [True, False], ids=["cut", "silent"])
async def test_a_commit_whose_answer_is_lost_is_unknown_and_has_happened(
    subject: Subject, proxy: Relay, store: EtcdStore, reported: bool
) -> None:
    key = subject.prefix + "seat"
    mine, absent = [Put(key, b"mine")], [Unchanged(key, 0)]
    proxy.mute()

    commit = asyncio.create_task(store.commit(mine, only_if=absent))
    await subject.until(lambda: _exists(subject, key))
    if reported:
        proxy.cut()
    with pytest.raises(OutcomeUnknown):
        await commit

    # What a caller does then: ask again with the same comparison, and find its own record.
    proxy.recover()
    again = await _with_retries(lambda: store.commit(mine, only_if=absent, else_read=[key]))
    assert not again.succeeded
    entry = again.read[key]
    assert entry is not None
    assert entry.value == b"mine"


async def test_a_commit_is_sent_once(subject: Subject, proxy: Relay, store: EtcdStore) -> None:
    key = subject.prefix + "counter"
    for _ in range(5):
        await _with_retries(store.status)
        proxy.mute()
        with pytest.raises(OutcomeUnknown):
            await store.commit([Put(key, b"")], timeout=timedelta(milliseconds=300))
        proxy.recover()
    async with aclosing(subject.store.watch(key, from_revision=1)) as watch:
        await subject.changes(watch, 5)
        await subject.store.commit([Put(key + "-end", b"")])
        ((change,),) = await subject.changes(watch, 1)
    assert change.key == key + "-end"


async def test_a_grant_whose_answer_is_lost_can_be_repeated(
    subject: Subject, proxy: Relay, store: EtcdStore
) -> None:
    lease = subject.new_lease_id()
    proxy.mute()
    with pytest.raises(OutcomeUnknown):
        await store.grant_lease(lease, timedelta(seconds=60))
    proxy.recover()

    with pytest.raises(LeaseExists):
        await _with_retries(lambda: store.grant_lease(lease, timedelta(seconds=60)))
    assert await store.keep_alive(lease) == timedelta(seconds=60)
    await store.revoke_lease(lease)


async def test_before_it_is_connected_nothing_leaves(proxy: Relay) -> None:
    proxy.stall()
    store = EtcdStore(config(proxy.endpoint))
    with pytest.raises(StoreUnavailable):
        await store.commit([Put("/never", b"")])
    with pytest.raises(StoreUnavailable):
        await store.keep_alive(1)
    with pytest.raises(WatchEnded):
        await anext(store.watch("/", from_revision=1))
    await store.close()


async def test_renewals_survive_a_cut(subject: Subject, proxy: Relay, store: EtcdStore) -> None:
    lease = subject.new_lease_id()
    await store.grant_lease(lease, timedelta(seconds=60))
    await store.keep_alive(lease)
    for _ in range(3):
        proxy.cut()
        assert await _with_retries(lambda: store.keep_alive(lease)) == timedelta(seconds=60)
    await store.revoke_lease(lease)


async def test_a_renewal_on_a_silent_link_is_unknown_in_time(
    subject: Subject, proxy: Relay, store: EtcdStore
) -> None:
    lease = subject.new_lease_id()
    await store.grant_lease(lease, timedelta(seconds=60))
    await store.keep_alive(lease)
    proxy.stall()
    start = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        await store.keep_alive(lease)
    assert time.monotonic() - start < 2 * CALL_TIMEOUT.total_seconds()


async def test_a_watch_on_a_silent_link_ends(
    subject: Subject, proxy: Relay, store: EtcdStore
) -> None:
    async with aclosing(store.watch(subject.prefix, from_revision=1)) as watch:
        await anext(watch)
        proxy.stall()
        start = time.monotonic()
        with pytest.raises(WatchEnded, match="silent"):
            await subject.changes(watch, 1)
        assert time.monotonic() - start < 2.5 * WATCH_SILENCE.total_seconds()


async def test_a_watch_whose_connection_is_cut_ends(
    subject: Subject, proxy: Relay, store: EtcdStore
) -> None:
    async with aclosing(store.watch(subject.prefix, from_revision=1)) as watch:
        await anext(watch)
        proxy.cut()
        with pytest.raises(WatchEnded):
            await subject.changes(watch, 1)


async def test_a_quiet_watch_on_a_good_link_lives_and_reports(
    subject: Subject, store: EtcdStore
) -> None:
    """Nothing happens below its prefix for longer than the silence that would end it."""
    done = await subject.store.commit([Put("/elsewhere" + subject.prefix, b"")])
    start = time.monotonic()
    async with aclosing(store.watch(subject.prefix, from_revision=1)) as watch:
        async for batch in watch:
            assert batch.changes == ()
            if time.monotonic() - start > 1.5 * WATCH_SILENCE.total_seconds():
                break
    assert batch.revision >= done.revision


async def test_a_slow_consumer_is_no_silence(subject: Subject, store: EtcdStore) -> None:
    made = 0
    followed: list[str] = []
    async with aclosing(store.watch(subject.prefix, from_revision=1)) as watch:
        await anext(watch)
        busy_until = time.monotonic() + 1.5 * WATCH_SILENCE.total_seconds()
        while time.monotonic() < busy_until:
            await subject.store.commit([Put(subject.prefix + "a", b"")])
            made += 1
        last = await subject.store.commit([Put(subject.prefix + "z", b"")])
        async for batch in watch:
            followed += [change.key for change in batch.changes]
            if batch.revision >= last.revision:
                break
    assert made > 0
    assert followed == [subject.prefix + "a"] * made + [subject.prefix + "z"]


class FakeEtcd(grpc.GenericRpcHandler):
    """A server that answers one method as the test says."""

    def __init__(self) -> None:
        self.answers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self.answers.get(handler_call_details.method)


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakeEtcd, EtcdStore]]:
    handler = FakeEtcd()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    store = EtcdStore(config(f"127.0.0.1:{port}"))
    yield handler, store
    await store.close()
    await server.stop(None)


WatchContext = grpc.aio.ServicerContext[pb.WatchRequest, pb.WatchResponse]
KeepAliveContext = grpc.aio.ServicerContext[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]
TxnContext = grpc.aio.ServicerContext[pb.TxnRequest, pb.TxnResponse]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "ended the stream"),
        ([pb.WatchResponse(created=True)], "ended the stream"),
        (
            [
                pb.WatchResponse(
                    created=True, canceled=True, watch_id=-1, cancel_reason="permission denied"
                )
            ],
            "permission denied",
        ),
        ([pb.WatchResponse(created=True), pb.WatchResponse(canceled=True)], "cancelled"),
        (
            [
                pb.WatchResponse(created=True),
                pb.WatchResponse(canceled=True, compact_revision=7),
            ],
            "before 7 are compacted",
        ),
        ([pb.WatchResponse(watch_id=1)], "ended the stream"),  # of no watch of ours
    ],
)
async def test_every_way_in_which_etcd_ends_a_watch_is_noticed(
    fake: tuple[FakeEtcd, EtcdStore], answers: list[pb.WatchResponse], reason: str
) -> None:
    handler, store = fake

    async def serve(
        requests: AsyncIterator[pb.WatchRequest], context: WatchContext
    ) -> AsyncIterator[pb.WatchResponse]:
        await anext(requests)
        for answer in answers:
            yield answer

    handler.answers[WATCH.path] = grpc.stream_stream_rpc_method_handler(
        serve, WATCH.request.FromString, WATCH.response.SerializeToString
    )
    with pytest.raises(WatchEnded, match=reason):
        async for _ in store.watch("/", from_revision=5):
            pass


async def test_a_keep_alive_stream_that_ends_cleanly_is_made_again(
    fake: tuple[FakeEtcd, EtcdStore],
) -> None:
    handler, store = fake
    streams = 0

    async def serve(
        requests: AsyncIterator[pb.LeaseKeepAliveRequest], context: KeepAliveContext
    ) -> AsyncIterator[pb.LeaseKeepAliveResponse]:
        nonlocal streams
        streams += 1
        request = await anext(requests)
        if streams > 1:
            yield pb.LeaseKeepAliveResponse(id=request.id, ttl=9)

    handler.answers[LEASE_KEEP_ALIVE.path] = grpc.stream_stream_rpc_method_handler(
        serve, LEASE_KEEP_ALIVE.request.FromString, LEASE_KEEP_ALIVE.response.SerializeToString
    )
    assert await store.keep_alive(1) == timedelta(seconds=9)
    assert streams == 2


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: leader changed", OutcomeUnknown),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out", OutcomeUnknown),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped", OutcomeUnknown),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", StoreUnavailable),
        (grpc.StatusCode.UNKNOWN, "raft proposal dropped", OutcomeUnknown),
        (grpc.StatusCode.INTERNAL, "stream terminated by RST_STREAM", OutcomeUnknown),
        (grpc.StatusCode.CANCELLED, "", OutcomeUnknown),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", StoreUnavailable),
    ],
)
async def test_what_an_error_proves_about_a_commit(
    fake: tuple[FakeEtcd, EtcdStore],
    code: grpc.StatusCode,
    details: str,
    expected: type[Exception],
) -> None:
    handler, store = fake
    received = 0

    async def serve(request: pb.TxnRequest, context: TxnContext) -> pb.TxnResponse:
        nonlocal received
        received += 1
        await context.abort(code, details)
        raise AssertionError

    handler.answers[TXN.path] = grpc.unary_unary_rpc_method_handler(
        serve, TXN.request.FromString, TXN.response.SerializeToString
    )
    with pytest.raises(expected):
        await store.commit([Put("/a", b"")])
    assert received == 1


async def _exists(subject: Subject, key: str) -> bool:
    return await subject.store.get(key) is not None


async def _with_retries(call: Callable[[], Awaitable[T]]) -> T:
    for _ in range(50):
        try:
            return await call()
        except (StoreUnavailable, OutcomeUnknown):
            await asyncio.sleep(0.02)
    return await call()
