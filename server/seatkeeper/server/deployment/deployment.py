"""Which service this is, so that a node notices when its store holds another.

The first node writes a *deployment* under the prefix: an id of random letters and the id of the etcd
cluster that it was written to. It is copied by snapshots and mirrors, and no etcd that was wiped has
it. So at start a node sees that

- etcd was restored or copied: the deployment names another cluster than the one that answers;
- etcd is another service's: the deployment is not the one that the setting ``deployment`` pins;
- etcd is being adopted: see ``adopt.py``.

A node that runs follows the deployment. When it is gone, or is another one, the store is *foreign*:
nothing is read from it, and nothing written, until the right one is back or the node is restarted.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.events import log as events
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.store import Entry, Listing, Put, Store, Unchanged, WatchBatch
from seatkeeper.server.store.follow import Follower
from seatkeeper.server.store.formats import RecordUnreadable, parsed
from seatkeeper.server.store.keys import Keys

logger = logging.getLogger(__name__)

ID_BYTES = 8
RESTORED = (
    "It was restored from a snapshot, or copied. Do not start nodes on it before you have stopped all "
    "nodes and run `seatkeeper adopt`: fences must not go back, and holders of grants that are "
    "forgotten may believe in their seats yet"
)


class WrongDeployment(Exception):
    """The store holds another service than this node is for. The message says what to do."""


class Deployment:
    """The service that a node serves. ``open`` it, then ``start`` following."""

    def __init__(self, store: Store, keys: Keys, observer: Observer) -> None:
        self.id = ""
        """Names the service; the same on all its nodes."""
        self.trouble = ""
        """Why the store must not be used; empty: it may."""
        self.on_change: list[Callable[[], None]] = []
        """Called when ``trouble`` has come or gone."""
        self._store = store
        self._key = keys.deployment()
        self._suspicion = ""
        self._follower = Follower(store, self._key, self, observer)

    async def open(self, cluster_id: int, pinned: str, now_millis: int) -> None:
        """Read which service the store holds; write it where there is none yet.

        ``pinned``: the id that it must have; empty: any. Raises ``WrongDeployment``, ``StoreError``.
        """
        entry = await self._store.get(self._key)
        if entry is None:
            if pinned:
                raise WrongDeployment(
                    f"this etcd holds no deployment, and the setting `deployment` wants {pinned}: it "
                    "was wiped, or is another one. Name the right one in etcd_endpoints; to begin "
                    "anew in this one, run `seatkeeper adopt`, then set what it prints"
                )
            entry = await self._write(cluster_id, now_millis)
        try:
            record = parsed(state_pb2.DeploymentRecord, self._key, entry.value)
        except RecordUnreadable as error:
            events.record_unreadable(error)
            raise WrongDeployment(str(error)) from error
        if record.is_being_adopted:
            raise WrongDeployment(
                "etcd is being adopted after a restore: start nodes when `seatkeeper adopt` has ended; "
                "if it was interrupted, run it again"
            )
        if record.cluster_id != cluster_id:
            raise WrongDeployment(
                f"this etcd, cluster {cluster_id:x}, holds a service that was in cluster "
                f"{record.cluster_id:x}. {RESTORED}"
            )
        if pinned not in {"", record.deployment_id}:
            raise WrongDeployment(
                f"this etcd holds the deployment {record.deployment_id}, and the setting `deployment` "
                f"wants {pinned}: name the right etcd and prefix, or set the right deployment"
            )
        self.id = record.deployment_id

    async def start(self) -> None:
        """Begin to follow; returns when the deployment was listed."""
        self._follower.start()
        await self._follower.ready()

    async def stop(self) -> None:
        """Stop following."""
        await self._follower.stop()

    def suspect(self, reason: str) -> None:
        """Note, for good, that the store cannot be the one that this node has served from."""
        self._suspicion = self._suspicion or reason
        self._check_history(self.trouble)

    def reset(self, listing: Listing) -> None:
        """See whether the deployment is there."""
        found = {entry.key: entry for entry in listing.entries}
        self._look(found.get(self._key))

    def apply(self, batch: WatchBatch) -> None:
        """See what became of the deployment."""
        for change in batch.changes:
            if change.key == self._key:
                self._look(change.entry)

    def _look(self, entry: Entry | None) -> None:
        if entry is None:
            self._check_history(
                f"the deployment {self.id} is gone from etcd: it was wiped, or its keys were removed. "
                f"{RESTORED}"
            )
            return
        try:
            record = parsed(state_pb2.DeploymentRecord, self._key, entry.value)
        except RecordUnreadable as error:
            events.record_unreadable(error)
            self._check_history(str(error))
            return
        if record.is_being_adopted:
            self._check_history(
                "etcd is being adopted after a restore: stop this node until that is done"
            )
        elif record.deployment_id != self.id:
            self._check_history(
                f"etcd holds the deployment {record.deployment_id}, and this node serves {self.id}: "
                "restart this node if that is right"
            )
        else:
            self._check_history("")

    def _check_history(self, trouble: str) -> None:
        trouble = self._suspicion or trouble
        if trouble == self.trouble:
            return
        self.trouble = trouble
        if trouble:
            logger.error("store_foreign", extra={"deployment": self.id, "reason": trouble})
        else:
            logger.warning("store_ours_again", extra={"deployment": self.id})
        for callback in self.on_change:
            callback()

    async def _write(self, cluster_id: int, now_millis: int) -> Entry:
        record = state_pb2.DeploymentRecord(
            deployment_id=secrets.token_hex(ID_BYTES),
            cluster_id=cluster_id,
            created_at_millis=now_millis,
        )
        value = record.SerializeToString()
        committed = await self._store.commit(
            [Put(self._key, value)], only_if=[Unchanged(self._key, 0)], else_read=[self._key]
        )
        return committed.read.get(self._key) or Entry(self._key, value, committed.revision)


async def fence_base(store: Store, keys: Keys) -> int:
    """Return the fence that a new pool begins after: 0, or higher where etcd was adopted."""
    entry = await store.get(keys.deployment())
    if entry is None:
        return 0
    return parsed(state_pb2.DeploymentRecord, entry.key, entry.value).fence_base
