"""Describes the service itself: ``client.cluster``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.edge import sends
from seatkeeper.core.errors import TokenKeyUnknown
from seatkeeper.core.tokens import LEEWAY, TokenClaims, verify_token
from seatkeeper.v1 import cluster_service_pb2 as pb
from seatkeeper.v1 import cluster_service_pb2_grpc as pb_grpc


@sends
class AsyncCluster:
    """The nodes, their versions and their keys.

    Every call raises `ServiceUnavailable` when no node answers in time.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._jwks = ""

    async def nodes(self) -> Sequence[pb.Node]:
        """Return the nodes that are alive, in the order of ids."""
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.ClusterServiceStub(channel).ListNodes(
                pb.ListNodesRequest(), timeout=timeout
            )
        )
        return answer.nodes

    async def version(self) -> pb.GetVersionResponse:
        """Return the versions of the node that answers and of its store."""
        return await self._calls.unary(
            lambda channel, timeout: pb_grpc.ClusterServiceStub(channel).GetVersion(
                pb.GetVersionRequest(), timeout=timeout
            )
        )

    async def report(self) -> pb.GetReportResponse:
        """Return what every node says of itself, and how the store is.

        Also when nodes, or the store, do not answer: then it says so.
        """
        return await self._calls.unary(
            lambda channel, timeout: pb_grpc.ClusterServiceStub(channel).GetReport(
                pb.GetReportRequest(), timeout=timeout
            )
        )

    async def drain(self, node_id: str) -> None:
        """Have a node stop as on SIGTERM: its clients go to other nodes, then it ends.

        Returns when it has begun. The client must be one of that node's own address; raises
        `InvalidArgument` when another node answers.
        """
        await self._calls.unary(
            lambda channel, timeout: pb_grpc.ClusterServiceStub(channel).DrainNode(
                pb.DrainNodeRequest(node_id=node_id), timeout=timeout
            )
        )

    async def jwks(self) -> str:
        """Return the public keys that verify tokens, as the text of a JSON Web Key Set."""
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.ClusterServiceStub(channel).GetJwks(
                pb.GetJwksRequest(), timeout=timeout
            )
        )
        self._jwks = answer.jwks_json
        return self._jwks

    async def verify_token(
        self, token: str, *, pool: str | None = None, leeway: timedelta = LEEWAY
    ) -> TokenClaims:
        """Return what ``token`` proves, fetching keys only when it names one not seen before.

        Raises what `seatkeeper.client.verify_token` raises.
        """
        try:
            if self._jwks:
                return verify_token(token, self._jwks, pool=pool, leeway=leeway)
        except TokenKeyUnknown:
            # Signed by a node that started since.
            pass
        return verify_token(token, await self.jwks(), pool=pool, leeway=leeway)
