"""A snapshot of a pool in which grants count once: it is whole where it lists them all."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from google.protobuf.json_format import MessageToDict

from seatkeeper.cli.processes.pool_snapshot import Holds, SnapshotError, read_snapshot
from seatkeeper.v1 import pool_service_pb2 as pb


def written(held: int, holders: Sequence[str]) -> bytes:
    pool = pb.Pool(spec=pb.PoolSpec(name="p", seats=2), held=held)
    for number, holder in enumerate(holders, start=1):
        grant = pool.grants.add(grant_id=f"g{number}", holder=holder, project="cv", seats=1)
        grant.granted_at.FromJsonString("2026-01-01T00:00:00Z")
        if holder:
            grant.counts_once.add(attribute="holder", value=holder)
    said = {"taken_at": "2026-01-01T00:00:00+00:00", "pool": MessageToDict(pool)}
    return json.dumps(said).encode()


def test_shared_seats_count_once() -> None:
    taken = read_snapshot("file", written(1, ["ada", "ada"]))
    holders = taken.beginning(Holds([("cv", 5)])).holders
    assert [each.group for each in holders] == [(("holder", "ada"),)] * 2
    with pytest.raises(SnapshotError, match="holders of 1 of 2 seats"):
        read_snapshot("file", written(2, ["ada", "ada"]))
    assert len(read_snapshot("file", written(3, ["ada", "bo", "", "ada"])).pool.grants) == 4
