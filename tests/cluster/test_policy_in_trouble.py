"""A reclaim, a burst's end, a window's opening and a gang, each while etcd or a record fails them.

What is under way when the trouble comes is written once it is over, and once. What a holder had to
let go it lets go in time, since it needs no answer for that.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from tests.cluster.test_lots import OtherClock
from tests.contract.conftest import call_etcd
from tests.processes import eventually

from seatkeeper.client import (
    AsyncGrant,
    AsyncSeatClient,
    ClientConfig,
    HoldingState,
    NoSeatFree,
    SeatError,
    ServiceUnavailable,
)
from seatkeeper.client.admin.projects import parse_project
from seatkeeper.client.admin.reclaims import parse_reclaim
from seatkeeper.core.lot_messages import encode_lot
from seatkeeper.core.lots import Lot, LotKind
from seatkeeper.core.pool_rules import Who
from seatkeeper.core.reservation_messages import decode_windows, encode_reservation
from seatkeeper.core.reservations import Reservation, Schedule, WindowState
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.etcd.v3 import etcd_pb2
from seatkeeper.oracle.history import PoolHistory, read_history, replay
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.node import Node
from seatkeeper.server.pool import lots as pool_lots
from seatkeeper.server.store import Change, Delete, OutcomeUnknown, Put, StoreFull
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.etcd.calls import ALARM, COMPACT, DEFRAGMENT
from seatkeeper.server.store.keys import Keys
from seatkeeper.v1 import pool_service_pb2 as pb

POOL, OTHER = "p", "q"
WITHIN = 60.0
NOTICE: Final = timedelta(seconds=1)
LONG = ClientConfig(
    ttl=timedelta(seconds=120), call_timeout=timedelta(seconds=5), keeper="process"
)
LENDER_TTL = {"no quorum": timedelta(seconds=30)}
"""A seat that is called back is freed no sooner than its holder may believe in it: one of these.
Without a quorum nothing is renewed, and it has to outlast that."""
SHORT_TTL = timedelta(seconds=10)
QUOTA_BYTES = 4 * 1024 * 1024
FILLER = bytes(400_000)
MINUTE_MILLIS = 60_000
LATER_FORMAT = 99


@dataclass
class Site:
    """An etcd with little room, and two nodes whose clock a test moves on."""

    etcd: EtcdCluster
    prefix: str
    clock: OtherClock
    nodes: list[Node] = field(default_factory=list)
    past: list[Change] = field(default_factory=list)
    """What was read before it was compacted, up to this revision:"""
    past_revision: int = 0

    @property
    def keys(self) -> Keys:
        return Keys(self.prefix)

    def client(self, project: str, node: int, config: ClientConfig) -> AsyncSeatClient:
        return AsyncSeatClient(self.nodes[node].address, project=project, config=config)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[EtcdStore]:
        store = EtcdStore(EtcdConfig(endpoints=self.etcd.endpoints))
        try:
            yield store
        finally:
            await store.close()

    async def changes(self) -> list[Change]:
        """Return every change so far, also those that etcd has compacted since."""
        start = self.past_revision + 1
        async with self.store() as store:
            return self.past + await read_history(store, self.prefix, from_revision=start)

    async def history(self, pool: str = POOL) -> PoolHistory:
        history = replay(await self.changes(), self.prefix)[pool]
        assert history.is_correct, history.faults
        return history


@pytest.fixture
async def site(
    trouble: str,
    etcd_program: Path,
    etcd_options: EtcdOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Site]:
    # The clock of a test is moved, and no timer notices that.
    monkeypatch.setattr(pool_lots, "LOOK_MAX", 0.1)
    monkeypatch.setattr(pool_lots, "RETRY_SECONDS", 0.1)
    options = replace(etcd_options, quota_bytes=QUOTA_BYTES)
    members = 3 if trouble == "no quorum" else 1
    etcd = EtcdCluster(etcd_program, tmp_path / "etcd", members=members, options=options)
    await etcd.start()
    clock = OtherClock()
    # Half a minute before the minute in which the window opens: no test gets there by itself.
    clock.ahead_seconds = (MINUTE_MILLIS / 2 - clock.now() % MINUTE_MILLIS) / 1000
    site = Site(etcd, f"trouble-{secrets.token_hex(4)}", clock)
    try:
        for name in ("one", "two"):
            config = NodeConfig(
                node_id=name,
                listen="127.0.0.1:0",
                etcd_endpoints=",".join(etcd.endpoints),
                etcd_timeout=1.0,
                prefix=site.prefix,
                stop_grace=0.5,
            )
            site.nodes.append(await Node.start(config, clock=clock))
        yield site
    finally:
        await asyncio.gather(*(node.stop() for node in site.nodes))
        etcd.kill()


# What fails -----------------------------------------------------------------------------------


@asynccontextmanager
async def no_quorum(site: Site) -> AsyncIterator[None]:
    """Two members of three are gone."""
    for member in site.etcd.members[:2]:
        member.kill()
    yield
    for member in site.etcd.members[:2]:
        member.launch()
    await site.etcd.members[0].wait_healthy()


@asynccontextmanager
async def full(site: Site) -> AsyncIterator[None]:
    """The database is at its quota, with the alarm NOSPACE, until an operator frees it."""
    async with site.store() as store:
        made = []
        for number in range(1000):
            key = f"/filler/{number:04d}"
            made.append(key)
            try:
                await store.commit([Put(key, FILLER)])
            except StoreFull:
                break
            except OutcomeUnknown:
                continue
        assert await store.alarms() == {"NOSPACE"}
        yield
        freed = (await store.commit([Delete(key) for key in made])).revision
        site.past = [each for each in await site.changes() if each.revision <= freed]
        site.past_revision = freed
        compact = etcd_pb2.CompactionRequest(revision=freed, physical=True)
        await call_etcd(site.etcd.endpoints[0], COMPACT, compact)
        for endpoint in site.etcd.endpoints:
            await call_etcd(endpoint, DEFRAGMENT, etcd_pb2.DefragmentRequest())
        alarms = await call_etcd(site.etcd.endpoints[0], ALARM, etcd_pb2.AlarmRequest())
        for alarm in alarms.alarms:
            disarm = etcd_pb2.AlarmRequest(
                action=etcd_pb2.AlarmRequest.DEACTIVATE,
                alarm=alarm.alarm,
                member_id=alarm.member_id,
            )
            await call_etcd(site.etcd.endpoints[0], ALARM, disarm)


@asynccontextmanager
async def later_format(site: Site) -> AsyncIterator[None]:
    """A later version has written the specification, in a format that these nodes do not know."""
    key = site.keys.pool(POOL)
    async with site.store() as store:
        entry = await store.get(key)
        assert entry is not None
        unreadable = pb.PoolSpec.FromString(entry.value)
        unreadable.format = LATER_FORMAT
        await store.commit([Put(key, unreadable.SerializeToString())])
        yield
        assert (there := await store.get(key)) is not None
        assert there.value == unreadable.SerializeToString(), "it was written over"
        await store.commit([Put(key, entry.value)])


TROUBLES = {"no quorum": no_quorum, "full": full, "later format": later_format}


# What is under way ----------------------------------------------------------------------------


class Work(ABC):
    """Something that takes more than one write."""

    def __init__(
        self, site: Site, trouble: str, stack: list[AbstractAsyncContextManager[object]]
    ) -> None:
        self.site = site
        self.trouble = trouble
        self._stack = stack

    async def entered(
        self, project: str = "cv", node: int = 0, config: ClientConfig = LONG
    ) -> AsyncSeatClient:
        """Return a client that lives as long as the test."""
        client = self.site.client(project, node, config)
        await client.__aenter__()
        self._stack.append(client)
        return client

    @abstractmethod
    async def begin(self) -> None:
        """Come to where the next write is due, or will be once the clock is moved on."""

    @abstractmethod
    async def falls_due(self) -> None:
        """Let the time come, in trouble; what has to hold then already, holds."""

    @abstractmethod
    async def ends(self) -> None:
        """After the trouble: what was due is done, once."""


def believed(grant: AsyncGrant) -> bool:
    return grant.state is not HoldingState.LOST


async def granted(client: AsyncSeatClient) -> AsyncGrant:
    """Ask until a node can decide."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                return await client.acquire(POOL, wait=WITHIN)
            except ServiceUnavailable:
                await asyncio.sleep(0.05)


