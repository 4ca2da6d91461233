"""The token that etcd wants with every call, where it has users.

A token ends: unused for ``--auth-token-ttl``, when a member restarts, when an administrator
changes a user. Every caller may find that out at the same moment; one of them has a new one fetched
and the others use it. A login goes on when no caller waits for it any more: etcd, which works 0.1 s
for each, does not stop either. On a machine that is too busy to log one in before a call's deadline,
calls that each began anew would keep it so, and no token would ever come.

Some ends are silent. A token names the log index that it was made at, and a member that is not
there yet keeps every call with it waiting. That member has been restored from a snapshot: its log
begins anew, and it will not be there for a long time. So a token under which calls go unanswered is
doubted, and replaced when no call was answered between two doubts.
"""

from __future__ import annotations

import asyncio
from functools import partial

import grpc
import grpc.aio

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.errors import StoreRefused, StoreUnavailable
from seatkeeper.server.store.etcd.calls import AUTHENTICATE
from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.endpoint import Endpoint
from seatkeeper.server.store.etcd.failures import Failure, classify

_NO_AUTHENTICATION = "etcdserver: authentication is not enabled"

# A member cut off from the others refuses at once instead of keeping the call, or a watch, forever.
LEADER_WANTED = ("hasleader", "true")
DOUBTS_MAX = 2
"""Unanswered calls in a row after which a new token is fetched. A login costs etcd 0.1 s of work."""
LOGIN_SECONDS_MAX = 5.0
"""How long a member has to answer a login, also when no caller waits so long; then it is asked anew."""


class Credentials:
    """What goes with every call."""

    metadata: grpc.aio.Metadata | None
    """Ready to send, or None where a token has to be fetched first."""

    def __init__(self, config: EtcdConfig) -> None:
        self._username = config.username
        self._password = config.password
        self._logins: dict[Endpoint, asyncio.Task[grpc.aio.Metadata]] = {}
        """At most one for each member."""
        self.metadata = None if config.username else grpc.aio.Metadata(LEADER_WANTED)
        self._doubts = 0

    @property
    def renewable(self) -> bool:
        """Whether a new token could help after a refused one."""
        return bool(self._username)

    async def fetch(
        self,
        endpoint: Endpoint,
        deadline: float,
        *,
        instead_of: grpc.aio.Metadata | None = None,
    ) -> grpc.aio.Metadata:
        """Return metadata with a token that is not ``instead_of``'s, fetched once for all callers.

        Asks ``endpoint``, which is then sure to know the token. Raises ``StoreRefused`` for a
        wrong password, ``StoreUnavailable`` when there is no answer before ``deadline``.
        """
        if self.metadata is instead_of:
            self.metadata = None
        if self.metadata is not None:
            return self.metadata
        if (login := self._logins.get(endpoint)) is None:
            login = asyncio.get_running_loop().create_task(self._log_in(endpoint))
            self._logins[endpoint] = login
            login.add_done_callback(partial(self._end_login, endpoint))
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(login)
        except TimeoutError:
            raise StoreUnavailable(f"{endpoint.address}: no token in time") from None

    def drop(self, metadata: grpc.aio.Metadata | None) -> None:
        """Fetch a new token before the next call, unless that has happened."""
        if self.renewable and self.metadata is metadata:
            self.metadata = None

    def trust(self) -> None:
        """Note that a call was answered."""
        self._doubts = 0

    def doubt(self, metadata: grpc.aio.Metadata | None) -> None:
        """Note that a call with this was not answered; see the module's docstring."""
        if not self.renewable or self.metadata is not metadata:
            return
        self._doubts += 1
        if self._doubts >= DOUBTS_MAX:
            self._doubts = 0
            self.drop(metadata)

    async def _log_in(self, endpoint: Endpoint) -> grpc.aio.Metadata:
        found = await self._authenticate(endpoint, LOGIN_SECONDS_MAX)
        if self.metadata is None:  # else another member has answered meanwhile
            self.metadata = found
        return self.metadata

    def _end_login(self, endpoint: Endpoint, login: asyncio.Task[grpc.aio.Metadata]) -> None:
        del self._logins[endpoint]
        if not login.cancelled():
            login.exception()  # it is reported to those who wait, if there are any

    async def _authenticate(self, endpoint: Endpoint, timeout: float) -> grpc.aio.Metadata:
        request = pb.AuthenticateRequest(name=self._username, password=self._password)
        try:
            answer = await endpoint.unary(AUTHENTICATE)(
                request, timeout=timeout, metadata=grpc.aio.Metadata(LEADER_WANTED)
            )
        except grpc.aio.AioRpcError as error:
            if error.details() == _NO_AUTHENTICATION:
                return grpc.aio.Metadata(LEADER_WANTED)
            said = f"{endpoint.address}: user {self._username!r}: {error.details()}"
            if classify(error.code(), error.details()) is Failure.REFUSED:
                raise StoreRefused(said) from error
            raise StoreUnavailable(said) from error
        return grpc.aio.Metadata(LEADER_WANTED, ("token", answer.token))
