"""Asking one member which cluster it is of, by questions that change nothing."""

from __future__ import annotations

import asyncio

import grpc.aio

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.errors import StoreError, StoreUnavailable
from seatkeeper.server.store.etcd.auth import LEADER_WANTED, Credentials
from seatkeeper.server.store.etcd.calls import (
    LEASE_TIME_TO_LIVE,
    MEMBER_LIST,
    Method,
    Req,
    Resp,
)
from seatkeeper.server.store.etcd.cluster_identity import ClusterIdentity
from seatkeeper.server.store.etcd.endpoint import Endpoint
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.failures import Failure, classify


class Prober:
    """Asks members."""

    def __init__(self, identity: ClusterIdentity, credentials: Credentials) -> None:
        self._identity = identity
        self._credentials = credentials

    async def probe(self, endpoint: Endpoint, deadline: float) -> str:
        """Return why a member is another cluster's, or "" when it may be ours.

        A member that refuses to say may be ours: what it answers later is looked at too. Raises
        ``StoreUnavailable`` when it does not answer by ``deadline`` (event-loop time).
        """
        try:
            header = await self.cluster_of(endpoint, deadline)
            if header is None:
                return ""
            complaint = self._identity.complaint(header)
            if complaint or endpoint.address not in self._identity.foreign:
                return complaint
            # Its revision may be what was wrong with it. Every user may ask about a lease.
            lease = pb.LeaseTimeToLiveRequest(id=1)
            answer = await self._ask(endpoint, LEASE_TIME_TO_LIVE, lease, deadline)
            return self._identity.complaint(answer.header, self._identity.revision)
        except grpc.aio.AioRpcError as error:
            if classify(error.code(), error.details()) in {Failure.UNKNOWN, Failure.NOT_RUN}:
                raise StoreUnavailable(f"{endpoint.address}: {error.details()}") from error
            return ""

    async def clusters(self, endpoints: Endpoints, timeout: float) -> dict[str, int]:
        """Return the cluster of each endpoint that says it in time, by its address."""

        async def ask(endpoint: Endpoint) -> int:
            deadline = asyncio.get_running_loop().time() + timeout
            if not await endpoints.connected(endpoint, deadline):
                return 0
            try:
                header = await self.cluster_of(endpoint, deadline)
            except (grpc.aio.AioRpcError, StoreUnavailable):
                return 0
            return 0 if header is None else header.cluster_id

        members = endpoints.members
        found = await asyncio.gather(*map(ask, members))
        return {
            member.address: which for member, which in zip(members, found, strict=True) if which
        }

    async def cluster_of(self, endpoint: Endpoint, deadline: float) -> pb.ResponseHeader | None:
        """Return the header of a member's answer; None: it refuses to say."""
        try:
            # Without wanting a leader, and so without waiting for one.
            answer = await self._ask(endpoint, MEMBER_LIST, pb.MemberListRequest(), deadline)
        except grpc.aio.AioRpcError as error:
            if classify(error.code(), error.details()) in {Failure.UNKNOWN, Failure.NOT_RUN}:
                raise
            return None
        except StoreUnavailable:
            raise
        except StoreError:
            return None  # a wrong password: the call itself will say so
        return answer.header

    async def _ask(
        self, endpoint: Endpoint, method: Method[Req, Resp], request: Req, deadline: float
    ) -> Resp:
        credentials = self._credentials
        clock = asyncio.get_running_loop().time
        metadata = credentials.metadata or await credentials.fetch(endpoint, deadline)
        for is_last in (False, True):
            kept = (each for each in metadata if tuple(each) != LEADER_WANTED)
            try:
                return await endpoint.unary(method)(
                    request, timeout=deadline - clock(), metadata=grpc.aio.Metadata(*kept)
                )
            except grpc.aio.AioRpcError as error:
                failure = classify(error.code(), error.details())
                if failure is Failure.UNKNOWN:
                    credentials.doubt(metadata)
                if is_last or failure is not Failure.TOKEN_REFUSED or not credentials.renewable:
                    raise
            metadata = await credentials.fetch(endpoint, deadline, instead_of=metadata)
        raise AssertionError("unreachable")
