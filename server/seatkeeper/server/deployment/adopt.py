"""Taking a restored, copied or wiped etcd for our own: the step between restoring and serving.

A snapshot knows nothing of what was granted after it. Holders of those grants believe in their seats
until their leases end, which no node can hasten; and the fences that they were given must never be
given again. So, with all nodes stopped, ``adopt``

1. marks the deployment, so that no node starts meanwhile;
2. waits for as long as a session may have lived on: the longest ttl there may be, unless its operator
   knows better, because all holders were stopped or none asks for so long a ttl;
3. raises every fence above whatever can have been given out: by 2^32, and above what the time of day
   says, so that it works for pools that the snapshot does not know of, too;
4. writes a new deployment, for this etcd cluster.

It may be interrupted and run again; the waiting then begins anew.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.deployment.deployment import ID_BYTES
from seatkeeper.server.store import Put, Store, Unchanged, records
from seatkeeper.server.store.formats import FormatUnsupported, RecordUnreadable, parsed
from seatkeeper.server.store.keys import Keys

FENCE_STEP = 1 << 32
"""More grants than one pool can have made since any snapshot."""
FENCES_PER_SECOND = 1 << 20
"""More grants than one pool can make in a second; times the time of day it stays below 2^53."""
NODES_GONE_SECONDS = 30.0
"""A node that was killed leaves its record behind for 10 s, and a restore restarts that clock."""
POLL_SECONDS = 0.5
ATTEMPTS_MAX = 10
PROGRESS_SECONDS = 60.0


class AdoptError(Exception):
    """It cannot be adopted now. The message says what to do first."""


class Adoption:
    """Adopts one store."""

    def __init__(self, store: Store, keys: Keys, say: Callable[[str], None]) -> None:
        """``say`` receives the progress, a sentence at a time."""
        self._store = store
        self._keys = keys
        self._say = say

    async def run(self, wait: timedelta, now: Callable[[], float] = time.time) -> str:
        """Adopt; return the new deployment's id. Raises ``AdoptError``, ``StoreError``."""
        await self._until_no_node_lives(NODES_GONE_SECONDS)
        record = await self._present()
        record.deployment_id = secrets.token_hex(ID_BYTES)
        record.cluster_id = (await self._store.status()).cluster_id
        record.created_at_millis = int(now() * 1000)
        record.fence_base = int(now()) * FENCES_PER_SECOND
        record.is_being_adopted = True
        await self._put(record)
        await self._wait(wait)
        await self._until_no_node_lives(0)
        raised = await self._raise_fences(record.fence_base)
        self._say(f"fences of {raised} pools were raised")
        record.is_being_adopted = False
        await self._put(record)
        return record.deployment_id

    async def _present(self) -> state_pb2.DeploymentRecord:
        """Return the deployment that is there, to be changed; an empty one where there is none."""
        key = self._keys.deployment()
        entry = await self._store.get(key)
        try:
            return parsed(state_pb2.DeploymentRecord, key, entry.value if entry else b"")
        except RecordUnreadable as error:
            raise _not_understood(error) from error

    async def _put(self, record: state_pb2.DeploymentRecord) -> None:
        await self._store.commit([Put(self._keys.deployment(), record.SerializeToString())])

    async def _until_no_node_lives(self, seconds: float) -> None:
        deadline, reported = time.monotonic() + seconds, ""
        while entries := (await self._store.list(self._keys.nodes())).entries:
            names = ", ".join(entry.key.removeprefix(self._keys.nodes()) for entry in entries)
            if time.monotonic() >= deadline:
                raise AdoptError(
                    f"nodes are registered: {names}; stop all nodes, then try again"
                )
            if names != reported:
                self._say(f"waiting for the records of nodes to end: {names}")
                reported = names
            await asyncio.sleep(POLL_SECONDS)

    async def _wait(self, wait: timedelta) -> None:
        end = time.monotonic() + wait.total_seconds()
        while (left := end - time.monotonic()) > 0:
            self._say(
                f"{left:.0f} s until the last holder of a forgotten grant has stopped believing in it"
            )
            await asyncio.sleep(min(left, PROGRESS_SECONDS))

    async def _raise_fences(self, base: int) -> int:
        listing = await self._store.list(self._keys.seats("")[:-1])
        guards = [entry.key for entry in listing.entries if entry.key.endswith("/guard")]
        for key in guards:
            await self._raise_fence(key, base)
        return len(guards)

    async def _raise_fence(self, key: str, base: int) -> None:
        for _ in range(ATTEMPTS_MAX):
            entry = await self._store.get(key)
            if entry is None:
                return
            try:
                guard, _decision = records.decode_guard(entry.value, key)
            except RecordUnreadable as error:
                raise _not_understood(error) from error
            fence = max(guard.fence + FENCE_STEP, base)
            raised = records.encode_guard(replace(guard, fence=fence))
            committed = await self._store.commit(
                [Put(key, raised)], only_if=[Unchanged(key, entry.mod_revision)]
            )
            if committed.succeeded:
                return
        raise AdoptError(f"{key} changes while it is adopted: stop all nodes, then try again")


def _not_understood(error: RecordUnreadable) -> AdoptError:
    if isinstance(error, FormatUnsupported):
        return AdoptError(f"{error}; adopt with a newer version")
    return AdoptError(str(error))
