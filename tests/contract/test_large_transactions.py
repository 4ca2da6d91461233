"""Transactions of more writes than etcd counts in one level: entirely or not at all, all the same."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from seatkeeper.server.store import (
    LARGE_COMPARISONS_MAX,
    LARGE_WRITES_MAX,
    Delete,
    Entry,
    LargeWrite,
    Put,
    PutNew,
    PutOver,
    StoreRefused,
    Unchanged,
    UnwrittenBelow,
)

if TYPE_CHECKING:
    from tests.contract.conftest import Subject


async def revision_of(subject: Subject) -> int:
    return (await subject.store.list(subject.prefix)).revision


async def test_the_most_writes_get_one_revision(subject: Subject) -> None:
    """Every kind of write under the most comparisons, as the largest change of pools has them."""
    store, p = subject.store, subject.prefix
    guards = [f"{p}guard/{n:03d}" for n in range(LARGE_COMPARISONS_MAX)]
    guard = await store.commit([Put(key, b"") for key in guards])
    old = [f"{p}old/{n:03d}" for n in range(100)]
    await store.commit([Put(key, b"old") for key in old])
    seen = await revision_of(subject)
    room = LARGE_WRITES_MAX - len(old)
    writes: list[LargeWrite] = [PutOver(key, b"over") for key in old]
    writes += [Put(f"{p}made/{n:04d}", b"x") for n in range(room // 2)]
    writes += [PutNew(f"{p}new/{n:04d}", b"y") for n in range(room // 2)]

    done = await store.commit_large(
        writes,
        only_if=[Unchanged(key, guard.revision) for key in guards],
        unwritten_below=UnwrittenBelow(p, seen),
    )

    assert done.succeeded
    assert done.revision > seen
    for prefix, count in (("old/", 100), ("made/", room // 2), ("new/", room // 2)):
        entries = (await store.list(p + prefix)).entries
        assert len(entries) == count
        assert {entry.mod_revision for entry in entries} == {done.revision}


async def test_a_watch_delivers_them_as_one_batch(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    seen = await revision_of(subject)
    writes = [Put(f"{p}{n:04d}", b"x" * 400) for n in range(1_000)]
    async with aclosing(store.watch(p, from_revision=seen + 1)) as watch:
        done = await store.commit_large(writes, unwritten_below=UnwrittenBelow(p, seen))
        (batch,) = await subject.changes(watch, 1_000)
    assert {change.revision for change in batch} == {done.revision}


async def test_what_was_written_below_the_prefix_since_fails_it(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    await store.commit([Put(p + "in/a", b"1"), Put(p + "out", b"")])
    seen = await revision_of(subject)
    below = UnwrittenBelow(p + "in/", seen)

    await store.commit([Put(p + "out", b"2")])
    assert (await store.commit_large([Put(p + "in/b", b"")], unwritten_below=below)).succeeded
    # Now by what the first has written, which was not there.
    again = await store.commit_large([Put(p + "in/c", b"")], unwritten_below=below)
    assert not again.succeeded
    assert await store.get(p + "in/c") is None


async def test_a_deletion_below_the_prefix_is_not_noticed(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    await store.commit([Put(p + "in/a", b"1")])
    below = UnwrittenBelow(p + "in/", await revision_of(subject))
    await store.commit([Delete(p + "in/a")])
    assert (await store.commit_large([Put(p + "in/b", b"")], unwritten_below=below)).succeeded


async def test_a_put_over_nothing_fails_all(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    await store.commit([Put(p + "there", b"old"), Put(p + "gone", b"")])
    below = UnwrittenBelow(p, await revision_of(subject))
    await store.commit([Delete(p + "gone")])
    fill = [Put(f"{p}fill/{n}", b"") for n in range(200)]

    writes: list[LargeWrite] = [PutOver(p + "there", b"new"), *fill, PutOver(p + "gone", b"")]
    done = await store.commit_large(writes, unwritten_below=below)

    assert not done.succeeded
    (left,) = (await store.list(p)).entries
    assert (left.key, left.value) == (p + "there", b"old")


async def test_what_is_put_new_stays_where_it_is_there(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    lease = subject.new_lease_id()
    there = await store.commit([Put(p + "guard", b"fence 9")])
    below = UnwrittenBelow(p + "pools/", await revision_of(subject))

    writes = [PutNew(p + "guard", b"fence 0"), PutNew(p + "other", b"fence 0")]
    done = await store.commit_large(writes, unwritten_below=below)

    assert done.succeeded
    assert await store.get(p + "guard") == Entry(p + "guard", b"fence 9", there.revision)
    assert await store.get(p + "other") == Entry(p + "other", b"fence 0", done.revision)
    with pytest.raises(StoreRefused):
        await store.commit_large([Put(p + "x", b"", lease)], unwritten_below=below)


async def test_a_comparison_of_one_key_counts(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    await store.commit([Put(p + "guard", b""), Put(p + "pools/a", b"")])
    below = UnwrittenBelow(p + "pools/", await revision_of(subject))
    guard = [Unchanged(p + "guard", 1)]
    done = await store.commit_large(
        [Delete(p + "pools/a")], only_if=guard, unwritten_below=below
    )
    assert not done.succeeded
    assert await store.get(p + "pools/a") is not None


async def test_of_two_with_the_same_view_one_wins(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    below = UnwrittenBelow(p, await revision_of(subject))
    outcomes = await asyncio.gather(
        *(
            store.commit_large(
                [Put(f"{p}{key:03d}", b"%d" % who) for key in range(300)], unwritten_below=below
            )
            for who in range(10)
        )
    )
    assert sum(done.succeeded for done in outcomes) == 1
    assert len({entry.value for entry in (await store.list(p)).entries}) == 1


@pytest.mark.parametrize(
    ("writes", "comparisons"),
    [(LARGE_WRITES_MAX + 1, 0), (1, LARGE_COMPARISONS_MAX + 1)],
    ids=["writes", "comparisons"],
)
async def test_one_more_is_refused(subject: Subject, writes: int, comparisons: int) -> None:
    store, p = subject.store, subject.prefix
    with pytest.raises(StoreRefused):
        await store.commit_large(
            [Put(f"{p}{n}", b"") for n in range(writes)],
            only_if=[Unchanged(f"{p}{n}", 0) for n in range(comparisons)],
            unwritten_below=UnwrittenBelow(p, await revision_of(subject)),
        )
    with pytest.raises(StoreRefused):
        await store.commit_large(
            [Put(p + "a", b"1"), Delete(p + "a")],
            unwritten_below=UnwrittenBelow(p, await revision_of(subject)),
        )
    assert (await store.list(p)).entries == ()