class Reclaim(Work):
    """A lent seat was called back: its holder has let it go at the deadline, and then it is given."""

    async def begin(self) -> None:
        ttl = LENDER_TTL.get(self.trouble, SHORT_TTL)
        lender = await self.entered("vision", config=replace(LONG, ttl=ttl))
        asker = await self.entered("nlp", 1)
        await lender.pools.create(
            POOL,
            seats=2,
            projects=[parse_project("vision:guaranteed=1"), parse_project("nlp:guaranteed=1")],
            reclaim=parse_reclaim(f"notice={NOTICE.total_seconds():g},minimum_hold=0"),
        )
        self.kept = await lender.acquire(POOL)
        self.lent = await lender.acquire(POOL)
        self.taking = asyncio.create_task(granted(asker))
        called = {HoldingState.RECLAIMING, HoldingState.LOST}
        await eventually(lambda: self.lent.state in called, within=WITHIN)
        self.called_at = time.monotonic()

    async def falls_due(self) -> None:
        """Without a quorum nothing is confirmed, neither the seat nor its end: its lease decides."""
        past = self.called_at + 2 * NOTICE.total_seconds()
        await eventually(lambda: time.monotonic() > past, within=WITHIN)
        if self.trouble != "no quorum":
            await eventually(lambda: not believed(self.lent), within=WITHIN)
        assert believed(self.kept), "it is within its guarantee"
        assert not self.taking.done() or not believed(self.lent)

    async def ends(self) -> None:
        due = await self.taking
        assert not believed(self.lent), "before another had it"
        assert due.fence > self.lent.fence
        assert believed(self.kept), "more was taken than was needed"
        history = await self.site.history()
        assert (history.grants, history.max_out) == (3, 2)


