"""All watches of a store on one stream: none may hold up, end or delay another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

import pytest

from seatkeeper.server.store import HistoryCompacted, Put, WatchBatch, WatchEnded
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.etcd import watch_stream as watch_stream_module

if TYPE_CHECKING:
    from tests.contract.conftest import Subject

    from seatkeeper.devcluster.etcd_process import EtcdCluster

MANY = 300


@pytest.fixture
def shared_etcd(etcd: EtcdCluster) -> EtcdCluster:
    """``subject`` is the real etcd here."""
    return etcd


@pytest.fixture
async def store(etcd: EtcdCluster) -> AsyncIterator[EtcdStore]:
    """A store whose streams are looked at."""
    store = EtcdStore(EtcdConfig(endpoints=etcd.endpoints))
    yield store
    await store.close()


def streams(store: EtcdStore) -> list[watch_stream_module.WatchStream]:
    """The streams that are open."""
    return [stream for stream in store._watches._streams if not stream.is_over]


async def begun(watch: AsyncGenerator[WatchBatch, None]) -> None:
    """Wait until a watch is established."""
    async with asyncio.timeout(10):
        assert (await anext(watch)).changes == ()


async def test_hundreds_share_one_and_each_sees_its_own(
    subject: Subject, store: EtcdStore
) -> None:
    start = (await store.list(subject.prefix)).revision + 1
    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(
                aclosing(store.watch(f"{subject.prefix}{n}/", from_revision=start))
            )
            for n in range(MANY)
        ]
        await asyncio.gather(*map(begun, watches))
        assert len(streams(store)) == 1
        for n in range(MANY):
            await store.commit([Put(f"{subject.prefix}{n}/key", b"%d" % n)])
        for n, watch in enumerate(watches):
            ((change,),) = await subject.changes(watch, 1)
            assert change.key == f"{subject.prefix}{n}/key"
    await asyncio.sleep(0)
    assert streams(store)[0].is_idle


async def test_one_that_is_not_read_holds_up_no_other_and_ends(
    subject: Subject, store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream_module, "PENDING_MAX", 20)
    p = subject.prefix
    start = (await store.list(p)).revision + 1
    async with (
        aclosing(store.watch(p, from_revision=start)) as unread,
        aclosing(store.watch(p, from_revision=start)) as read,
    ):
        await begun(unread)
        await begun(read)
        for n in range(30):
            await store.commit([Put(f"{p}key", b"%d" % n)])
            ((change,),) = await subject.changes(read, 1)
            assert change.entry is not None
            assert change.entry.value == b"%d" % n
        with pytest.raises(WatchEnded, match="unread"):
            await subject.changes(unread, 30)
        await store.commit([Put(f"{p}key", b"after")])
        await subject.changes(read, 1)


async def test_one_that_is_closed_or_refused_ends_no_other(
    subject: Subject, store: EtcdStore
) -> None:
    p = subject.prefix
    old = (await store.commit([Put(f"{p}old", b"")])).revision
    start = (await store.commit([Put(f"{p}new", b"")])).revision
    await subject.compact(start)
    async with aclosing(store.watch(p, from_revision=start + 1)) as stays:
        await begun(stays)
        async with aclosing(store.watch(p, from_revision=start + 1)) as goes:
            await begun(goes)
        with pytest.raises(HistoryCompacted):
            async with aclosing(store.watch(p, from_revision=old)) as compacted:
                await subject.changes(compacted, 1)
        await store.commit([Put(f"{p}key", b"")])
        await subject.changes(stays, 1)
        assert len(streams(store)) == 1


async def test_one_that_is_given_up_while_it_is_asked_for_is_stopped(
    subject: Subject, store: EtcdStore
) -> None:
    p = subject.prefix
    start = (await store.list(p)).revision + 1
    async with aclosing(store.watch(p, from_revision=start)) as stays:
        await begun(stays)
        (stream,) = streams(store)
        given_up = store.watch(p, from_revision=start)
        asking = asyncio.create_task(anext(given_up))
        async with asyncio.timeout(10):
            while not stream._asked:  # noqa: ASYNC110 # in every turn: no answer comes in between
                await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await subject.until(lambda: _has_one(stream))
        await store.commit([Put(f"{p}key", b"")])
        await subject.changes(stays, 1)


async def _has_one(stream: watch_stream_module.WatchStream) -> bool:
    return not stream._asked and len(stream._watches) == 1
