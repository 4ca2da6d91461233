"""Transactions: entirely or not at all, and at one revision."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from seatkeeper.server.store import (
    OPERATIONS_MAX,
    Delete,
    Entry,
    LeaseNotFound,
    Put,
    StoreRefused,
    StoreUnavailable,
    Unchanged,
)

if TYPE_CHECKING:
    from tests.contract.conftest import Subject


async def test_all_writes_get_one_revision(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    before = await store.commit([Put(p + "b", b"old")])

    done = await store.commit([Put(p + "a", b"1"), Delete(p + "b"), Put(p + "c", b"")])

    assert done.succeeded
    assert done.revision > before.revision
    assert await store.get(p + "a") == Entry(p + "a", b"1", done.revision)
    assert await store.get(p + "b") is None
    assert await store.get(p + "c") == Entry(p + "c", b"", done.revision)


async def test_a_failed_comparison_writes_nothing_and_reads_instead(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    first = await store.commit([Put(p + "guard", b"1")])
    second = await store.commit([Put(p + "guard", b"2")])

    done = await store.commit(
        [Put(p + "seat", b"mine"), Delete(p + "guard")],
        only_if=[Unchanged(p + "guard", first.revision), Unchanged(p + "seat", 0)],
        else_read=[p + "guard", p + "seat"],
    )

    assert not done.succeeded
    assert done.read == {
        p + "guard": Entry(p + "guard", b"2", second.revision),
        p + "seat": None,
    }
    assert done.revision >= second.revision
    assert await store.get(p + "seat") is None


async def test_every_comparison_counts(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    a = await store.commit([Put(p + "a", b"")])
    compare = [Unchanged(p + "a", a.revision), Unchanged(p + "b", 0)]

    assert (await store.commit([Put(p + "x", b"1")], only_if=compare)).succeeded
    await store.commit([Put(p + "b", b"")])
    assert not (await store.commit([Put(p + "x", b"2")], only_if=compare)).succeeded

    entry = await store.get(p + "x")
    assert entry is not None
    assert entry.value == b"1"


async def test_of_two_that_compare_the_same_guard_one_wins(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    guard = await store.commit([Put(p + "guard", b"")])

    outcomes = await asyncio.gather(
        *(
            store.commit(
                [Put(p + "guard", b"%d" % n), Put(p + f"seat/{n}", b"")],
                only_if=[Unchanged(p + "guard", guard.revision)],
            )
            for n in range(20)
        )
    )

    assert sum(done.succeeded for done in outcomes) == 1
    assert len((await store.list(p + "seat/")).entries) == 1


async def test_without_writes_it_is_a_check(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    entry = await store.commit([Put(p + "a", b"1")])

    same = await store.commit([], only_if=[Unchanged(p + "a", entry.revision)])
    other = await store.commit([], only_if=[Unchanged(p + "a", 1)], else_read=[p + "a"])

    assert same.succeeded
    assert same.revision >= entry.revision
    assert not other.succeeded
    assert other.read == {p + "a": Entry(p + "a", b"1", entry.revision)}


async def test_deleting_what_is_not_there_changes_nothing(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    assert (await store.commit([Delete(p + "never")])).succeeded
    assert (await store.list(p)).entries == ()


async def test_a_dead_lease_refuses_the_whole_transaction(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    dead = subject.new_lease_id()
    kept = await store.commit([Put(p + "kept", b"old")])

    with pytest.raises(LeaseNotFound):
        await store.commit([Put(p + "kept", b"new"), Put(p + "a", b"", lease_id=dead)])

    assert (await store.list(p)).entries == (Entry(p + "kept", b"old", kept.revision),)


async def test_a_dead_lease_does_not_matter_when_the_comparison_fails(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    done = await store.commit(
        [Put(p + "a", b"", lease_id=subject.new_lease_id())],
        only_if=[Unchanged(p + "guard", 7)],
    )
    assert not done.succeeded


async def test_the_most_operations_fit(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    keys = [f"{p}{n:03d}" for n in range(OPERATIONS_MAX)]
    absent = [Unchanged(key, 0) for key in keys]
    writes = [Put(key, b"x") for key in keys]

    assert (await store.commit(writes, only_if=absent, else_read=keys)).succeeded
    again = await store.commit(writes, only_if=absent, else_read=keys)

    assert not again.succeeded
    assert [entry.key for entry in again.read.values() if entry] == keys


@pytest.mark.parametrize("which", ["writes", "only_if", "else_read"])
async def test_one_operation_more_is_refused(subject: Subject, which: str) -> None:
    store, p = subject.store, subject.prefix
    keys = [f"{p}{n:03d}" for n in range(OPERATIONS_MAX + 1)]
    with pytest.raises(StoreRefused):
        await store.commit(
            [Put(key, b"x") for key in (keys if which == "writes" else keys[:1])],
            only_if=[Unchanged(key, 0) for key in (keys if which == "only_if" else [])],
            else_read=keys if which == "else_read" else [],
        )
    assert (await store.list(p)).entries == ()


async def test_a_key_written_twice_is_refused(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    with pytest.raises(StoreRefused):
        await store.commit([Put(p + "a", b"1"), Put(p + "a", b"2")])
    with pytest.raises(StoreRefused):
        await store.commit([Put(p + "a", b"1"), Delete(p + "a")])
    assert await store.get(p + "a") is None


async def test_the_empty_key_is_refused(subject: Subject) -> None:
    with pytest.raises(StoreRefused):
        await subject.store.commit([Put("", b"")])
    with pytest.raises(StoreRefused):
        await subject.store.get("")


async def test_too_many_bytes_are_refused(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    for size in (1_600_000, 3_000_000):
        with pytest.raises(StoreRefused):
            await store.commit([Put(p + "large", bytes(size))])
    assert await store.get(p + "large") is None
    await store.commit([Put(p + "large", bytes(1_400_000))])


async def test_after_close_every_call_fails(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    await store.commit([Put(p + "a", b"")])
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.get(p + "a")
    with pytest.raises(StoreUnavailable):
        await store.commit([Put(p + "a", b"2")])
    with pytest.raises(StoreUnavailable):
        await store.keep_alive(subject.new_lease_id())


async def test_it_says_what_it_is(subject: Subject) -> None:
    done = await subject.store.commit([Put(subject.prefix + "a", b"")])
    status = await subject.store.status()
    assert status.kind in ("memory", "etcd")
    assert status.cluster_id != 0
    assert status.revision >= done.revision
    assert (await subject.store.status()).cluster_id == status.cluster_id
