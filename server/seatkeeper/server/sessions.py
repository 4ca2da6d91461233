"""Sessions: a client's liveness, one lease each.

A session's lease has an id that follows from the session's own, so that opening a session twice,
through whichever nodes, makes one lease and leaves none behind. The node holds no session: any node
serves any of them, from the record in the store.

A session that is closed leaves its record behind, marked as closed, for ``CLOSED_MIN`` at least. A
copy of the request that opened it, come late from a frozen node or a balancer, finds that and opens
nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.server.clock import Clock
from seatkeeper.server.decide import Instant
from seatkeeper.server.keys import Keys
from seatkeeper.server.store import (
    LeaseExists,
    LeaseNotFound,
    Put,
    Store,
    StoreFull,
    StoreUnavailable,
    Unchanged,
)
from seatkeeper.server.validate import check_credentials, check_open
from seatkeeper.v1 import seat_service_pb2, state_pb2

KNOWN_MAX = 50_000
"""Sessions whose records this node remembers. A record never changes; forgetting costs a read."""
DEFAULT_PROJECT = "default"
CLOSED_MIN = timedelta(minutes=10)
"""How long a closed session is remembered, at least; at most twice as long."""


class SessionError(Exception):
    """A session cannot be used."""


class SessionGone(SessionError):
    """The session has ended, or never was."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id} has ended; open a new one")
        self.session_id = session_id


