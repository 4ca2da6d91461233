"""Two node processes whose data of time zones differ: what one has written, the other keeps to."""

from __future__ import annotations

import os
import secrets
import time
import zoneinfo
from pathlib import Path

from bench.service import spawn
from tests.zone_data import write_zone

from seatkeeper.client import AsyncSeatClient
from seatkeeper.client.admin.reservations import ReservationChange, parse_reservation
from seatkeeper.core.reservation_messages import decode_windows
from seatkeeper.core.reservations import Window
from seatkeeper.devcluster.etcd_process import EtcdCluster
from seatkeeper.oracle.history import read_history
from seatkeeper.oracle.stored import located
from seatkeeper.oracle.windows import read_windows
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

POOL, ZONE = "p", "Europe/Berlin"
HOUR_MILLIS = 3_600_000
AWAY_SECONDS = 12 * 3600
"""From now to the window, in UTC: far from both ends of a day by the data of either node."""


async def window_of(client: AsyncSeatClient, name: str) -> Window:
    return decode_windows((await client.pools.get(POOL)).spec.windows).by_name[name]


async def test_a_node_with_newer_data_keeps_to_what_an_older_one_has_planned(
    etcd: EtcdCluster, tmp_path: Path
) -> None:
    prefix = f"zones-{secrets.token_hex(4)}"
    nodes = {}
    for name, like in (("old", "Etc/GMT-1"), ("new", "Etc/GMT-3")):
        data = write_zone(tmp_path / f"data-{name}", ZONE, like)
        path = os.pathsep.join([str(data), *zoneinfo.TZPATH])
        words = ["serve", "--node-id", name, "--listen", "127.0.0.1:0", "--prefix", prefix]
        words += ["--etcd-endpoints", ",".join(etcd.endpoints)]
        nodes[name] = spawn(tmp_path, name, words, environment={"PYTHONTZPATH": path})
    at = time.strftime("%H:00", time.gmtime(time.time() + AWAY_SECONDS))
    said = f"seats=1,for=project:ci,when=daily,at={at}-{at[:3]}30,zone={ZONE}"
    try:
        for node in nodes.values():
            await node.wait_serving()
        async with AsyncSeatClient(nodes["old"].address) as client:
            night = parse_reservation(f"name=night,{said}")
            await client.pools.create(POOL, seats=2, reservations=[night])
            planned = await window_of(client, "night")
        nodes["old"].kill()
        async with AsyncSeatClient(nodes["new"].address) as client:
            async with client.seat(POOL, wait=20):
                pass
            assert await window_of(client, "night") == planned
            other = ReservationChange([parse_reservation(f"name=other,{said}")])
            await client.pools.update(POOL, reservations=other)
            assert await window_of(client, "night") == planned
            by_new = await window_of(client, "other")
    finally:
        for node in nodes.values():
            node.kill()
    apart = planned.begins - by_new.begins
    assert apart % (24 * HOUR_MILLIS) == 2 * HOUR_MILLIS
    store = EtcdStore(EtcdConfig(endpoints=etcd.endpoints))
    try:
        changes = await read_history(store, prefix, from_revision=1)
    finally:
        await store.close()
    written = {
        windows["night"].begins
        for _, kind, _, change in located(changes, prefix)
        if kind == "spec" and change.entry is not None
        for windows in [read_windows(change.entry.value)]
        if "night" in windows
    }
    assert written == {planned.begins}
