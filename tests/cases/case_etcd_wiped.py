"""A node whose etcd was wiped raises an alarm, and says what to do; it does not say "no pool"."""

from __future__ import annotations

import asyncio

from tests.cases.place import CannotRun, Place
from tests.contract.restoring import wipe

from seatkeeper.devcluster.etcd_binary import EtcdNotFoundError, find_etcd
from seatkeeper.devcluster.etcd_process import EtcdCluster


def case(place: Place) -> None:
    try:
        program = find_etcd().path
    except EtcdNotFoundError as error:
        raise CannotRun(str(error)) from error
    etcd = EtcdCluster(program, place.folder / "etcd")
    asyncio.run(etcd.start())
    try:
        node = place.start_node("--store", "etcd", "--etcd-endpoints", etcd.endpoints[0])
        assert place.seatkeeper("run", "--pool", "p", "--", "true").returncode == 0
        asyncio.run(wipe(etcd))

        def is_alarmed() -> bool:
            return "_foreign" in node.log.read_text()

        place.wait_until(is_alarmed, 60, "an alarm in the log")
        refused = place.seatkeeper("run", "--pool", "p", "--wait", "1", "--", "true")
        assert refused.returncode == 69, refused
        listed = place.seatkeeper("pool", "list", "--timeout", "3")
        assert b"seatkeeper adopt" in listed.stderr, listed
    finally:
        etcd.kill()
