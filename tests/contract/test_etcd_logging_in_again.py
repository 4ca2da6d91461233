"""A store whose login is gone logs in again, whatever made it go, for every kind of call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from tests.conftest import add_users
from tests.contract.restoring import restore, save, wipe

from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.server.store import Put, StoreError
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

LEASE = 4711
BOUND_SECONDS = 20.0
"""Far more than logging in takes; the fault was that it never happened."""
ROOT = ("--user", "root:secret")


@pytest.fixture
async def alone(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> AsyncIterator[EtcdCluster]:
    """A member of this test's own, without users yet."""
    cluster = EtcdCluster(etcd_program, tmp_path / "etcd", options=etcd_options)
    await cluster.start()
    yield cluster
    cluster.kill()


def store_of(etcd: EtcdCluster) -> EtcdStore:
    return EtcdStore(EtcdConfig(endpoints=etcd.endpoints, username="node", password="hush"))


async def everything_works(store: EtcdStore, lease: int) -> None:
    """Make each kind of call, each until it works: within the bound, and none hides another."""
    deadline = time.monotonic() + BOUND_SECONDS

    async def watched() -> None:
        async with aclosing(store.watch("/ours/", from_revision=1)) as watch:
            await anext(watch)

    for call in (
        lambda: store.grant_lease(lease, timedelta(seconds=60)),
        lambda: store.keep_alive(lease),
        lambda: store.commit([Put("/ours/a", b"", lease_id=lease)]),
        lambda: store.get("/ours/a"),
        lambda: store.list("/ours/"),
        watched,
        lambda: store.lease_remaining(lease),
        store.status,
        store.alarms,
        lambda: store.revoke_lease(lease),
    ):
        while True:
            try:
                await call()
                break
            except StoreError:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0.1)
    health = await store.health()
    assert [member.failure for member in health.members] == [""]


async def test_users_that_are_made_later(alone: EtcdCluster, etcd_program: Path) -> None:
    store = store_of(alone)
    await everything_works(store, LEASE)
    await add_users(etcd_program, alone, "/ours/")
    await everything_works(store, LEASE + 1)
    await store.close()


async def test_a_stream_that_was_opened_before_there_were_users(
    alone: EtcdCluster, etcd_program: Path
) -> None:
    store = store_of(alone)
    await store.grant_lease(LEASE, timedelta(seconds=60))
    await store.keep_alive(LEASE)
    await add_users(etcd_program, alone, "/ours/")
    await store.keep_alive(LEASE)
    await everything_works(store, LEASE + 1)
    await store.close()


async def test_users_that_were_restored(
    alone: EtcdCluster, etcd_program: Path, tmp_path: Path
) -> None:
    """A token names the log index that it was made at; the restored log begins anew."""
    await add_users(etcd_program, alone, "/ours/")
    await save(etcd_program, alone, tmp_path / "snapshot", *ROOT)
    before = store_of(alone)
    for number in range(300):
        await before.commit([Put("/ours/a", str(number).encode())])
    await before.close()
    store = store_of(alone)
    await everything_works(store, LEASE)
    await restore(etcd_program, alone, tmp_path / "snapshot", token="etcd-cluster", bump=True)
    await everything_works(store, LEASE + 1)
    await store.close()


async def test_users_that_were_gone_for_a_while(
    alone: EtcdCluster, etcd_program: Path, tmp_path: Path
) -> None:
    """An etcd that was wiped serves without users, until a snapshot brings them back."""
    await add_users(etcd_program, alone, "/ours/")
    await save(etcd_program, alone, tmp_path / "snapshot", *ROOT)
    store = store_of(alone)
    await everything_works(store, LEASE)
    await wipe(alone)
    for _ in range(3):  # whatever it makes of that: it has logged in where there are no users
        with suppress(StoreError):
            await store.get("/ours/a")
    await restore(etcd_program, alone, tmp_path / "snapshot", token="etcd-cluster", bump=True)
    await everything_works(store, LEASE + 1)
    await store.close()
