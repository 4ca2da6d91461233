"""What a loop reports of its store is what the metrics say that they count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest
from tests.unit.faults import Fault
from tests.unit.kit import acquire, eventually, release
from tests.unit.loops import Loops, NodeLoop, Tally, granted, received

from seatkeeper.server.store import (
    Committed,
    Delete,
    Listing,
    OutcomeUnknown,
    StoreUnavailable,
    WatchBatch,
    WatchEnded,
    Write,
)
from seatkeeper.server.store.follow import Follower


class Counts(Tally):
    """Also remembers failed commits, and watches that ended."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[str] = []
        self.ended: list[str] = []

    def store_failed(self, pool: str, reason: str) -> None:
        self.failed.append(reason)

    def relisted(self, what: str, reason: str) -> None:
        self.ended.append(what)


@pytest.fixture
async def loops() -> AsyncIterator[Loops]:
    loops = Loops()
    yield loops
    await loops.close()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
async def node(loops: Loops, counts: Counts) -> NodeLoop:
    await loops.pool(seats=2)
    return await loops.node(tally=counts)


async def test_a_commit_that_the_store_did_not_accept_is_a_failure(
    node: NodeLoop, counts: Counts
) -> None:
    node.store.faults.append(Fault.UNAVAILABLE)
    await received(node.submit(acquire(1)))
    assert (counts.failed, counts.unknown) == (["StoreUnavailable"], 0)


async def test_a_commit_of_unknown_outcome_is_no_failure(
    node: NodeLoop, counts: Counts
) -> None:
    """It is counted as such; counted twice, it would look like two commits."""
    node.store.faults.append(Fault.REQUEST_LOST)
    await received(node.submit(acquire(1)))
    assert (counts.failed, counts.unknown) == ([], 1)


async def test_a_listing_that_fails_is_no_commit(
    node: NodeLoop, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, failed = node.store.list, list[str]()

    async def fails_once(prefix: str) -> Listing:
        if not failed:
            failed.append(prefix)
            raise StoreUnavailable("no")
        return await listing(prefix)

    node.store.faults.append(Fault.REQUEST_LOST)
    monkeypatch.setattr(node.store, "list", fails_once)
    ear = node.submit(acquire(1))
    await received(ear)
    assert failed
    assert granted(ear)
    assert (counts.failed, counts.unknown) == ([], 1)


async def test_a_commit_that_a_full_store_refused_is_a_failure(
    node: NodeLoop, counts: Counts
) -> None:
    node.store.is_full = True
    await received(node.submit(acquire(1)))
    assert counts.failed == ["StoreFull"]


@pytest.mark.parametrize(
    ("error", "failed", "unknown"),
    [
        (StoreUnavailable("no"), ["StoreFull", "StoreUnavailable"], 0),
        (OutcomeUnknown("silence"), ["StoreFull"], 1),
    ],
    ids=["refused", "unknown"],
)
async def test_so_is_what_becomes_of_the_deletes_that_it_takes(
    node: NodeLoop,
    counts: Counts,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    failed: list[str],
    unknown: int,
) -> None:
    await received(node.submit(acquire(1)))
    commit, hit = node.store.commit, list[str]()

    async def deletes_fail_once(writes: Sequence[Write], **more: Any) -> Committed:
        if all(isinstance(write, Delete) for write in writes) and not hit:
            hit.append("once")
            node.store.is_full = False
            raise error
        return await commit(writes, **more)

    monkeypatch.setattr(node.store, "commit", deletes_fail_once)
    node.store.is_full = True
    await received(node.submit(release(1)))
    assert (counts.failed, counts.unknown) == (failed, unknown)


async def test_a_watch_that_is_merely_behind_has_not_ended(
    loops: Loops, node: NodeLoop, counts: Counts
) -> None:
    other = await loops.node()
    node.store.watching.clear()
    await received(other.submit(acquire(1)))
    late = node.submit(acquire(2))
    await received(late)
    assert granted(late)
    assert counts.conflicts
    assert counts.ended == []


class Trouble:
    """A store whose listings fail at first, and whose first watch ends."""

    def __init__(self) -> None:
        self.listings = 0

    async def list(self, prefix: str) -> Listing:
        self.listings += 1
        if self.listings <= 3:
            raise StoreUnavailable("no")
        return Listing((), self.listings)

    async def watch(
        self, prefix: str, *, from_revision: int
    ) -> AsyncGenerator[WatchBatch, None]:
        yield WatchBatch((), from_revision)
        if self.listings > 4:
            await asyncio.Event().wait()
        raise WatchEnded("it ended")


class Ignored:
    """A view of nothing."""

    def reset(self, listing: Listing) -> None:
        pass

    def apply(self, batch: WatchBatch) -> None:
        pass


async def test_a_listing_that_fails_is_no_watch_that_ended(counts: Counts) -> None:
    store: Any = Trouble()
    follower = Follower(store, "/seats/", Ignored(), counts)
    follower.start()
    await eventually(lambda: store.listings == 5)
    await follower.stop()
    assert counts.ended == ["/seats/"]
