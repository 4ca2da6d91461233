"""A large listing is brought in while others run, and costs the garbage collector nothing later."""

from __future__ import annotations

import asyncio
import gc

import pytest
from tests.unit.kit import KEYS, POOL, a_grant, uuid7

from seatkeeper.server.domain import Guard
from seatkeeper.server.pool import view_reader as module
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.view_reader import bring_in
from seatkeeper.server.store import Entry, Listing, records


def a_listing(grants: int) -> Listing:
    entries = [
        Entry(KEYS.grant(POOL, uuid7(n)), records.encode_grant(a_grant(n)), n)
        for n in range(1, grants + 1)
    ]
    guard = records.encode_guard(Guard(grants, 0))
    return Listing((*entries, Entry(KEYS.guard(POOL), guard, grants + 1)), grants + 1)


async def test_others_run_after_each_step() -> None:
    mirror, turns, reviewed = PoolMirror(KEYS, POOL), 0, list[set[str]]()

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    await bring_in(mirror, a_listing(100), reviewed.append, step=10)
    running.cancel()

    assert turns >= 10
    assert len(reviewed) >= 10
    assert max(map(len, reviewed)) <= 10
    assert (
        set().union(*reviewed) == {uuid7(n) for n in range(1, 101)} == set(mirror.state.grants)
    )


async def test_until_the_last_step_the_view_is_of_no_new_version() -> None:
    mirror, versions = PoolMirror(KEYS, POOL), list[int]()

    await bring_in(
        mirror, a_listing(30), lambda _: versions.append(mirror.guard_revision), step=10
    )

    assert versions == [0, 0, 0, 31]


async def test_what_a_large_pool_is_made_of_is_not_looked_through_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SET_APART", 50)
    before = gc.get_freeze_count()
    try:
        mirror = PoolMirror(KEYS, POOL)
        await bring_in(mirror, a_listing(100), lambda _: None, step=10)
        assert gc.get_freeze_count() - before >= 100
    finally:
        gc.unfreeze()
