"""Leases: keys that go when their owner does, all at once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from seatkeeper.server.store import Entry, LeaseExists, LeaseNotFound, Put, StoreRefused

if TYPE_CHECKING:
    from tests.contract.conftest import Subject

TTL = timedelta(seconds=1)
LONG_TTL = timedelta(seconds=60)


async def test_its_keys_go_when_it_ends_all_at_one_revision(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    lease = subject.new_lease_id()
    await store.grant_lease(lease, TTL)
    done = await store.commit(
        [Put(f"{p}{n}", b"", lease_id=lease) for n in range(5)] + [Put(p + "free", b"")]
    )

    subject.pass_time(TTL)

    async with aclosing(store.watch(p, from_revision=done.revision + 1)) as watch:
        (changes,) = await subject.changes(watch, 5)
    assert [change.key for change in changes] == [f"{p}{n}" for n in range(5)]
    assert all(change.entry is None for change in changes)
    assert len({change.revision for change in changes}) == 1
    assert [entry.key for entry in (await store.list(p)).entries] == [p + "free"]


async def test_revoking_deletes_its_keys_at_one_revision(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    lease = subject.new_lease_id()
    await store.grant_lease(lease, LONG_TTL)
    for n in range(3):
        done = await store.commit([Put(f"{p}{n}", b"", lease_id=lease)])

    await store.revoke_lease(lease)

    async with aclosing(store.watch(p, from_revision=done.revision + 1)) as watch:
        (changes,) = await subject.changes(watch, 3)
    assert len({change.revision for change in changes}) == 1
    assert (await store.list(p)).entries == ()
    with pytest.raises(LeaseNotFound):
        await store.commit([Put(p + "late", b"", lease_id=lease)])


async def test_renewed_it_outlives_its_ttl(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    lease, other = subject.new_lease_id(), subject.new_lease_id()
    ttl = await store.grant_lease(lease, TTL)
    await store.grant_lease(other, TTL)
    await store.commit([Put(p + "kept", b"", lease_id=lease)])
    await store.commit([Put(p + "lost", b"", lease_id=other)])

    async def other_ended() -> bool:
        subject.pass_time(ttl / 4)
        await store.keep_alive(lease)
        return await store.get(p + "lost") is None

    await subject.until(other_ended)

    assert await store.get(p + "kept") is not None
    assert await store.keep_alive(lease) == ttl


async def test_renewing_what_does_not_exist_says_so(subject: Subject) -> None:
    store = subject.store
    with pytest.raises(LeaseNotFound):
        await store.keep_alive(subject.new_lease_id())

    lease = subject.new_lease_id()
    await store.grant_lease(lease, LONG_TTL)
    await store.revoke_lease(lease)
    with pytest.raises(LeaseNotFound):
        await store.keep_alive(lease)


async def test_many_are_renewed_at_once_and_each_gets_its_own_answer(subject: Subject) -> None:
    store = subject.store
    leases = {subject.new_lease_id(): timedelta(seconds=60 + n) for n in range(50)}
    await asyncio.gather(*(store.grant_lease(lease, ttl) for lease, ttl in leases.items()))
    missing = subject.new_lease_id()

    asked = [*leases, missing, *leases]
    answers = await asyncio.gather(*map(store.keep_alive, asked), return_exceptions=True)

    for lease, answer in zip(asked, answers, strict=True):
        if lease == missing:
            assert isinstance(answer, LeaseNotFound)
        else:
            assert answer == leases[lease]
    await asyncio.gather(*map(store.revoke_lease, leases))


async def test_an_id_is_taken_once(subject: Subject) -> None:
    store = subject.store
    lease = subject.new_lease_id()
    await store.grant_lease(lease, LONG_TTL)
    with pytest.raises(LeaseExists):
        await store.grant_lease(lease, LONG_TTL)

    await store.revoke_lease(lease)
    await store.grant_lease(lease, LONG_TTL)
    await store.revoke_lease(lease)


async def test_revoking_twice_is_fine(subject: Subject) -> None:
    lease = subject.new_lease_id()
    await subject.store.grant_lease(lease, LONG_TTL)
    await subject.store.revoke_lease(lease)
    await subject.store.revoke_lease(lease)
    assert await subject.store.lease_remaining(lease) is None
    await subject.store.revoke_lease(subject.new_lease_id())  # one that never was


async def test_an_id_of_zero_is_refused(subject: Subject) -> None:
    """etcd takes zero as "choose one for me", and the caller would not learn which."""
    with pytest.raises(StoreRefused):
        await subject.store.grant_lease(0, LONG_TTL)


async def test_the_time_left_is_reported(subject: Subject) -> None:
    store = subject.store
    lease = subject.new_lease_id()
    assert await store.lease_remaining(lease) is None

    await store.grant_lease(lease, LONG_TTL)
    left = await store.lease_remaining(lease)
    assert left is not None
    assert LONG_TTL - timedelta(seconds=5) < left <= LONG_TTL

    await store.revoke_lease(lease)
    assert await store.lease_remaining(lease) is None


async def test_a_put_without_the_lease_detaches_the_key(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    lease = subject.new_lease_id()
    await store.grant_lease(lease, LONG_TTL)
    done = await store.commit([Put(p + "a", b"", lease_id=lease), Put(p + "b", b"", lease)])
    assert await store.get(p + "a") == Entry(p + "a", b"", done.revision, lease)
    await store.commit([Put(p + "a", b"stays")])

    await store.revoke_lease(lease)

    assert [entry.key for entry in (await store.list(p)).entries] == [p + "a"]
