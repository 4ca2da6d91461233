"""Our own etcd: started, watched over, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from seatkeeper.devcluster.etcd_process import (
    EtcdCluster,
    EtcdDiedError,
    EtcdNotHealthyError,
    EtcdOptions,
    PortInUseError,
)
from seatkeeper.server.store import Put
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore


async def test_it_keeps_its_data_over_a_restart(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> None:
    async with EtcdCluster(etcd_program, tmp_path, options=etcd_options) as cluster:
        store = EtcdStore(EtcdConfig(endpoints=cluster.endpoints))
        await store.commit([Put("/a", b"kept")])
        cluster.kill()
        assert not cluster.members[0].running
        await cluster.start()
        entry = await store.get("/a")
        await store.close()
    assert entry is not None
    assert entry.value == b"kept"
    assert not cluster.members[0].running


async def test_a_port_that_is_taken_is_named(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        cluster = EtcdCluster(etcd_program, tmp_path, client_ports=[port], options=etcd_options)
        with pytest.raises(PortInUseError, match=str(port)):
            await cluster.start()
    assert not cluster.members[0].running


async def test_its_last_output_is_reported_when_it_dies(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> None:
    cluster = EtcdCluster(etcd_program, tmp_path, options=etcd_options)
    cluster.members[0].data_folder.write_text("not a folder")
    with pytest.raises(EtcdDiedError, match="not a directory"):
        await cluster.start()


async def test_one_that_does_not_serve_is_not_left_running(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> None:
    """One of three is no quorum."""
    cluster = EtcdCluster(etcd_program, tmp_path, members=3, options=etcd_options)
    member = cluster.members[0]
    with pytest.raises(EtcdNotHealthyError):
        await member.start(timeout=0.5)
    await cluster.stop()
    assert not member.running


async def test_a_paused_one_can_be_stopped(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> None:
    cluster = EtcdCluster(etcd_program, tmp_path, options=etcd_options)
    await cluster.start()
    cluster.members[0].pause()
    await cluster.stop()
    assert not cluster.members[0].running


PARENT = """
import asyncio, sys, time
from pathlib import Path
from seatkeeper.devcluster.etcd_process import EtcdCluster

cluster = EtcdCluster(Path(sys.argv[1]), Path(sys.argv[2]))
asyncio.run(cluster.start())
print(cluster.members[0].pid, flush=True)
time.sleep(60)
"""


async def test_it_dies_with_its_parent(etcd_program: Path, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, etcd_program, tmp_path),
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    os.kill(pid, 0)

    parent.send_signal(signal.SIGKILL)
    await parent.wait()

    deadline = time.monotonic() + 10
    while _is_alive(pid):
        assert time.monotonic() < deadline, "etcd has outlived its parent"
        await asyncio.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