class BurstEnd(Work):
    """A burst is over: both seats stay with their holders, and then there is one of them."""

    async def begin(self) -> None:
        client = await self.entered()
        ends = self.site.clock.now() + 60 * MINUTE_MILLIS
        burst = Lot(name="rush", seats=1, ends=ends, kind=LotKind.BURST)
        base = Lot(name="acme", seats=1)
        lots = [encode_lot(base), encode_lot(burst)]
        await client.pools.create(POOL, seats=0, lots=lots)
        self.client = client
        self.held = [await client.acquire(POOL, wait=WITHIN) for _ in range(2)]

    async def falls_due(self) -> None:
        self.site.clock.ahead_seconds += 3600
        with pytest.raises(SeatError):
            await self.client.acquire(POOL, wait=0)
        assert all(believed(grant) for grant in self.held)

    async def ends(self) -> None:
        async def is_over() -> bool:
            return (await self.client.pools.get(POOL)).spec.seats == 1

        await eventually(is_over, within=WITHIN)
        assert (await self.client.pools.get(POOL)).held == 2
        await self.held[0].release()
        with pytest.raises(NoSeatFree):
            await self.client.acquire(POOL, wait=0)
        await self.held[1].release()
        async with self.client.seat(POOL, wait=WITHIN):
            assert (await self.client.pools.get(POOL)).held == 1
        await self.site.history()


class WindowOpening(Work):
    """A window opens: from then on its seats are for those it is for."""

    async def begin(self) -> None:
        client = await self.entered("cv")
        opens = (self.site.clock.now() // MINUTE_MILLIS + 1) % 1440
        daily = Schedule("FREQ=DAILY", opens=opens, closes=opens + 60)
        nights = Reservation("nights", 1, Who(projects=("ci",)), daily)
        kept = [encode_reservation(nights)]
        await client.pools.create(POOL, seats=1, reservations=kept)
        self.client = client
        async with client.seat(POOL, wait=WITHIN):
            assert await self.state() is WindowState.PLANNED

    async def state(self) -> WindowState:
        spec = (await self.client.pools.get(POOL)).spec
        return decode_windows(spec.windows).by_name["nights"].state

    async def falls_due(self) -> None:
        self.site.clock.ahead_seconds += 60
        with pytest.raises(SeatError):
            await self.client.acquire(POOL, wait=0)

    async def ends(self) -> None:
        async def is_open() -> bool:
            return await self.state() is WindowState.OPEN

        await eventually(is_open, within=WITHIN)
        with pytest.raises(NoSeatFree):
            await self.client.acquire(POOL, wait=0)
        ci = await self.entered("ci", 1)
        async with ci.seat(POOL, wait=WITHIN) as grant:
            assert grant.fence == 2
        await self.site.history()


class Gang(Work):
    """A request for seats of two pools waits for one of them: it has both in the end, or neither."""

    async def begin(self) -> None:
        client, holder = await self.entered("cv", 1), await self.entered("vision")
        for pool in (POOL, OTHER):
            await client.pools.create(pool, seats=1)
        self.blocking = await holder.acquire(OTHER)
        self.client = client
        self.taking = asyncio.create_task(self._take())

        async def waits() -> bool:
            pools = [await holder.pools.get(pool) for pool in (POOL, OTHER)]
            return [pool.queued for pool in pools] == [1, 1]

        await eventually(waits, within=WITHIN)

    async def _take(self) -> None:
        while True:
            try:
                async with self.client.gang({POOL: 1, OTHER: 1}, wait=WITHIN) as grants:
                    held = [(await self.client.pools.get(pool)).held for pool in grants]
                    assert held == [1, 1]
                    return
            except ServiceUnavailable:
                await asyncio.sleep(0.05)

    async def falls_due(self) -> None:
        releasing = asyncio.create_task(self.blocking.release())
        await asyncio.wait([releasing], timeout=WITHIN)
        assert not self.taking.done()

    async def ends(self) -> None:
        async with asyncio.timeout(WITHIN):
            await self.taking

        async def is_free() -> bool:
            pools = [await self.client.pools.get(pool) for pool in (POOL, OTHER)]
            return [(pool.held, pool.queued) for pool in pools] == [(0, 0), (0, 0)]

        await eventually(is_free, within=WITHIN)
        first, other = await self.site.history(POOL), await self.site.history(OTHER)
        assert (first.grants, other.grants) == (1, 2)


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("kind", [Reclaim, BurstEnd, WindowOpening, Gang])
async def test_what_is_under_way_is_done_once_the_trouble_is_over(
    site: Site, kind: type[Work], trouble: str
) -> None:
    entered: list[AbstractAsyncContextManager[object]] = []
    work = kind(site, trouble, entered)
    try:
        await work.begin()
        async with TROUBLES[trouble](site):
            await work.falls_due()
        await work.ends()
    finally:
        for client in reversed(entered):
            await client.__aexit__(None, None, None)
