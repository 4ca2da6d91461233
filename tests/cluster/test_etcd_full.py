"""A real etcd that is full: seats come back, none are granted, and both are said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from bench.service import Service, start_node

from seatkeeper.client import AsyncSeatClient, ClientConfig, ServiceUnavailable
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.server.store import OutcomeUnknown, Put, StoreFull
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

QUOTA_BYTES = 4 * 1024 * 1024
VALUE = bytes(50_000)
POOL = "p"


@pytest.fixture
async def service(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> AsyncIterator[Service]:
    """Two nodes over an etcd with room for little."""
    options = replace(etcd_options, quota_bytes=QUOTA_BYTES)
    etcd = EtcdCluster(etcd_program, tmp_path / "etcd", options=options)
    await etcd.start()
    service = Service(tmp_path, etcd)
    for number in (1, 2):
        await start_node(service, f"node-{number}", ("--stop-grace", "1"))
    yield service
    await asyncio.gather(*(node.stop() for node in service.nodes))
    etcd.kill()


async def fill(etcd: EtcdCluster) -> None:
    """Write until nothing more is taken."""
    store = EtcdStore(EtcdConfig(endpoints=etcd.endpoints))
    try:
        for n in range(1000):
            try:
                await store.commit([Put(f"/filler/{n:03d}", VALUE)])
            except StoreFull:
                return
            except OutcomeUnknown:
                continue
        raise AssertionError("it takes everything")
    finally:
        await store.close()


async def test_a_full_etcd_takes_seats_back_and_grants_none(service: Service) -> None:
    config = ClientConfig(follow_ring=False, call_timeout=timedelta(seconds=10))
    async with AsyncSeatClient(service.addresses[0], config=config) as client:
        await client.pools.create(POOL, seats=2)
        here = await client.acquire(POOL)
        async with AsyncSeatClient(service.addresses[1], config=config) as other:
            there = await other.acquire(POOL)
            await fill(service.etcd)
            # One of the two nodes forwards its release to the other.
            await here.release()
            await there.release()
            pool = await client.pools.get(POOL)
            assert (pool.held, pool.free) == (0, 2)
            for one in (client, other):
                with pytest.raises(ServiceUnavailable, match="the store is full") as refused:
                    await one.acquire(POOL, wait=0)
                assert refused.value.retry_after is not None
