"""What the memory store has beyond the contract: bounds, a background, and faults on demand."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest

from seatkeeper.server.store import (
    LeaseNotFound,
    MemoryStore,
    OutcomeUnknown,
    Put,
    StoreUnavailable,
    WatchEnded,
)


async def test_a_watch_that_is_too_far_behind_is_ended() -> None:
    store = MemoryStore(watch_backlog_max=3)
    async with aclosing(store.watch("/", from_revision=1)) as watch:
        await anext(watch)
        for n in range(4):
            await store.commit([Put("/a", b"%d" % n)])
        with pytest.raises(WatchEnded, match="behind"):
            await anext(watch)


async def test_the_past_of_a_watch_may_be_longer_than_its_backlog() -> None:
    store = MemoryStore(watch_backlog_max=3)
    for n in range(10):
        await store.commit([Put("/a", b"%d" % n)])
    async with aclosing(store.watch("/", from_revision=1)) as watch:
        await anext(watch)
        await store.commit([Put("/a", b"10")])
        values = [(await anext(watch)).changes[0].entry for _ in range(11)]
    assert [entry.value for entry in values if entry] == [b"%d" % n for n in range(11)]


async def test_history_is_bounded() -> None:
    store = MemoryStore(history_max=5)
    for n in range(10):
        done = await store.commit([Put("/a", b"%d" % n)])
    with pytest.raises(WatchEnded, match="compacted"):
        await anext(store.watch("/", from_revision=done.revision - 5))
    async with aclosing(store.watch("/", from_revision=done.revision - 4)) as watch:
        await anext(watch)
        for n in range(5, 10):
            assert (await anext(watch)).changes[0].revision == done.revision - 9 + n


async def test_a_refused_call_has_no_effect() -> None:
    store = MemoryStore()

    async def refuse(call: str) -> None:
        if call == "commit":
            raise StoreUnavailable("as the test wants it")

    store.before_call = refuse
    with pytest.raises(StoreUnavailable):
        await store.commit([Put("/a", b"")])
    assert await store.get("/a") is None


async def test_a_lost_answer_has_an_effect() -> None:
    store = MemoryStore()

    async def lose(call: str) -> None:
        if call == "commit":
            raise OutcomeUnknown("as the test wants it")

    store.after_call = lose
    with pytest.raises(OutcomeUnknown):
        await store.commit([Put("/a", b"")])
    assert await store.get("/a") is not None


async def test_watches_can_be_broken() -> None:
    store = MemoryStore()
    async with aclosing(store.watch("/", from_revision=1)) as watch:
        await anext(watch)
        await store.commit([Put("/a", b"")])
        store.end_watches("as the test wants it")
        assert (await anext(watch)).changes
        with pytest.raises(WatchEnded, match="as the test wants it"):
            await anext(watch)


async def test_leases_end_in_the_background_once_that_is_started() -> None:
    store = MemoryStore(lease_ttl_min=timedelta(milliseconds=1))
    store.start_expiry(timedelta(milliseconds=1))
    await store.grant_lease(1, timedelta(milliseconds=5))
    await store.commit([Put("/a", b"", lease_id=1)])
    async with aclosing(store.watch("/", from_revision=3)) as watch, asyncio.timeout(10):
        async for batch in watch:
            if batch.changes:
                break
    assert batch.changes[0].entry is None
    with pytest.raises(LeaseNotFound):
        await store.keep_alive(1)
    await store.close()


async def test_past_its_end_a_lease_cannot_be_renewed() -> None:
    now = 0.0
    store = MemoryStore(now=lambda: now)
    await store.grant_lease(1, timedelta(seconds=5))
    await store.commit([Put("/a", b"", lease_id=1)])
    now = 5.0
    assert await store.lease_remaining(1) == timedelta(0)
    with pytest.raises(LeaseNotFound):
        await store.keep_alive(1)
    assert await store.get("/a") is None


async def test_an_idle_watch_gets_signs_of_life() -> None:
    store = MemoryStore()
    async with aclosing(store.watch("/a/", from_revision=1)) as watch:
        await anext(watch)
        done = await store.commit([Put("/b", b"")])
        store.expire_due()
        store.expire_due()
        batch = await anext(watch)
    assert batch.changes == ()
    assert batch.revision == done.revision
