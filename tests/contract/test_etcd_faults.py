"""Members that stop, die and come back: calls end in time, and say the truth about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from typing import TypeVar

import pytest

from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdProcess
from seatkeeper.server.store import OutcomeUnknown, Put, StoreUnavailable, WatchEnded
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

CALL_TIMEOUT = timedelta(seconds=3)
"""Longer than an election of a quick etcd takes on a busy machine."""
SLACK_SECONDS = 1.0
"""How late a call may be on a busy machine."""
LEASE = 4711
T = TypeVar("T")


@pytest.fixture
async def store(cluster: EtcdCluster) -> AsyncIterator[EtcdStore]:
    """A store on all three, connected to one."""
    store = EtcdStore(
        EtcdConfig(
            endpoints=cluster.endpoints,
            call_timeout=CALL_TIMEOUT,
            watch_silence=timedelta(seconds=1),
        )
    )
    await store.commit([Put("/a", b"before")])
    yield store
    await store.close()


def member_in_use(cluster: EtcdCluster, store: EtcdStore) -> EtcdProcess:
    return next(member for member in cluster.members if member.endpoint == store.endpoint)


@contextmanager
def within(limit: timedelta) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < limit.total_seconds() + SLACK_SECONDS


async def outcome(call: Awaitable[T]) -> T | Exception:
    """Return what a call returned or raised."""
    try:
        return await call
    except Exception as error:
        return error


async def commit_in_the_end(store: EtcdStore, value: bytes) -> None:
    """Commit with retries, until it is known to have worked."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            await store.commit([Put("/a", value)])
            return
        except (StoreUnavailable, OutcomeUnknown):
            await asyncio.sleep(0.02)
    pytest.fail("no commit worked")


