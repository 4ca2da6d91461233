"""What a node does when its store, or a part of it, is another's: it says so, and is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grpc_health.v1 import health, health_pb2

from seatkeeper.server.deployment.deployment import Deployment
from seatkeeper.server.store import Store
from seatkeeper.server.store.etcd import EtcdStore
from seatkeeper.server.telemetry.tally import Tally


class StoreAlarm:
    """Keeps a node's gauge and health as its deployment and its endpoints are."""

    def __init__(
        self,
        store: Store,
        deployment: Deployment,
        tally: Tally,
        servicer: health.aio.HealthServicer,
        services: Sequence[str],
    ) -> None:
        """``store``: the one in the ``CheckedStore``; ``services``: those whose health it is."""
        self._etcd = store if isinstance(store, EtcdStore) else None
        self._deployment = deployment
        self._tally = tally
        self._servicer = servicer
        self._services = services
        self._setting: set[asyncio.Task[None]] = set()
        deployment.on_change.append(self._look)
        if self._etcd is not None:
            self._etcd.identity.on_change.append(self._look)

    @property
    def trouble(self) -> str:
        """Why this node can serve nothing; empty: it can, as far as this goes."""
        if self._deployment.trouble:
            return self._deployment.trouble
        if self._etcd is not None and self._etcd.is_foreign:
            return self._etcd.identity.describe()
        return ""

    async def notify(self) -> None:
        """Set the health of every service to what it is now."""
        status = health_pb2.HealthCheckResponse
        now = status.NOT_SERVING if self.trouble else status.SERVING
        for service in self._services:
            await self._servicer.set(service, now)

    def _look(self) -> None:
        endpoints = 0 if self._etcd is None else len(self._etcd.identity.foreign)
        self._tally.foreign = endpoints + bool(self._deployment.trouble)
        task = asyncio.get_running_loop().create_task(self.notify())
        self._setting.add(task)
        task.add_done_callback(self._setting.discard)