class NotYourSession(SessionError):
    """The secret, or the client's certificate, is not the one that the session was opened with."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id} was opened with another secret")
        self.session_id = session_id


@dataclass(slots=True)
class Session:
    """An open session, as one node knows it."""

    session_id: str
    lease_id: int
    holder: str
    project: str
    ttl: timedelta
    secret_sha256: bytes
    identity: str
    alive_until: Instant
    """The lease lives at least until then: the time this node last sent a renewal, plus ttl."""
    closed: bool = False
    """It was closed, and is only remembered."""


class Sessions:
    """Opens, finds, renews and ends sessions."""

    def __init__(
        self, store: Store, keys: Keys, clock: Clock, *, default_ttl: timedelta
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._default_ttl = default_ttl
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._closed = _ClosedLease(store, clock)

    async def open(self, request: seat_service_pb2.Open, identity: str = "") -> Session:
        """Open a session, or return the one that was opened with the same id and secret.

        Raises ``Malformed`` or ``NotYourSession``, and ``SessionGone`` when that one was closed.
        """
        check_open(request)
        session_id = request.credentials.session_id
        sent_at = self._clock.now()
        ttl = request.ttl.ToTimedelta() if request.HasField("ttl") else self._default_ttl
        lease_id = lease_id_of(session_id)
        try:
            ttl = await self._store.grant_lease(lease_id, ttl)
        except LeaseExists:
            # Whose it is comes first, or a stranger could keep it alive.
            with suppress(_NeverWas):  # left by an opening that was cut short
                await self.find(request.credentials, identity)
            ttl = await self._keep_alive(session_id, lease_id)
        record = state_pb2.SessionRecord(
            secret_sha256=_sha256(request.credentials.secret),
            lease_id=lease_id,
            holder=identity or request.holder,
            project=request.project or DEFAULT_PROJECT,
            ttl_millis=int(ttl.total_seconds() * 1000),
            identity=identity,
            opened_at_millis=sent_at,
        )
        key = self._keys.session(session_id)
        try:
            committed = await self._store.commit(
                [Put(key, record.SerializeToString(), lease_id)],
                only_if=[Unchanged(key, 0)],
                else_read=[key],
            )
        except LeaseNotFound:
            raise SessionGone(session_id) from None
        if not committed.succeeded:
            found = committed.read[key]
            if found is None:
                raise StoreUnavailable("the session's record changed while it was read")
            record = state_pb2.SessionRecord.FromString(found.value)
        session = self._remember(session_id, record)
        self._check_owner(session, request.credentials, identity)
        if session.closed:
            await self._store.revoke_lease(lease_id)  # granted above, for nothing
            raise SessionGone(session_id)
        session.alive_until = Instant(sent_at + record.ttl_millis)
        return session

    async def find(
        self, credentials: seat_service_pb2.SessionCredentials, identity: str = ""
    ) -> Session:
        """Return an open session. It may have ended since this node last heard of it.

        Raises ``Malformed``, ``NotYourSession`` or ``SessionGone``.
        """
        session = await self.find_any(credentials, identity)
        if session.closed:
            raise SessionGone(session.session_id)
        return session

    async def find_any(
        self, credentials: seat_service_pb2.SessionCredentials, identity: str = ""
    ) -> Session:
        """Return a session that is open, or was closed a short while ago. Raises as ``find`` does."""
        check_credentials(credentials)
        session_id = credentials.session_id
        session = self._known.get(session_id)
        if session is None:
            entry = await self._store.get(self._keys.session(session_id))
            if entry is None:
                raise _NeverWas(session_id)
            session = self._remember(
                session_id, state_pb2.SessionRecord.FromString(entry.value)
            )
        self._check_owner(session, credentials, identity)
        return session

    async def renew(self, session: Session) -> timedelta:
        """Restart the session's lease and return its ttl. Raises ``SessionGone``."""
        sent_at = self._clock.now()
        ttl = await self._keep_alive(session.session_id, session.lease_id)
        session.alive_until = Instant(sent_at + int(ttl.total_seconds() * 1000))
        return ttl

    async def assure(self, session: Session) -> None:
        """Make sure that the session lives for at least half its ttl. Raises ``SessionGone``."""
        if session.alive_until - self._clock.now() < session.ttl.total_seconds() * 500:
            await self.renew(session)

    async def close(self, session: Session) -> None:
        """End the session; everything it holds is free. Succeeds also when it had ended.

        Safe to repeat: what a first attempt left undone is done then.
        """
        self._known.pop(session.session_id, None)
        if not session.closed:
            # First, or a copy of its opening could come between.
            await self._remember_closed(session)
        await self._store.revoke_lease(session.lease_id)

    async def _remember_closed(self, session: Session) -> None:
        record = state_pb2.SessionRecord(
            secret_sha256=session.secret_sha256,
            identity=session.identity,
            lease_id=session.lease_id,
            closed=True,
        )
        with suppress(StoreFull):  # it still ends leases, and nothing is granted meanwhile
            await self._closed.put(
                self._keys.session(session.session_id), record.SerializeToString()
            )

    async def _keep_alive(self, session_id: str, lease_id: int) -> timedelta:
        try:
            return await self._store.keep_alive(lease_id)
        except LeaseNotFound:
            self._known.pop(session_id, None)
            raise SessionGone(session_id) from None

    def _remember(self, session_id: str, record: state_pb2.SessionRecord) -> Session:
        session = Session(
            session_id=session_id,
            lease_id=record.lease_id,
            holder=record.holder,
            project=record.project,
            ttl=timedelta(milliseconds=record.ttl_millis),
            secret_sha256=record.secret_sha256,
            identity=record.identity,
            alive_until=Instant(0),
            closed=record.closed,
        )
        self._known[session_id] = session
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return session

    def _check_owner(
        self,
        session: Session,
        credentials: seat_service_pb2.SessionCredentials,
        identity: str,
    ) -> None:
        same_identity = bool(identity) and identity == session.identity
        same_secret = hmac.compare_digest(_sha256(credentials.secret), session.secret_sha256)
        # Under mutual TLS the certificate decides: a secret that leaked is of no use.
        if not (same_identity if session.identity else same_secret):
            raise NotYourSession(session.session_id)


class _NeverWas(SessionGone):
    """There is no record of the session: it expired, or it never was."""


class _ClosedLease:
    """The lease under which this node's store remembers closed sessions.

    One lease for all that are closed in ``CLOSED_MIN``: a lease for each would be many.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lease_id = 0
        self._use_until = 0.0

    async def put(self, key: str, value: bytes) -> None:
        """Write ``value`` under ``key`` for ``CLOSED_MIN`` or longer."""
        if self._clock.monotonic() >= self._use_until:
            await self._grant(key)
        try:
            await self._store.commit([Put(key, value, self._lease_id)])
        except LeaseNotFound:  # somebody ended it
            await self._grant(key)
            await self._store.commit([Put(key, value, self._lease_id)])

    async def _grant(self, key: str) -> None:
        use_until = self._clock.monotonic() + CLOSED_MIN.total_seconds()
        lease_id = lease_id_of(f"{key} closed {self._clock.now()}")
        with suppress(LeaseExists):  # an attempt whose answer was lost
            await self._store.grant_lease(lease_id, 2 * CLOSED_MIN)
        self._lease_id, self._use_until = lease_id, use_until


def lease_id_of(session_id: str) -> int:
    """Return the id of a session's lease: 63 bits of the session id's SHA-256, never 0."""
    digest = hashlib.sha256(session_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 or 1


def _sha256(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
