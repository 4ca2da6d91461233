"""What one node finds out of all of them, and of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.events import log as events
from seatkeeper.server.report.node_report import NodeReporter
from seatkeeper.server.routing.peers import Peers, PeerSilent
from seatkeeper.server.store import Store, StoreError, StoreHealth
from seatkeeper.server.store.etcd import version_warnings
from seatkeeper.server.store.formats import readable
from seatkeeper.server.store.keys import Keys
from seatkeeper.v1 import cluster_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReporter:
    """Asks every node how it is, and looks at the store."""

    node: NodeReporter
    store: Store
    keys: Keys
    peers: Peers | None = None
    """The other nodes; None: there are none."""

    async def report(self) -> pb.GetReportResponse:
        """Return how all is. Also when little answers: that is when it is wanted."""
        nodes, health = await asyncio.gather(self._nodes(), self.store.health())
        return pb.GetReportResponse(
            node_id=self.node.version.node_id, nodes=nodes, store=self._store(health)
        )

    async def _nodes(self) -> list[pb.NodeReport]:
        addresses = await self._addresses()
        return await asyncio.gather(
            *(self._node(node_id, addresses[node_id]) for node_id in sorted(addresses))
        )

    async def _addresses(self) -> Mapping[str, str]:
        """Return where the nodes are, by the store or, when that is silent, by this node's view."""
        me = {self.node.version.node_id: self.node.address}
        try:
            listing = await self.store.list(self.keys.nodes())
        except StoreError:
            membership = self.node.membership
            return me if membership is None else dict(membership.ring.addresses) | me
        refused = events.record_unreadable
        found = {
            entry.key.removeprefix(self.keys.nodes()): record.address
            for entry, record in readable(state_pb2.NodeRecord, listing.entries, refused)
        }
        return found | me

    async def _node(self, node_id: str, address: str) -> pb.NodeReport:
        if node_id == self.node.version.node_id or self.peers is None:
            report = self.node.report()
            report.clock_ahead.FromTimedelta(timedelta(0))
            report.clock_error.FromTimedelta(timedelta(0))
            return report
        clock = self.node.clock
        asked_at, began = clock.now(), clock.monotonic()
        try:
            report = await self.peers.report(node_id)
        except PeerSilent as silent:
            return pb.NodeReport(node_id=node_id, address=address, failure=str(silent))
        took = timedelta(seconds=clock.monotonic() - began)
        between = timedelta(milliseconds=asked_at) + took / 2
        reported = timedelta(milliseconds=report.clock.ToMilliseconds())
        report.clock_ahead.FromTimedelta(reported - between)
        report.clock_error.FromTimedelta(took / 2)
        return report

    def _warnings(self, health: StoreHealth) -> Sequence[str]:
        """Return the known defects of all members as they are now; each was updated by itself."""
        known = {member.version for member in health.members if member.version}
        if self.node.version.store != "etcd" or not known:
            return self.node.version.store_warnings
        found = (warning for version in sorted(known) for warning in version_warnings(version))
        return tuple(dict.fromkeys(found))

    def _store(self, health: StoreHealth) -> pb.StoreReport:
        version = self.node.version
        report = pb.StoreReport(
            kind=version.store, warnings=self._warnings(health), alarms=sorted(health.alarms)
        )
        for member in health.members:
            report.members.add(
                name=member.name,
                endpoint=member.endpoint,
                failure=member.failure,
                version=member.version,
                is_leader=member.is_leader,
                size_bytes=member.size_bytes,
                used_bytes=member.used_bytes,
                errors=member.errors,
                is_unconfigured=not member.is_configured,
            )
        if health.leases is not None:
            report.leases = health.leases
        if health.read_time is not None:
            report.read_time.FromTimedelta(health.read_time)
        return report
