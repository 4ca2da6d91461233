"""``seatkeeper serve`` as its operator meets it: how it starts, fails to, and stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bench.service import spawn
from tests import processes
from tests.cluster.clients import Client, StreamEnded
from tests.cluster.conftest import DEADLINE, Cluster
from tests.tree import ROOT

from seatkeeper.cli.exits import Exit
from seatkeeper.core.ids import new_id


async def ended(folder: Path, *flags: str) -> tuple[int, str]:
    """Run a node that is expected to end by itself; return its exit code and the end of its output."""
    server = spawn(folder, "node", ["serve", "--listen", "127.0.0.1:0", *flags])
    try:
        code = await asyncio.to_thread(server.process.wait, 30)
    finally:
        server.kill()
    return code, server.log.read_text()


free_port = processes.free_port


def test_exit_codes_are_those_of_sysexits() -> None:
    assert (int(Exit.UNAVAILABLE), int(Exit.CONFIG)) == (69, 78)


async def test_without_etcd_a_node_gives_up_and_says_what_to_do(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    code, words = await ended(
        tmp_path, "--etcd-endpoints", address, "--start-timeout", "0.5", "--etcd-timeout", "0.5"
    )

    assert code == Exit.UNAVAILABLE
    assert address in words
    assert "--etcd-endpoints" in words
    assert "Traceback" not in words
    assert time.monotonic() - started < 20


async def test_what_a_measurement_starts_dies_with_it(tmp_path: Path) -> None:
    measures = (
        "import sys, time; from pathlib import Path; from bench.service import spawn; "
        "started = spawn(Path(sys.argv[1]), 'it', ['60'], program=['sleep']); "
        "print(started.process.pid, flush=True); time.sleep(60)"
    )
    measurement = await asyncio.create_subprocess_exec(
        sys.executable, "-c", measures, str(tmp_path), cwd=ROOT, stdout=subprocess.PIPE
    )
    assert measurement.stdout is not None
    started = psutil.Process(int(await measurement.stdout.readline()))
    measurement.kill()
    await measurement.wait()
    deadline = time.monotonic() + DEADLINE
    while started.is_running() and started.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives on"
        await asyncio.sleep(0.02)


async def test_an_address_in_use_is_named(cluster: Cluster, tmp_path: Path) -> None:
    taken = cluster.addresses[0]
    code, words = await ended(
        tmp_path,
        *("--listen", taken, "--etcd-endpoints", ",".join(cluster.service.etcd.endpoints)),
        *cluster.flags,
    )

    assert code == Exit.CONFIG
    assert taken in words
    assert "--listen" in words
    assert "Traceback" not in words


async def test_a_metrics_address_in_use_is_named(cluster: Cluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        code, words = await ended(
            tmp_path,
            *("--etcd-endpoints", ",".join(cluster.service.etcd.endpoints)),
            *("--metrics-listen", taken, *cluster.flags),
        )

    assert (code, taken in words) == (Exit.CONFIG, True)
    assert "--metrics-listen" in words
    assert "Errno" not in words
    assert "Traceback" not in words


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--listen", "nonsense"], "listen"),
        (["--session-ttl", "1"], "session_ttl"),
        (["--token-key-file", "no/such/file"], "token_key_file"),
        (["--config", "no/such/file"], "no/such/file"),
    ],
    ids=["listen", "session_ttl", "token_key_file", "config"],
)
async def test_a_wrong_setting_is_named(flags: list[str], named: str, tmp_path: Path) -> None:
    code, words = await ended(tmp_path, *flags)

    assert code == Exit.CONFIG
    assert named in words
    assert "Traceback" not in words


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
async def test_a_node_drains_on_sigterm_and_exits_with_0(
    signum: signal.Signals, cluster: Cluster
) -> None:
    pool = await cluster.pool(seats=1)
    node = await cluster.another_node()
    client = Client()
    grant_id = new_id()
    async with client.attached(node.address):
        fence = (await client.acquire(pool, grant_id)).fence
        node.process.send_signal(signum)
        await client.event("go_away")
        with pytest.raises(StreamEnded):
            await client.event("granted")
    assert await asyncio.to_thread(node.process.wait, 20) == 0
    assert "Traceback" not in node.log.read_text()

    async with client.attached(cluster.addresses[0]):
        assert (await client.acquire(pool, grant_id)).fence == fence
        await client.close()