async def test_reads_leave_a_paused_member_within_their_deadline(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    paused = member_in_use(cluster, store)
    paused.pause()

    with within(CALL_TIMEOUT):
        entry = await store.get("/a")

    assert entry is not None
    assert entry.value == b"before"
    assert store.endpoint != paused.endpoint
    await commit_in_the_end(store, b"after")


async def test_renewals_leave_a_paused_member_within_their_deadline(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    await store.grant_lease(LEASE, timedelta(seconds=60))
    await store.keep_alive(LEASE)
    member_in_use(cluster, store).pause()

    with within(CALL_TIMEOUT):
        answers = await asyncio.gather(*(store.keep_alive(LEASE) for _ in range(10)))

    assert answers == [timedelta(seconds=60)] * 10


async def test_a_commit_on_a_paused_member_is_unknown_and_the_next_goes_elsewhere(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    paused = member_in_use(cluster, store)
    paused.pause()

    with within(CALL_TIMEOUT), pytest.raises(OutcomeUnknown):
        await store.commit([Put("/lost", b"")])

    assert store.endpoint != paused.endpoint
    await commit_in_the_end(store, b"after")


async def test_a_commit_may_have_a_shorter_deadline(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    member_in_use(cluster, store).pause()
    limit = timedelta(milliseconds=300)
    with within(limit), pytest.raises(OutcomeUnknown):
        await store.commit([Put("/lost", b"")], timeout=limit)


async def test_a_killed_member_is_left(cluster: EtcdCluster, store: EtcdStore) -> None:
    await store.grant_lease(LEASE, timedelta(seconds=60))
    await store.keep_alive(LEASE)
    dead = member_in_use(cluster, store)
    dead.kill()

    with within(CALL_TIMEOUT):
        assert await store.get("/a") is not None
    with within(CALL_TIMEOUT):
        await store.keep_alive(LEASE)
    assert store.endpoint != dead.endpoint
    await commit_in_the_end(store, b"after")


async def test_no_member_is_given_up_forever(cluster: EtcdCluster, store: EtcdStore) -> None:
    """Each in turn is the only one that is left out; the cluster works throughout."""
    for n, member in enumerate(cluster.members):
        member.kill()
        await commit_in_the_end(store, b"%d" % n)
        await member.start()
    only = cluster.members[0]
    for member in cluster.members[1:]:
        await member.stop()
    for member in cluster.members[1:2]:
        await member.start()
    await commit_in_the_end(store, b"last")
    assert only.running


async def test_without_a_quorum_calls_fail_in_time_and_recover(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    for member in cluster.members[:2]:
        member.kill()

    with within(CALL_TIMEOUT), pytest.raises(StoreUnavailable):
        await store.get("/a")
    with within(CALL_TIMEOUT), pytest.raises((StoreUnavailable, OutcomeUnknown)):
        await store.commit([Put("/a", b"")])
    with within(CALL_TIMEOUT), pytest.raises((StoreUnavailable, OutcomeUnknown)):
        await store.keep_alive(LEASE)

    cluster.members[0].launch()
    await commit_in_the_end(store, b"after")


async def test_a_member_that_lost_its_leader_ends_its_watches(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    """Otherwise its watches would stay open, healthy to look at, and never say a thing."""
    own = member_in_use(cluster, store)
    async with aclosing(store.watch("/", from_revision=1)) as watch:
        await anext(watch)
        for member in cluster.members:
            if member is not own:
                member.kill()
        with within(timedelta(seconds=20)), pytest.raises(WatchEnded):
            async for _ in watch:
                pass


async def test_a_watch_on_a_paused_member_ends_and_the_next_is_elsewhere(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    paused = member_in_use(cluster, store)
    async with aclosing(store.watch("/", from_revision=1)) as watch:
        await anext(watch)
        await anext(watch)
        paused.pause()
        with within(timedelta(seconds=3)), pytest.raises(WatchEnded, match="silent"):
            async for _ in watch:
                pass

    assert store.endpoint != paused.endpoint
    await commit_in_the_end(store, b"after")
    async with aclosing(store.watch("/", from_revision=1)) as watch, asyncio.timeout(10):
        async for batch in watch:
            if any(change.entry and change.entry.value == b"after" for change in batch.changes):
                break


async def test_with_all_members_gone_every_call_ends_in_time(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    cluster.kill()
    with within(CALL_TIMEOUT):
        results = await asyncio.gather(
            outcome(store.get("/a")),
            outcome(store.list("/")),
            outcome(store.commit([Put("/a", b"")])),
            outcome(store.grant_lease(LEASE, timedelta(seconds=5))),
            outcome(store.keep_alive(LEASE)),
            outcome(store.revoke_lease(LEASE)),
            outcome(store.lease_remaining(LEASE)),
            outcome(store.status()),
            outcome(anext(store.watch("/", from_revision=1))),
        )
    expected = [StoreUnavailable, OutcomeUnknown, WatchEnded]
    assert all(type(result) in expected for result in results), results

    # By now nothing is connected, so nothing can have left.
    with within(CALL_TIMEOUT), pytest.raises(StoreUnavailable):
        await store.commit([Put("/a", b"")])

    await cluster.start()
    await commit_in_the_end(store, b"after")


async def test_with_all_members_paused_every_call_ends_in_time(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    await store.grant_lease(LEASE, timedelta(seconds=60))
    await store.keep_alive(LEASE)
    for member in cluster.members:
        member.pause()

    with within(CALL_TIMEOUT):
        read, commit, renewal = await asyncio.gather(
            outcome(store.get("/a")),
            outcome(store.commit([Put("/a", b"")])),
            outcome(store.keep_alive(LEASE)),
        )
    assert isinstance(read, StoreUnavailable)
    assert isinstance(commit, OutcomeUnknown)
    assert isinstance(renewal, OutcomeUnknown)

    for member in cluster.members:
        member.resume()
    await commit_in_the_end(store, b"after")


async def test_closing_ends_the_calls_under_way(cluster: EtcdCluster, store: EtcdStore) -> None:
    for member in cluster.members:
        member.pause()
    calls = [
        asyncio.create_task(outcome(store.get("/a"))),
        asyncio.create_task(outcome(store.commit([Put("/a", b"")]))),
        asyncio.create_task(outcome(store.keep_alive(LEASE))),
    ]
    await asyncio.sleep(0)
    with within(timedelta(seconds=0)):
        await store.close()
        results = await asyncio.gather(*calls)
    assert [type(result) in (StoreUnavailable, OutcomeUnknown) for result in results] == [
        True
    ] * 3
