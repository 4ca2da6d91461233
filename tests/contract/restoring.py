"""What an operator does with snapshots of etcd: save one, and put it in the place of what there is."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from seatkeeper.devcluster.etcd_process import EtcdCluster

BUMP = 1_000_000_000


async def save(program: Path, etcd: EtcdCluster, file: Path, *flags: str) -> None:
    """Save a snapshot of the first member."""
    await _run(
        program.with_name("etcdctl"),
        *(f"--endpoints={etcd.endpoints[0]}", *flags, "snapshot", "save", str(file)),
    )


async def restore(
    program: Path, etcd: EtcdCluster, file: Path, *, token: str, bump: bool = False
) -> None:
    """Put a snapshot in the place of the data of all members, and start them.

    With the ``token`` that the cluster was made with, ``etcd-cluster`` unless one was given, etcd
    calls itself by the same cluster id.
    """
    etcd.kill()
    peers = ",".join(f"{name}=http://{address}" for name, address in etcd.members[0]._peers)
    bumps = (f"--bump-revision={BUMP}", "--mark-compacted") if bump else ()
    for member in etcd.members:
        shutil.rmtree(member.data_folder)
        await _run(
            program.with_name("etcdutl"),
            *("snapshot", "restore", str(file), f"--name={member.name}", *bumps),
            *(f"--data-dir={member.data_folder}", f"--initial-cluster={peers}"),
            f"--initial-cluster-token={token}",
            f"--initial-advertise-peer-urls=http://{member.place.host}:{member._ports.peer}",
        )
    await etcd.start()


async def wipe(etcd: EtcdCluster) -> None:
    """Start all members anew, without any data."""
    etcd.kill()
    for member in etcd.members:
        shutil.rmtree(member.data_folder)
    await etcd.start()


async def _run(*command: Path | str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode(errors="replace")
