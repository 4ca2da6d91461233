"""Whatever happens to a ledger, its tables have what etcd's history has: each row, once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import select
from tests.ledger.conftest import Opened
from tests.ledger.written import Counted, counted, reading, written
from tests.unit.events.test_usage_of_a_workload import Service
from tests.unit.kit import KEYS
from tests.unit.loops import Loops

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.ledger import following
from seatkeeper.ledger.database import (
    LedgerDatabase,
    NewHistory,
    Taken,
    TakenOver,
)
from seatkeeper.ledger.following import LedgerFollower
from seatkeeper.ledger.rows import Page
from seatkeeper.ledger.schema import gaps, grants
from seatkeeper.oracle.usage import read_usage
from seatkeeper.server.store import Change, Delete, Entry, MemoryStore, Put, Write

SEEDS = int(os.environ.get("LEDGER_SEEDS", "3"))
"""`make ledger` runs ten of them, on each database."""
KILLS_MIN = 20
"""Of each seed."""
LIVES_MAX = 400
"""Of one seed: it gets on by half a page in each, at least."""


class Killed(Exception):
    """The process has ended."""


class Mortal:
    """The database as a process sees it that is killed at some write: before it, or after."""

    def __init__(
        self, database: LedgerDatabase, rng: random.Random, writes: int | None = None
    ) -> None:
        self._database = database
        self._writes_left = rng.randrange(2) if writes is None else writes
        self._rng = rng

    def take_over(self, writer: str) -> Taken:
        return self._database.take_over(writer)

    def write(self, page: Page, epoch: int, begins: NewHistory | None = None) -> None:
        self._writes_left -= 1
        if self._writes_left >= 0:
            self._database.write(page, epoch, begins)
            return
        if self._rng.random() < 0.5:
            self._database.write(page, epoch, begins)
        raise Killed


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "GATHER_SECONDS", 0)
    monkeypatch.setattr(following, "IDLE_SECONDS", 0)
    monkeypatch.setattr(following, "PENDING_MAX", 0)


def follower(service: Service, database: LedgerDatabase | Mortal) -> LedgerFollower:
    loops = service.loops
    return LedgerFollower(loops.store, database, loops.clock, keys=KEYS)  # type: ignore[arg-type]  # a stand-in


async def caught_up(follower: LedgerFollower, store: MemoryStore) -> None:
    """Follow until everything is written that is there now."""
    latest = (await store.list(KEYS.prefix)).revision
    working = asyncio.create_task(follower.follow())
    try:
        while follower.written < latest and not working.done():
            store.expire_due()
            await asyncio.sleep(0)
        if working.done():
            working.result()
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await working


async def there(service: Service) -> Counted:
    """What the store's history has."""
    return counted(read_usage(await service.changes(), KEYS.prefix))


def deployment(name: str) -> Put:
    """The record of a service."""
    record = state_pb2.DeploymentRecord(deployment_id=name)
    return Put(KEYS.deployment(), record.SerializeToString())


async def a_history(loops: Loops, seed: object) -> Service:
    service = Service(loops, random.Random(f"ledger/{seed}"))
    await loops.store.commit([deployment("ours")])
    await service.start(2)
    return service


async def begun(loops: Loops, seed: object, opened: Opened) -> tuple[Service, LedgerDatabase]:
    """A service in which nothing has happened, and a ledger that has begun."""
    service, database = await a_history(loops, seed), opened()
    await caught_up(follower(service, database), loops.store)
    return service, database


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_killed_at_any_write_it_has_every_row_once(
    seed: int, loops: Loops, url: str, opened: Opened
) -> None:
    service, rng = await a_history(loops, seed), random.Random(seed)
    database = opened()
    await caught_up(
        follower(service, database), loops.store
    )  # it begins before anything happens
    await service.work()
    kills = 0
    for _ in range(LIVES_MAX):
        try:
            await caught_up(follower(service, Mortal(database, rng)), loops.store)
        except Killed:
            kills += 1
        else:
            break
    assert kills >= KILLS_MIN
    assert written(url) == await there(service)
    with reading(url) as connection:
        assert connection.execute(select(gaps)).all() == []


async def test_a_request_that_began_and_ended_is_one_row(
    loops: Loops, url: str, opened: Opened
) -> None:
    service, database = await begun(loops, "once", opened)
    await service.work()
    await caught_up(follower(service, database), loops.store)
    used, unserved = written(url)
    assert (used, unserved) == await there(service)
    assert {row.how for row in used} >= {"released", "expired"}
    assert {row.how for row in unserved} >= {"gave_up", "denied", "cancelled"}
    assert {*used.values(), *unserved.values()} == {1}


async def test_two_at_once_write_every_row_once(loops: Loops, url: str, opened: Opened) -> None:
    service = await a_history(loops, "two")
    first, second = opened(), opened()
    await caught_up(follower(service, first), loops.store)
    await service.work()
    one, other = follower(service, first), follower(service, second)
    for _ in range(LIVES_MAX):
        took = asyncio.create_task(one.follow())
        await asyncio.sleep(0.001)  # in the middle of it, or not
        with contextlib.suppress(TakenOver):
            await caught_up(other, loops.store)
            break
        took.cancel()
        one, other = other, one
    took.cancel()
    with contextlib.suppress(asyncio.CancelledError, TakenOver):
        await took
    await caught_up(follower(service, second), loops.store)
    assert written(url) == await there(service)


