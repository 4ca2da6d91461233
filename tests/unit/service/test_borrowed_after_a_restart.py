"""Borrowed seats of a pool that no client uses: all nodes were stopped, and one starts again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.kit import POOL, FakeClock, a_grant, eventually

from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.domain import Borrow, Guard, Instant, PoolPolicy, PoolSpec
from seatkeeper.server.node import Node
from seatkeeper.server.store import MemoryStore, Put, records
from seatkeeper.server.store.keys import Keys

KEYS = Keys()
LENDS = PoolPolicy(borrow=BorrowRule(longest=timedelta(days=1)))


@pytest.mark.parametrize(("after_millis", "is_free"), [(-60_000, False), (0, True)])
async def test_what_is_due_is_freed_when_a_node_starts(
    after_millis: int, is_free: bool
) -> None:
    clock = FakeClock()
    due = Instant(clock.now() - after_millis)
    borrow = Borrow(b"k" * 32, "thumb", Instant(due - 600_000), due, Instant(due - 900_000))
    grant = replace(a_grant(1), session_id="", lease_id=0, borrow=borrow)
    key = KEYS.grant(POOL, grant.grant_id)
    store = MemoryStore(now=clock.monotonic)
    await store.commit(
        [
            Put(KEYS.pool(POOL), records.encode_spec(PoolSpec(POOL, 1, policy=LENDS))),
            Put(KEYS.guard(POOL), records.encode_guard(Guard(1, 1))),
            Put(key, records.encode_grant(grant)),
        ]
    )
    config = NodeConfig(node_id="node-1", listen="127.0.0.1:0", store="memory")
    node = await Node.start(config, store=store, clock=clock)
    try:
        followed = node._core.seats.follows
        await eventually(lambda: followed(POOL), "its owner follows it")

        async def is_gone() -> bool:
            return await store.get(key) is None

        if is_free:
            await eventually(is_gone)
        loop = await node._core.seats.loop(POOL)
        assert loop is not None
        await loop.listed()
        assert await is_gone() is is_free
        assert loop.idle is is_free, "a pool is followed until its seats are back"
    finally:
        await node.stop()
