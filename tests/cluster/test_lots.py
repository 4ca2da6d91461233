"""Lots over a real etcd: two nodes whose clocks differ, and a service that was away at an end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, replace

import pytest

from seatkeeper.client import AsyncSeatClient, LotChange, NoSeatFree
from seatkeeper.core.lot_messages import encode_lot
from seatkeeper.core.lots import Lot
from seatkeeper.devcluster.etcd_process import EtcdCluster
from seatkeeper.oracle.history import read_history, replay
from seatkeeper.oracle.lots import check_lots, unwritten
from seatkeeper.oracle.stored import located, read_lots
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.domain import Instant
from seatkeeper.server.node import Node
from seatkeeper.server.store import Change
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.system_clock import SystemClock

POOL = "contracts"
AHEAD_SECONDS = 2.0
LIFE_MILLIS = 4_000
FAR_MILLIS = 3_600_000


@dataclass
class OtherClock(SystemClock):
    """A clock of the day that is wrong."""

    ahead_seconds: float = 0.0

    def now(self) -> Instant:
        """Return a time that is not now."""
        return Instant(super().now() + int(self.ahead_seconds * 1000))


def now_millis() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Site:
    """A key prefix of an etcd, and how to start nodes on it."""

    etcd: EtcdCluster
    prefix: str
    first_revision: int

    async def node(self, name: str, ahead_seconds: float = 0.0) -> Node:
        config = NodeConfig(
            node_id=name,
            listen="127.0.0.1:0",
            etcd_endpoints=",".join(self.etcd.endpoints),
            prefix=self.prefix,
            stop_grace=0.5,
        )
        return await Node.start(config, clock=OtherClock(ahead_seconds=ahead_seconds))

    async def history(self) -> list[Change]:
        store = EtcdStore(EtcdConfig(endpoints=self.etcd.endpoints))
        try:
            return await read_history(store, self.prefix, from_revision=self.first_revision)
        finally:
            await store.close()


@pytest.fixture
async def site(etcd: EtcdCluster) -> Site:
    store = EtcdStore(EtcdConfig(endpoints=etcd.endpoints))
    present = (await store.list("none/")).revision
    await store.close()
    return Site(etcd, f"lots-{secrets.token_hex(4)}", present + 1)


def states(changes: list[Change], prefix: str) -> list[int]:
    """The states of the pool's one lot, at each write of its specification."""
    return [
        lot.state
        for _, kind, _, change in located(changes, prefix)
        if kind == "spec" and change.entry is not None
        for lot in read_lots(change.entry.value).values()
    ]


async def test_two_nodes_with_other_clocks_end_a_lot_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    fast = await site.node("fast", AHEAD_SECONDS)
    slow = await site.node("slow", -AHEAD_SECONDS)
    lot = Lot(name="acme", seats=1, ends=now_millis() + FAR_MILLIS)
    async with AsyncSeatClient(fast.address) as one, AsyncSeatClient(slow.address) as other:
        await one.pools.create(POOL, seats=1, lots=[encode_lot(lot)])
        async with one.seat(POOL, project="cv", wait=5) as first:
            async with other.seat(POOL, project="cv", wait=5):
                # Both are held by now, however slow the machine is.
                soon = replace(lot, ends=now_millis() + LIFE_MILLIS)
                await one.pools.update(POOL, lots=LotChange([encode_lot(soon)]))
                async for pool in other.pools.watch(POOL):
                    if pool.spec.seats == 1:
                        break
                assert pool.held == 2, "no seat was taken"
                first.raise_if_lost()
                with pytest.raises(NoSeatFree):
                    async with one.seat(POOL, project="cv", wait=0):
                        pass
            with pytest.raises(NoSeatFree):
                async with other.seat(POOL, project="cv", wait=0):
                    pass
        async with other.seat(POOL, project="cv", wait=5):
            pass
        await one.pools.update(POOL, lots=LotChange(without=["acme"]))
    await asyncio.gather(fast.stop(), slow.stop())

    changes = await site.history()
    assert states(changes, site.prefix) == [1, 1, 2]
    names = [record.getMessage() for record in caplog.records]
    # Begun as it was made, and as it was given another end; ended once.
    assert (names.count("lot_began"), names.count("lot_ended")) == (2, 1)
    history = replay(changes, site.prefix)[POOL]
    assert history.is_correct, history.faults
    assert history.max_out == 2
    at = {change.revision: float(now_millis()) for change in changes}
    assert not list(
        check_lots(changes, at, skew_millis=AHEAD_SECONDS * 1000, prefix=site.prefix)
    )


async def test_what_ended_while_no_node_ran_is_ended_before_anything_is_granted(
    site: Site,
) -> None:
    node = await site.node("first")
    ends = now_millis() + 1_500
    async with AsyncSeatClient(node.address) as client:
        lot = encode_lot(Lot(name="acme", seats=1, ends=ends))
        made = await client.pools.create(POOL, seats=0, lots=[lot])
        assert made.free == 1
    await node.stop()
    await asyncio.sleep(max(0.0, (ends - now_millis()) / 1000))

    node = await site.node("second")
    async with AsyncSeatClient(node.address) as client:
        with pytest.raises(NoSeatFree):
            async with client.seat(POOL, project="cv", wait=0):
                pass
        assert (await client.pools.get(POOL)).spec.seats == 0
    await node.stop()
    changes = await site.history()
    assert states(changes, site.prefix) == [1, 2]
    assert not list(unwritten(changes, now_millis(), site.prefix))
