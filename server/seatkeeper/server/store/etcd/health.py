"""How etcd is, member by member: for its operator.

Each member is asked by itself, whichever the others are asked through, and without wanting a leader: a
member that has lost the others still says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import grpc.aio

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.errors import StoreError
from seatkeeper.server.store.etcd.auth import LEADER_WANTED, Credentials
from seatkeeper.server.store.etcd.caller import Caller
from seatkeeper.server.store.etcd.calls import (
    LEASE_LEASES,
    MEMBER_LIST,
    STATUS,
    Method,
    Req,
    Resp,
)
from seatkeeper.server.store.etcd.endpoint import Endpoint
from seatkeeper.server.store.etcd.endpoints import Endpoints
from seatkeeper.server.store.etcd.failures import Failure, classify
from seatkeeper.server.store.interface import StoreHealth, StoreMember

ALARM = re.compile(r"alarm:([A-Z]+)")
"""In what a member says is wrong with the cluster, such as ``memberID:1 alarm:NOSPACE``."""
_LOOPBACK = ("localhost", "[::1]")
_SILENT = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


class Health:
    """Looks at every member."""

    def __init__(
        self, caller: Caller, endpoints: Endpoints, credentials: Credentials, timeout: float
    ) -> None:
        """``timeout``: seconds until a member counts as silent."""
        self._caller = caller
        self._endpoints = endpoints
        self._credentials = credentials
        self._timeout = timeout

    async def look(self) -> StoreHealth:
        """Return how etcd is. Never raises."""
        members, leases, read_time = await asyncio.gather(
            self._members(), self._leases(), self._read_time()
        )
        said = " ".join(error for member in members for error in member.errors)
        return StoreHealth(
            members=members,
            alarms=frozenset(ALARM.findall(said)),
            leases=leases,
            read_time=read_time,
        )

    async def _members(self) -> tuple[StoreMember, ...]:
        endpoints = self._endpoints.members
        looks = await asyncio.gather(*map(self._look_at, endpoints))
        known: dict[int, pb.Member] = {}
        for _, _, listed in looks:
            known |= {member.id: member for member in listed}
        found: dict[int, StoreMember] = {}
        counted: set[int] = set()
        # Those that answer first: one that is given by two addresses is one member.
        for place, (status, failure, _) in sorted(
            enumerate(looks), key=lambda look: look[1][0] is None
        ):
            address = endpoints[place].address
            which = status.header.member_id if status else _at(address, known)
            if which in counted:
                continue
            if status is not None:
                found[place] = _member(address, known.get(which), status)
            else:
                name = known[which].name if which else ""
                found[place] = StoreMember(name=name, endpoint=address, failure=failure)
            counted |= {which} - {0}
        members = [found[place] for place in sorted(found)]
        for left in known.values():
            if left.id in counted:
                continue
            urls = ",".join(left.client_urls)
            members.append(StoreMember(name=left.name, endpoint=urls, is_configured=False))
        return tuple(members)

    async def _look_at(
        self, endpoint: Endpoint
    ) -> tuple[pb.StatusResponse | None, str, Iterable[pb.Member]]:
        """Return a member's status, or why there is none, and the members that it knows."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        if not await self._endpoints.connected(endpoint, deadline):
            return None, "cannot be reached", ()
        try:
            listed = await self._ask(endpoint, MEMBER_LIST, pb.MemberListRequest(), deadline)
            status = pb.StatusResponse(header=listed.header)
            if complaint := self._endpoints.identity.complaint(listed.header):
                # Its members are not ours, and its state does not matter here.
                return None, f"is not ours: {complaint}", ()
            with _unless_untold():
                status = await self._ask(endpoint, STATUS, pb.StatusRequest(), deadline)
        except grpc.aio.AioRpcError as error:
            silent = error.code() in _SILENT
            said = "does not answer" if silent else f"says: {error.details()}"
            return None, said, ()
        except StoreError as error:
            return None, str(error), ()
        return status, "", listed.members

    async def _ask(
        self, endpoint: Endpoint, method: Method[Req, Resp], request: Req, deadline: float
    ) -> Resp:
        credentials = self._credentials
        metadata = credentials.metadata or await credentials.fetch(endpoint, deadline)
        try:
            return await _ask_also_without_leader(endpoint, method, request, metadata, deadline)
        except grpc.aio.AioRpcError as error:
            failure = classify(error.code(), error.details())
            if failure is Failure.UNKNOWN:
                credentials.doubt(metadata)
            if failure is not Failure.TOKEN_REFUSED or not credentials.renewable:
                raise
        # A member that is not in use forgets a token that the one in use goes on knowing.
        metadata = await credentials.fetch(endpoint, deadline, instead_of=metadata)
        return await _ask_also_without_leader(endpoint, method, request, metadata, deadline)

    async def _leases(self) -> int | None:
        try:
            request = pb.LeaseLeasesRequest()
            answer = await self._caller.read(LEASE_LEASES, request, self._timeout)
        except StoreError:
            return None
        return len(answer.leases)

    async def _read_time(self) -> timedelta | None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            # What every user may ask, whatever keys are his.
            request = pb.MemberListRequest(linearizable=True)
            await self._caller.read(MEMBER_LIST, request, self._timeout)
        except StoreError:
            return None
        return timedelta(seconds=loop.time() - began)


async def _ask_also_without_leader(
    endpoint: Endpoint,
    method: Method[Req, Resp],
    request: Req,
    metadata: grpc.aio.Metadata,
    deadline: float,
) -> Resp:
    kept = (each for each in metadata if tuple(each) != LEADER_WANTED)
    timeout = deadline - asyncio.get_running_loop().time()
    return await endpoint.unary(method)(
        request, timeout=timeout, metadata=grpc.aio.Metadata(*kept)
    )


@contextmanager
def _unless_untold() -> Iterator[None]:
    """Do without what etcd reports to root only: with users, from 3.5.28 and 3.6.9 on."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
            raise


def _member(address: str, member: pb.Member | None, status: pb.StatusResponse) -> StoreMember:
    return StoreMember(
        name=member.name if member else "",
        endpoint=address,
        version=status.version,
        is_leader=status.leader == status.header.member_id,
        size_bytes=status.db_size,
        used_bytes=status.db_size_in_use,
        errors=tuple(status.errors),
    )


def _at(address: str, members: Mapping[int, pb.Member]) -> int:
    """Return the id of the member that says it is at this address; 0: none does."""
    for member in members.values():
        if any(_place(url) == _place(address) for url in member.client_urls):
            return member.id
    return 0


def _place(address: str) -> str:
    """Return ``host:port`` of an address or URL, one for all names of the loopback address."""
    host, _, port = address.rpartition("://")[2].rstrip("/").lower().rpartition(":")
    return f"{'127.0.0.1' if host in _LOOPBACK else host}:{port}"
