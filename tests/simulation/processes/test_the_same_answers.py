"""The simulated etcd and a real one, asked the same: they must answer the same.

Any operations, in any order, on few keys and leases, so that they meet. Revisions are counted from
where each store stood before.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatkeeper.devcluster.etcd_process import EtcdCluster
from seatkeeper.server.store import (
    Change,
    Delete,
    Entry,
    MemoryStore,
    Put,
    Store,
    StoreError,
    Unchanged,
)
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

KEYS = ("a", "b", "b/c", "b/d", "z")
LEASES = (1, 2, 3)
TTL = timedelta(seconds=60)
TIME_LIMIT = 20.0

keys = st.sampled_from(KEYS)
leases = st.sampled_from(LEASES)
writes = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"), keys, st.binary(max_size=3), st.sampled_from((0, 0, *LEASES))
        ),
        st.tuples(st.just("delete"), keys),
    ),
    max_size=4,
    unique_by=lambda write: write[1],
)
comparisons = st.lists(
    st.tuples(keys, st.sampled_from(("absent", "present", "old"))),
    max_size=3,
    unique_by=lambda comparison: comparison[0],
)
operations = st.one_of(
    st.tuples(st.just("commit"), writes, comparisons, st.lists(keys, max_size=3, unique=True)),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("list"), st.sampled_from(("", "b", "b/", "none"))),
    st.tuples(st.just("grant_lease"), leases),
    st.tuples(st.just("revoke_lease"), leases),
    st.tuples(st.just("keep_alive"), leases),
    st.tuples(st.just("lease_exists"), leases),
)


@dataclass
class Asked:
    """One of the two stores, and how to speak of it in terms that both share."""

    store: Store
    prefix: str
    lease_base: int
    base: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    """A revision of each key that is not its present one, where one is known."""

    async def begin(self) -> None:
        self.base = (await self.store.list(self.prefix)).revision

    async def answer(self, operation: tuple[Any, ...]) -> object:
        """Do one operation; return what came of it."""
        try:
            return await self._do(operation)
        except StoreError as error:
            return type(error).__name__

    async def _do(self, operation: tuple[Any, ...]) -> object:
        match operation:
            case "commit", writes, comparisons, reads:
                return await self._commit(writes, comparisons, reads)
            case "get", key:
                return self._reported(await self.store.get(self.prefix + key))
            case "list", prefix:
                listing = await self.store.list(self.prefix + prefix)
                reported = [self._reported(entry) for entry in listing.entries]
                return reported, listing.revision - self.base
            case "grant_lease", lease:
                return await self.store.grant_lease(self.lease_base + lease, TTL)
            case "revoke_lease", lease:
                await self.store.revoke_lease(self.lease_base + lease)
                return None
            case "keep_alive", lease:
                return await self.store.keep_alive(self.lease_base + lease)
            case "lease_exists", lease:
                left = await self.store.lease_remaining(self.lease_base + lease)
                return left is not None
            case _:
                raise AssertionError(operation)

    async def _commit(
        self,
        writes: Sequence[tuple[Any, ...]],
        comparisons: Sequence[tuple[str, str]],
        reads: Sequence[str],
    ) -> object:
        only_if = []
        for key, kind in comparisons:
            entry = await self.store.get(self.prefix + key)
            present = entry.mod_revision if entry else 0
            old = self.seen.get(key, self.base + 1_000_000)
            revision = {"absent": 0, "present": present, "old": old}[kind]
            only_if.append(Unchanged(self.prefix + key, revision))
        committed = await self.store.commit(
            [self._write(write) for write in writes],
            only_if=only_if,
            else_read=[self.prefix + key for key in reads],
        )
        if committed.succeeded:
            for write in writes:
                self.seen.setdefault(write[1], committed.revision)
        read = {
            key.removeprefix(self.prefix): self._reported(entry)
            for key, entry in committed.read.items()
        }
        return committed.succeeded, committed.revision - self.base, read

    def _write(self, write: tuple[Any, ...]) -> Put | Delete:
        if write[0] == "delete":
            return Delete(self.prefix + write[1])
        _, key, value, lease = write
        return Put(self.prefix + key, value, self.lease_base + lease if lease else 0)

    async def history(self) -> list[object]:
        """Return every change since the beginning, as a watch delivers it."""
        until = (await self.store.list(self.prefix)).revision
        reported: list[object] = []
        if until == self.base:
            return reported
        # The last revision may have changed keys of others: none has, in a store of our own.
        async with asyncio.timeout(TIME_LIMIT):
            watch = self.store.watch(self.prefix, from_revision=self.base + 1)
            async with aclosing(watch):
                async for batch in watch:
                    reported += map(self._normalised_change, batch.changes)
                    if batch.revision >= until:
                        return reported
        raise AssertionError("the watch has ended")

    def _reported(self, entry: Entry | None) -> object:
        if entry is None:
            return None
        lease = entry.lease_id - self.lease_base if entry.lease_id else 0
        key = entry.key.removeprefix(self.prefix)
        return key, entry.value, entry.mod_revision - self.base, lease

    def _normalised_change(self, change: Change) -> object:
        key = change.key.removeprefix(self.prefix)
        return key, self._reported(change.entry), change.revision - self.base


@pytest.fixture
def real(etcd: EtcdCluster) -> str:
    """An etcd without other writers."""
    return etcd.endpoints[0]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples: gRPC wants one in a process."""
    with asyncio.Runner() as runner:
        yield runner


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(operations, max_size=25))
def test_any_operations_are_answered_alike(
    real: str, runner: asyncio.Runner, asked: list[tuple[Any, ...]]
) -> None:
    runner.run(_compare(real, asked))


async def _compare(endpoint: str, asked: list[tuple[Any, ...]]) -> None:
    prefix, lease_base = f"/{secrets.token_hex(6)}/", secrets.randbits(60) + 1
    memory = MemoryStore()
    store = EtcdStore(EtcdConfig(endpoints=(endpoint,)))
    simulated, true = Asked(memory, prefix, lease_base), Asked(store, prefix, lease_base)
    try:
        for each in (simulated, true):
            await each.begin()
        for operation in asked:
            reported = await simulated.answer(operation), await true.answer(operation)
            assert reported[0] == reported[1], operation
        memory.expire_due()
        histories = await _history(simulated, memory), await true.history()
        assert histories[0] == histories[1]
    finally:
        for lease in LEASES:
            await store.revoke_lease(lease_base + lease)
        await store.close()
        await memory.close()


async def _history(simulated: Asked, memory: MemoryStore) -> list[object]:
    """The memory store says how far it is when leases are looked after."""

    async def heartbeat() -> None:
        while True:
            await asyncio.sleep(0.001)
            memory.expire_due()

    sending_heartbeats = asyncio.create_task(heartbeat())
    try:
        return await simulated.history()
    finally:
        sending_heartbeats.cancel()
