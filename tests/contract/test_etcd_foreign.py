"""A store does not believe another etcd than its own: a strange one, a wiped one, a restored one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.restoring import restore, save, wipe

from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.server.store import (
    OutcomeUnknown,
    Put,
    StoreError,
    StoreForeign,
    StoreUnavailable,
    Unchanged,
    WatchEnded,
)
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

BOUND_SECONDS = 20.0


@dataclass
class Site:
    """Etcd clusters of one test, and stores on them."""

    program: Path
    folder: Path
    options: EtcdOptions
    stack: AsyncExitStack

    async def etcd(self, name: str) -> EtcdCluster:
        """Start a cluster; each has an id of its own, because its ports are its own."""
        cluster = EtcdCluster(self.program, self.folder / name, options=self.options)
        await cluster.start()
        self.stack.callback(cluster.kill)
        return cluster

    def store(self, *clusters: EtcdCluster) -> EtcdStore:
        endpoints = tuple(end for cluster in clusters for end in cluster.endpoints)
        store = EtcdStore(EtcdConfig(endpoints=endpoints))
        self.stack.push_async_callback(store.close)
        return store


@pytest.fixture
async def site(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        yield Site(etcd_program, tmp_path, etcd_options, stack)


async def use(store: EtcdStore, key: str = "/a") -> None:
    """Make each kind of call once, and leave the watch and the stream of leases open."""
    lease = 4711
    await store.grant_lease(lease, timedelta(seconds=60))
    await store.commit([Put(key, b"")])
    await store.keep_alive(lease)
    await store.revoke_lease(lease)


async def ends(call: Callable[[], Awaitable[object]], as_: type[StoreError]) -> StoreError:
    """Return the error of this kind that a call ends with, soon; other errors may come first."""
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        try:
            await call()
        except as_ as error:
            return error
        except (StoreUnavailable, OutcomeUnknown):
            pass
        else:
            raise AssertionError("it was answered")
        assert time.monotonic() < deadline, f"no {as_.__name__} in time"
        await asyncio.sleep(0.05)


async def works(call: Callable[[], Awaitable[object]]) -> None:
    """Return once a call works again."""
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        try:
            await call()
            return
        except StoreError:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(0.05)


async def _drain(watch: AsyncIterator[object]) -> None:
    async for _ in watch:
        pass


async def test_one_wrong_endpoint_among_several_is_left_out_with_an_alarm(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    ours, other = await site.etcd("ours"), await site.etcd("other")
    store = site.store(ours, other)
    store.identity.pin((await site.store(ours).status()).cluster_id)
    await use(store)

    (member,) = ours.members
    member.kill()
    error = await ends(lambda: store.get("/a"), StoreForeign)
    assert "is of etcd cluster" in str(error)
    assert "seatkeeper adopt" in str(error)
    for call in (
        lambda: store.commit([Put("/b", b"")]),
        lambda: store.commit([Put("/c", b"")], only_if=[Unchanged("/c", 0)]),
        lambda: store.grant_lease(1, timedelta(seconds=60)),
        lambda: store.list("/"),
        lambda: store.keep_alive(4711),
    ):
        await ends(call, StoreError)
    with pytest.raises(WatchEnded):
        await anext(store.watch("/", from_revision=1))
    alarms = [record for record in caplog.records if record.message == "etcd_foreign"]
    assert [vars(record)["endpoint"] for record in alarms] == list(other.endpoints)
    assert alarms[0].levelno == logging.ERROR

    theirs = site.store(other)
    assert (await theirs.list("/")).entries == (), "nothing was written there"
    assert (await theirs.health()).leases == 0
    await member.start()
    await works(lambda: store.get("/a"))
    await use(store)


async def test_most_endpoints_decide_which_cluster_is_ours(site: Site) -> None:
    other, ours = await site.etcd("other"), await site.etcd("ours")
    even = site.store(other, ours)
    with pytest.raises(StoreForeign, match="different clusters"):
        await even.identify()
    (endpoint,) = ours.endpoints
    named_twice = EtcdConfig(
        endpoints=(*other.endpoints, endpoint, endpoint.replace("127.0.0.1", "localhost"))
    )
    store = EtcdStore(named_twice)
    await store.identify()
    await use(store)
    assert (await site.store(other).list("/")).entries == ()
    members = (await store.health()).members
    assert [bool(member.failure) for member in members] == [True, False]
    assert "is not ours" in members[0].failure
    await store.close()


async def test_a_wiped_etcd_is_not_served_from(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Made by the same flags it even has the same cluster id; but its revision went back."""
    etcd = await site.etcd("ours")
    store = site.store(etcd)
    for _ in range(5):
        await use(store)
    async with aclosing(store.watch("/", from_revision=1)) as watch:
        await anext(watch)
        await wipe(etcd)
        with pytest.raises(WatchEnded):
            await _drain(watch)
    error = await ends(lambda: store.get("/a"), StoreForeign)
    assert "went back" in str(error)
    await ends(lambda: store.commit([Put("/b", b"")]), StoreForeign)
    await ends(lambda: store.list("/"), StoreForeign)
    assert [r.message for r in caplog.records if "etcd_" in r.message] == ["etcd_foreign"]


@pytest.mark.parametrize("token", ["etcd-cluster", "another"])
async def test_a_restored_etcd_is_not_served_from(
    site: Site, tmp_path: Path, token: str
) -> None:
    etcd = await site.etcd("ours")
    store = site.store(etcd)
    await use(store)
    await save(site.program, etcd, tmp_path / "snapshot")
    await use(store)
    await restore(site.program, etcd, tmp_path / "snapshot", token=token)
    await ends(lambda: store.get("/a"), StoreForeign)
    await ends(lambda: store.commit([Put("/b", b"")]), StoreForeign)


async def test_the_same_etcd_is_believed_after_it_was_away(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    etcd = await site.etcd("ours")
    store = site.store(etcd)
    (member,) = etcd.members
    for _ in range(3):
        await works(lambda: use(store))
        member.kill()
        await ends(lambda: store.get("/a"), StoreUnavailable)
        await member.start()
    await works(lambda: use(store))
    assert store.identity.foreign == {}
    assert not [record for record in caplog.records if record.message == "etcd_foreign"]


async def test_a_member_that_is_named_by_two_addresses_is_counted_once(site: Site) -> None:
    etcd = await site.etcd("ours")
    (endpoint,) = etcd.endpoints
    alias = endpoint.replace("127.0.0.1", "localhost")
    store = EtcdStore(EtcdConfig(endpoints=(endpoint, alias)))
    assert [member.endpoint for member in (await store.health()).members] == [endpoint]
    await store.close()
    etcd.members[0].pause()
    store = EtcdStore(EtcdConfig(endpoints=(alias,), call_timeout=timedelta(seconds=0.5)))
    assert len((await store.health()).members) == 1
    etcd.members[0].resume()
    await store.close()
