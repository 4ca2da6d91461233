"""A record under a lease that a predecessor of the same name may have left behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from seatkeeper.server.sessions import leased_record
from seatkeeper.server.sessions.leased_record import LeasedRecord
from seatkeeper.server.sessions.sessions import Sessions, lease_id_of
from seatkeeper.server.store import Committed, LeaseNotFound, Store
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.system_clock import SystemClock
from seatkeeper.v1 import seat_service_pb2 as pb

if TYPE_CHECKING:
    from tests.contract.conftest import Subject

TTL = timedelta(seconds=60)


class Interrupted:
    """A store where a lease ends just before the first calls of these names."""

    def __init__(self, store: Store, lease_id: int, moments: Sequence[str]) -> None:
        self._store = store
        self._lease_id = lease_id
        self._moments = list(moments)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in self._moments:
            return found

        async def call(*args: Any, **options: Any) -> Any:
            if name in self._moments:
                self._moments.remove(name)
                await self._store.revoke_lease(self._lease_id)
            return await found(*args, **options)

        return call


@pytest.mark.parametrize(
    "moments",
    [
        ["keep_alive"],
        ["commit"],
        ["keep_alive", "commit"],
        ["commit", "commit", "commit"],
    ],
    ids="+".join,
)
async def test_a_record_is_written_although_its_predecessors_lease_ends_meanwhile(
    subject: Subject, moments: list[str]
) -> None:
    key = f"{subject.prefix}node"
    lease_id = lease_id_of(key)
    await subject.store.grant_lease(lease_id, TTL)  # the predecessor's
    store: Any = Interrupted(subject.store, lease_id, moments)
    record = LeasedRecord(store, key, b"successor", TTL)

    await record.start()

    entry = await subject.store.get(key)
    assert entry is not None
    assert (entry.value, entry.lease_id) == (b"successor", lease_id)
    await record.stop(remove=True)
    assert await subject.store.get(key) is None


async def test_a_lease_that_always_ends_is_not_tried_forever(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leased_record, "WRITE_PAUSE", 0.0)
    key = f"{subject.prefix}node"
    store: Any = Interrupted(subject.store, lease_id_of(key), ["commit"] * 100)
    with pytest.raises(LeaseNotFound):
        await LeasedRecord(store, key, b"", TTL).start()


async def test_a_record_follows_one_whose_lease_runs_out(subject: Subject) -> None:
    """As a node does that is restarted under its id: with etcd, the lease ends while it writes."""
    key = f"{subject.prefix}node"
    short = await subject.store.grant_lease(lease_id_of(key), timedelta(seconds=1))
    subject.pass_time(short)
    record = LeasedRecord(subject.store, key, b"successor", TTL)
    for _ in range(3):  # each time at another moment of the predecessor's end
        await record.start()
        await record.stop(remove=False)
    assert await subject.store.get(key) is not None
    await record.stop(remove=True)


class EndsSharedLeases(Interrupted):
    """A store where the lease that a commit attaches its last key to ends just before it."""

    def __init__(self, store: Store, times: int) -> None:
        super().__init__(store, 0, [])
        self._times = times

    async def commit(self, writes: Sequence[Any], **options: Any) -> Committed:
        if self._times:
            self._times -= 1
            await self._store.revoke_lease(writes[-1].lease_id)
        return await self._store.commit(writes, **options)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_session_opens_although_the_lease_of_its_memory_ends(
    subject: Subject, times: int
) -> None:
    keys = Keys(subject.prefix.strip("/"))
    store: Any = EndsSharedLeases(subject.store, times)
    sessions = Sessions(store, keys, SystemClock(), default_ttl=TTL)
    credentials = pb.SessionCredentials(
        session_id="018bcfe5-6800-7000-8000-000000000001", secret=b"s" * 16
    )
    session = await sessions.open(pb.Open(credentials=credentials, holder="anna"))
    assert await subject.store.get(keys.session(session.session_id)) is not None
    await sessions.close(session)
