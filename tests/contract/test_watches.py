"""Watches: every change, in order, each revision whole; or an end that is reported."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from seatkeeper.server.store import Change, Delete, Entry, Put, WatchEnded

if TYPE_CHECKING:
    from tests.contract.conftest import Subject


async def test_changes_come_in_order_and_revisions_whole(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    start = (await store.list(p)).revision
    async with aclosing(store.watch(p, from_revision=start + 1)) as watch:
        first = await store.commit([Put(p + "b", b"1"), Put(p + "a", b"2")])
        second = await store.commit([Put(p + "c", b"3"), Delete(p + "b")])
        batches = await subject.changes(watch, 4)

    assert [change for batch in batches for change in batch] == [
        Change(p + "b", Entry(p + "b", b"1", first.revision), first.revision),
        Change(p + "a", Entry(p + "a", b"2", first.revision), first.revision),
        Change(p + "c", Entry(p + "c", b"3", second.revision), second.revision),
        Change(p + "b", None, second.revision),
    ]
    for batch, following in pairwise(batches):
        assert batch[-1].revision < following[0].revision


async def test_it_can_start_in_the_past(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    revisions = [(await store.commit([Put(p + "a", b"%d" % n)])).revision for n in range(20)]

    async with aclosing(store.watch(p, from_revision=revisions[5])) as watch:
        batches = await subject.changes(watch, 15)

    seen = [change for batch in batches for change in batch]
    assert [change.revision for change in seen] == revisions[5:]
    assert [change.entry.value for change in seen if change.entry] == [
        b"%d" % n for n in range(5, 20)
    ]


async def test_nothing_is_missed_between_a_listing_and_its_watch(subject: Subject) -> None:
    """The pattern that every mirror of ours uses, while somebody writes all the time."""
    store, p = subject.store, subject.prefix

    async def write() -> None:
        for n in range(300):
            await store.commit([Put(f"{p}{n % 10}", b"%d" % n)])

    writer = asyncio.create_task(write())
    await subject.until(lambda: _has_any(subject))
    listing = await store.list(p)
    mirror = {entry.key: entry for entry in listing.entries}
    async with aclosing(store.watch(p, from_revision=listing.revision + 1)) as watch:
        await writer
        final = await store.list(p)
        async with asyncio.timeout(10):
            async for batch in watch:
                for change in batch.changes:
                    assert change.entry is not None
                    mirror[change.key] = change.entry
                if batch.revision >= max(entry.mod_revision for entry in final.entries):
                    break
    assert mirror == {entry.key: entry for entry in final.entries}


async def test_other_keys_are_not_seen(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    start = (await store.list(p)).revision
    async with aclosing(store.watch(p + "a/", from_revision=start + 1)) as watch:
        await store.commit([Put(p + "a", b""), Put(p + "a0", b""), Put(p + "a/x", b"")])
        ((change,),) = await subject.changes(watch, 1)
    assert change.key == p + "a/x"


async def test_a_revision_of_the_most_keys_comes_whole(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    start = (await store.list(p)).revision
    async with aclosing(store.watch(p, from_revision=start + 1)) as watch:
        await store.commit([Put(f"{p}{n:03d}", bytes(10_000)) for n in range(128)])
        (batch,) = await subject.changes(watch, 128)
    assert len(batch) == 128
    await store.commit([Delete(f"{p}{n:03d}") for n in range(128)])


async def test_the_first_batch_says_that_it_is_established(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    done = await store.commit([Put(p + "a", b"")])
    async with aclosing(store.watch(p, from_revision=done.revision)) as watch:
        batch = await anext(watch)
    assert batch.changes == ()
    assert batch.revision == done.revision - 1


async def test_each_batch_says_how_far_it_is(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    start = (await store.list(p)).revision
    for n in range(5):
        await store.commit([Put(p + "a", b"%d" % n)])
    reached = start
    async with aclosing(store.watch(p, from_revision=start + 1)) as watch, asyncio.timeout(10):
        async for batch in watch:
            assert batch.revision >= reached
            reached = batch.revision
            for change in batch.changes:
                assert change.revision <= batch.revision
            if batch.changes and batch.changes[-1].entry == await store.get(p + "a"):
                break


async def test_from_before_the_compaction_it_ends(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    first = await store.commit([Put(p + "a", b"1")])
    await store.commit([Put(p + "a", b"2")])
    last = await store.commit([Put(p + "a", b"3")])
    await subject.compact(last.revision)

    with pytest.raises(WatchEnded, match="compacted"):
        async with aclosing(store.watch(p, from_revision=first.revision)) as watch:
            await subject.changes(watch, 3)

    async with aclosing(store.watch(p, from_revision=last.revision)) as watch:
        ((change,),) = await subject.changes(watch, 1)
    assert change.revision == last.revision


async def test_compaction_does_not_end_a_watch_that_keeps_up(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    start = (await store.list(p)).revision
    async with aclosing(store.watch(p, from_revision=start + 1)) as watch:
        for n in range(5):
            done = await store.commit([Put(p + "a", b"%d" % n)])
            ((change,),) = await subject.changes(watch, 1)
            assert change.revision == done.revision
            await subject.compact(done.revision)


async def test_closing_the_store_ends_it(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    start = (await store.list(p)).revision
    async with aclosing(store.watch(p, from_revision=start + 1)) as watch:
        await anext(watch)
        waiting = asyncio.create_task(subject.changes(watch, 1))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(WatchEnded):
            await waiting
    with pytest.raises(WatchEnded):
        await anext(store.watch(p, from_revision=1))


async def test_a_reader_that_is_cancelled_is_cancelled(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    start = (await store.list(p)).revision
    async with aclosing(store.watch(p, from_revision=start + 1)) as watch:
        await anext(watch)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await subject.changes(watch, 1)


async def test_a_slow_reader_misses_nothing(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    start = (await store.list(p)).revision
    async with aclosing(store.watch(p, from_revision=start + 1)) as watch:
        await anext(watch)
        for n in range(500):
            await store.commit([Put(p + "a", b"%d" % n)])
        batches = await subject.changes(watch, 500)
    values = [change.entry.value for batch in batches for change in batch if change.entry]
    assert values == [b"%d" % n for n in range(500)]


async def _has_any(subject: Subject) -> bool:
    return len((await subject.store.list(subject.prefix)).entries) > 3
