"""On both stores: a pool of a newer format is refused, another is served, and nothing is rewritten."""

from __future__ import annotations

from datetime import timedelta

from tests.contract.conftest import Subject
from tests.unit.kit import Ear, acquire, eventually, uuid7

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Denied, PoolSpec, Refusal
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.context import LoopConfig, PoolContext
from seatkeeper.server.pool.loop import PoolLoop
from seatkeeper.server.pool.subscribers import SeatsGranted
from seatkeeper.server.store import Put, records
from seatkeeper.server.store.formats import COUNT_FORMAT
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.system_clock import SystemClock

UNKNOWN = b"\xc2\x3e\x05later"
"""Field 1000, of a version to come."""


async def test_a_newer_format_is_refused_and_a_newer_field_is_kept(subject: Subject) -> None:
    keys, store = Keys(subject.prefix.rstrip("/")), subject.store
    lease_id = subject.new_lease_id()
    await store.grant_lease(lease_id, timedelta(minutes=5))
    newer = state_pb2.GrantRecord(fence=7, format=COUNT_FORMAT + 1).SerializeToString()
    guard = state_pb2.GuardRecord(fence=3).SerializeToString() + UNKNOWN
    await store.commit(
        [
            Put(keys.pool("old"), records.encode_spec(PoolSpec("old", 1))),
            Put(keys.pool("new"), records.encode_spec(PoolSpec("new", 1))),
            Put(keys.grant("new", uuid7(9)), newer),
            Put(keys.guard("old"), guard),
        ]
    )
    catalogue = PoolCatalogue(store, keys, Observer())
    catalogue.start()
    await catalogue.ready()
    around = (store, keys, catalogue, SystemClock(), LoopConfig(), Observer())
    loops = {name: PoolLoop(PoolContext(name, *around)) for name in ("old", "new")}
    ears = {name: Ear() for name in loops}
    for name, loop in loops.items():
        loop.start()
        await loop.listed()
        loop.submit(acquire(1, lease_id=lease_id), ears[name])
    await eventually(lambda: all(ear.answers for ear in ears.values()))

    (refused,) = ears["new"].answers
    assert isinstance(refused, Denied)
    assert refused.reason is Refusal.UNAVAILABLE
    assert keys.grant("new", uuid7(9)) in refused.message
    entry = await store.get(keys.grant("new", uuid7(9)))
    assert entry is not None
    assert entry.value == newer
    assert await store.get(keys.guard("new")) is None

    (granted,) = ears["old"].answers
    assert isinstance(granted, SeatsGranted)
    assert granted.grant.fence == 4
    entry = await store.get(keys.guard("old"))
    assert entry is not None
    assert entry.value.endswith(UNKNOWN)
    for loop in loops.values():
        await loop.stop()
    await catalogue.stop()