async def test_one_that_was_taken_over_writes_nothing(
    loops: Loops, url: str, opened: Opened
) -> None:
    _, database = await begun(loops, "taken", opened)
    old = database.take_over("old")
    standing = old.standing
    assert standing is not None
    opened().take_over("new")
    page = Page(standing, replace(standing, revision=standing.revision + 1))
    with pytest.raises(TakenOver):
        database.write(page, old.epoch)
    assert database.take_over("old again").standing == standing


async def test_what_etcd_has_forgotten_is_a_gap_with_its_bounds(
    loops: Loops, url: str, opened: Opened
) -> None:
    service, database = await begun(loops, "gap", opened)
    await service.work()
    with contextlib.suppress(Killed):
        mortal = Mortal(database, random.Random(0), writes=12)
        await caught_up(follower(service, mortal), loops.store)
    changes = await service.changes()
    stood = database.take_over("").standing
    assert stood is not None
    loops.store.compact(stood.revision + 2)
    await caught_up(follower(service, database), loops.store)

    with reading(url) as connection:
        (gap,) = connection.execute(select(gaps)).all()
    latest = changes[-1].revision
    assert (gap.cause, gap.from_revision, gap.to_revision) == (
        "compacted",
        stood.revision,
        latest,
    )
    assert (gap.from_at, gap.to_at) == (stood.at, loops.clock.now())

    usage = read_usage(changes, KEYS.prefix)
    used, unserved = written(url)
    before = {row for row in usage.used if row.from_revision <= stood.revision}
    assert {row.fence for row in used} == {row.fence for row in before} | {
        row.fence for row in usage.used if row.until_revision is None
    }
    known = {row for row in before if (row.until_revision or latest + 1) <= stood.revision}
    assert known <= used.keys()
    with reading(url) as connection:
        lost = connection.execute(select(grants).where(grants.c.end_reason == "GAP")).all()
    ended = {row.fence for row in before - known if row.until_revision is not None}
    assert {row.fence for row in lost} == ended != set()
    assert {(row.ended_from, row.ended_at) for row in lost} == {(gap.from_at, gap.to_at)}
    assert {row.grant_id for row in unserved} >= {
        row.grant_id for row in usage.unserved if row.until_revision is None
    }


async def test_another_etcd_begins_another_history(
    loops: Loops, url: str, opened: Opened
) -> None:
    service, database = await begun(loops, "other", opened)
    await service.work()
    await caught_up(follower(service, database), loops.store)
    listing = await loops.store.list(KEYS.prefix)
    held = {row.grant_id for row in written(url)[0] if not row.how}
    survivor, *others = sorted(held)
    loops.store = await a_store(
        [entry for entry in listing.entries if not any(each in entry.key for each in others)]
    )
    await caught_up(follower(service, database), loops.store)
    with reading(url) as connection:
        (gap,) = connection.execute(select(gaps)).all()
        rows = connection.execute(select(grants).where(grants.c.grant_id.in_(held))).all()
    assert (gap.cause, gap.history) == ("another store", 2)
    assert {row.grant_id for row in rows if row.ended_at is None} == {survivor}
    assert {row.end_reason for row in rows if row.ended_at} == {"GAP"}


async def test_a_store_that_went_back_and_grew_again_is_noticed(
    loops: Loops, url: str, opened: Opened
) -> None:
    service, database = await begun(loops, "fork", opened)
    await service.work()
    await caught_up(follower(service, database), loops.store)
    cluster_id = (await loops.store.status()).cluster_id
    changes = await service.changes()
    kept = changes[len(changes) // 2].revision
    loops.store = await a_fork(changes, kept, cluster_id)
    await caught_up(follower(service, database), loops.store)
    with reading(url) as connection:
        (gap,) = connection.execute(select(gaps)).all()
    assert (gap.cause, gap.history) == ("restored", 2)
    taken = database.take_over("")
    assert taken.standing is not None
    assert taken.standing.history == 2
    await caught_up(follower(service, database), loops.store)  # and it goes on from there
    with reading(url) as connection:
        assert len(connection.execute(select(gaps)).all()) == 1


async def test_a_record_that_is_none_is_a_gap_and_the_rest_is_written(
    loops: Loops, url: str, opened: Opened
) -> None:
    service, database = await begun(loops, "damaged", opened)
    key = KEYS.grant("other", "damaged")
    done = await loops.store.commit([Put(key, b"\xff\xff")])
    await service.work()
    await loops.store.commit([Delete(key)])
    await caught_up(follower(service, database), loops.store)
    used, _ = written(url)
    assert used.total() > 3
    assert "damaged" not in {row.grant_id for row in used}
    with reading(url) as connection:
        (gap,) = connection.execute(select(gaps)).all()
    assert (gap.cause, gap.from_revision, gap.to_revision) == (
        *("unreadable", done.revision, done.revision),
    )
    assert "damaged" in gap.detail


async def a_store(entries: Iterable[Entry], cluster_id: int | None = None) -> MemoryStore:
    """Another store that has these."""
    store = MemoryStore(cluster_id=cluster_id)
    for entry in entries:
        await store.commit([Put(entry.key, entry.value)])
    return store


async def a_fork(changes: Sequence[Change], kept: int, cluster_id: int) -> MemoryStore:
    """A store of the same history up to some revision, and of another one, as long, after it."""
    store = MemoryStore(cluster_id=cluster_id)
    for revision in range(1, changes[-1].revision + 2):
        at_once = [change for change in changes if change.revision == revision]
        writes: list[Write] = [Put("elsewhere", b"")]
        if revision <= kept and at_once:
            writes = [
                Put(change.key, change.entry.value) if change.entry else Delete(change.key)
                for change in at_once
            ]
        await store.commit(writes)
    return store
