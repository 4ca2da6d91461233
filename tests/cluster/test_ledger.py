"""The process that writes who used what: two of it, over etcd, of which one is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from tests.cli.commands import SCRIPT, environment, seatkeeper
from tests.cluster.conftest import Cluster
from tests.cluster.test_stays import client
from tests.ledger.written import Counted, counted, written
from tests.processes import eventually
from tests.tree import ROOT

from seatkeeper.client import NoSeatFree
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.ledger.database import DatabaseError
from seatkeeper.ledger.questions import ask_usage
from seatkeeper.ledger.reports import ReportError
from seatkeeper.oracle.history import read_history
from seatkeeper.oracle.usage import read_usage
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.v1 import pool_service_pb2, pool_service_pb2_grpc

ROUNDS = 12


@asynccontextmanager
async def ledgers(
    cluster: Cluster, url: str
) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Two of them, on one database."""
    etcd = ",".join(cluster.service.etcd.endpoints)
    options = ("--etcd-endpoints", etcd, "--prefix", cluster.keys.prefix)
    command = (sys.executable, "-m", "seatkeeper.cli", "ledger", *options)
    started = [
        await asyncio.create_subprocess_exec(
            *command, "--ledger-database", url, stderr=asyncio.subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    try:
        yield started
    finally:
        for each in started:
            with contextlib.suppress(ProcessLookupError):
                each.kill()
            await each.wait()


async def use(cluster: Cluster, pool: str) -> None:
    """Have seats, give them back, and wait for some in vain."""
    async with client(cluster, "ada") as ada, client(cluster, "bo", 1) as bo:
        for _ in range(ROUNDS):
            grant = await ada.acquire(pool, labels={"team": "cv"})
            with contextlib.suppress(NoSeatFree):
                await bo.acquire(pool, wait=0.05)
            later = asyncio.create_task(bo.acquire(pool, project="nlp"))
            await eventually(lambda: _waits(cluster, pool))
            await grant.release()
            await (await later).release()


async def _waits(cluster: Cluster, pool: str) -> bool:
    return (await cluster.look(pool)).queued > 0


async def test_one_goes_on_where_the_other_was_killed_and_nothing_is_lost_or_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    store = EtcdStore(EtcdConfig(endpoints=cluster.service.etcd.endpoints))

    async def elected() -> int:
        entry = await store.get(cluster.keys.elected_ledger("default"))
        if entry is None:
            return 0
        return int(state_pb2.LedgerRecord.FromString(entry.value).writer.rpartition(":")[2])

    async def is_there(pool: str) -> bool:
        return of(pool, written(url)) == of(pool, await history(store, cluster))

    async with ledgers(cluster, url) as both:
        await eventually(lambda: has_begun(url))
        first = await elected()
        pool = await cluster.pool(seats=1)
        await use(cluster, pool)
        await eventually(lambda: is_there(pool))
        os.kill(first, signal.SIGKILL)
        await use(cluster, pool)
        await eventually(lambda: is_there(pool))
        assert await elected() not in (0, first)
        used, unserved = of(pool, written(url))
        assert used.total() == 4 * ROUNDS
        assert {row.how for row in unserved} == {"gave_up"}
        (left,) = [each for each in both if each.pid != first]
        left.terminate()
        assert await left.wait() == 0
    await store.close()

    options = ("--ledger-database", url, "--format", "json")
    report = json.loads(seatkeeper("report", "usage", *options).check().out)
    assert [gap["cause"] for gap in report["gaps"]] == ["before the ledger began"]
    by_project = {row["name"]: row["grants"] for row in report["rows"]}
    assert by_project["nlp"] == 2 * ROUNDS
    by_team = seatkeeper("report", "usage", *options, "--by", "label:team").check().json
    (team,) = [row for row in by_team["rows"] if row["name"] == "cv"]
    assert (team["grants"], team["held"]) == (2 * ROUNDS, 0)
    assert team["seat_hours"] > 0


def has_begun(url: str) -> bool:
    """Return whether a ledger has written what was there first."""
    with contextlib.suppress(DatabaseError, ReportError):
        ask_usage(url, "default", 0, 1, "pool")
        return True
    return False


async def history(store: EtcdStore, cluster: Cluster) -> Counted:
    first = cluster.first_revision
    changes = await read_history(store, cluster.keys.prefix, from_revision=first)
    return counted(read_usage(changes, cluster.keys.prefix))


def of(pool: str, found: Counted) -> Counted:
    """What is of one pool: others are those of the tests before."""
    used, unserved = found
    return (
        Counter({row: number for row, number in used.items() if row.pool == pool}),
        Counter({row: number for row, number in unserved.items() if row.pool == pool}),
    )


@pytest.mark.timeout(200)
async def test_the_page_about_it_as_a_user_follows_it(cluster: Cluster, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "who-used-what.md").read_text(encoding="utf-8")
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    async with grpc.aio.insecure_channel(cluster.addresses[0]) as channel:
        stub = pool_service_pb2_grpc.PoolServiceStub(channel)
        spec = pool_service_pb2.PoolSpec(name="tensorrt", seats=1)
        await stub.CreatePool(pool_service_pb2.CreatePoolRequest(spec=spec), timeout=20)
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-e", "-c", shell],
        cwd=tmp_path,
        env=environment(
            SEATKEEPER_NODES=cluster.addresses[0],
            SEATKEEPER_ETCD_ENDPOINTS=",".join(cluster.service.etcd.endpoints),
            SEATKEEPER_PREFIX=cluster.keys.prefix,
            PATH=f"{SCRIPT.parent}:{environment()['PATH']}",
        ),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^vision +0\.000[5-9] +1 +0", done.stdout, re.MULTILINE)
    assert re.search(r"^bo +", done.stdout, re.MULTILINE)
    assert '"name": "cv"' in done.stdout
    assert (tmp_path / "november.csv").read_text().startswith("project,seat_hours")
