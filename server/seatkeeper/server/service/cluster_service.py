"""``ClusterService``: describes the service itself."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from seatkeeper.core.serving.failure import Context, Failure
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.events import log as events
from seatkeeper.server.identity import administrative_act
from seatkeeper.server.report.service_report import ServiceReporter
from seatkeeper.server.service.failures import answers
from seatkeeper.server.store import Store
from seatkeeper.server.store.formats import readable
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.tokens.verification_keys import VerificationKeys
from seatkeeper.v1 import cluster_service_pb2, cluster_service_pb2_grpc


class ClusterService(cluster_service_pb2_grpc.ClusterServiceServicer):
    """Describes the service itself."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        verification: VerificationKeys,
        reporter: ServiceReporter,
        drain: Callable[[], None],
    ) -> None:
        self._store = store
        self._keys = keys
        self._verification = verification
        self._version = reporter.node.version
        self._reporter = reporter
        self._drain = drain

    @answers
    async def ListNodes(
        self, request: cluster_service_pb2.ListNodesRequest, context: Context
    ) -> cluster_service_pb2.ListNodesResponse:
        """Return the nodes that are alive."""
        response = cluster_service_pb2.ListNodesResponse()
        listing = await self._store.list(self._keys.nodes())
        refused = events.record_unreadable
        for entry, record in readable(state_pb2.NodeRecord, listing.entries, refused):
            node = response.nodes.add(
                node_id=entry.key.removeprefix(self._keys.nodes()),
                address=record.address,
                version=record.version,
            )
            node.started_at.FromMilliseconds(record.started_at_millis)
        return response

    @answers
    async def GetVersion(
        self, request: cluster_service_pb2.GetVersionRequest, context: Context
    ) -> cluster_service_pb2.GetVersionResponse:
        """Return the versions."""
        version = self._version
        return cluster_service_pb2.GetVersionResponse(
            version=version.version,
            node_id=version.node_id,
            store=version.store,
            store_version=version.store_version,
            store_warnings=version.store_warnings,
            deployment_id=self._reporter.node.deployment_id,
            prefix=self._keys.prefix,
        )

    @answers
    async def GetReport(
        self, request: cluster_service_pb2.GetReportRequest, context: Context
    ) -> cluster_service_pb2.GetReportResponse:
        """Return what every node says of itself, and how the store is."""
        return await self._reporter.report()

    @answers
    async def DrainNode(
        self, request: cluster_service_pb2.DrainNodeRequest, context: Context
    ) -> cluster_service_pb2.DrainNodeResponse:
        """Have this node stop."""
        here = self._version.node_id
        if request.node_id != here:
            raise Failure(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this is node {here}, not {request.node_id}; call that node's own address, not a "
                "balancer's",
            )
        with administrative_act("node_drained", context, node_id=here):
            self._drain()
        return cluster_service_pb2.DrainNodeResponse()

    @answers
    async def GetJwks(
        self, request: cluster_service_pb2.GetJwksRequest, context: Context
    ) -> cluster_service_pb2.GetJwksResponse:
        """Return the public keys that verify tokens."""
        jwks = await self._verification.jwks()
        return cluster_service_pb2.GetJwksResponse(jwks_json=jwks)
