"""Sessions: a client's liveness, one lease each.

The node holds no session: any node serves any of them, from the record in the store. Opening a session
twice, through whichever nodes, is opening it once: the record that is there first counts.

A copy of a request may come late: from a paused node, from a balancer that tried twice. What a
session has completed is known while it lives; that it lived at all is remembered for
``REMEMBERED_MIN`` after it was opened and after it was closed. So a late copy of its opening opens
nothing, and without a session a late copy of anything else takes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.store import (
    Committed,
    LeaseExists,
    LeaseNotFound,
    Put,
    Store,
    StoreFull,
    StoreUnavailable,
    Unchanged,
    Write,
)
from seatkeeper.server.store.formats import kept, parsed
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.wire.validate import check_credentials, check_open
from seatkeeper.v1 import seat_pb2, seat_service_pb2

KNOWN_MAX = 50_000
"""Sessions whose records this node remembers. A record never changes; forgetting costs a read."""
DEFAULT_PROJECT = "default"
REMEMBERED_MIN = timedelta(minutes=10)
"""How long a session is remembered after it was opened, and after it was closed, at least."""
REMEMBERED_TOGETHER = timedelta(minutes=1)
"""Sessions of so long a time share a lease to be remembered by: not many leases, and none with very
many keys, which etcd deletes all at once."""
BEGINNINGS_MAX = 5
"""A lease to be remembered by that ends at once is made anew this often."""


class SessionError(Exception):
    """A session cannot be used."""


class SessionLost(SessionError):
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
    client: seat_pb2.ClientInfo | None = None
    """What its program said about itself."""
    heeds_reclaim: bool = False
    """Whether its client heeds reclaims."""
    is_closed: bool = False
    """It was closed through this node; streams of it that are open here ask the store."""
    kept: bytes = b""
    """Its record, where that says more than this version knows."""


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
        self._memory = _Memory(store, clock)

    async def open(self, request: seat_service_pb2.Open, identity: str = "") -> Session:
        """Open a session, or return the one that was opened with the same id and secret.

        Raises ``Malformed`` or ``NotYourSession``, and ``SessionLost`` when that one has ended.
        """
        check_open(request)
        session_id = request.credentials.session_id
        sent_at = self._clock.now()
        ttl = request.ttl.ToTimedelta() if request.HasField("ttl") else self._default_ttl
        # Not one that follows from the session's id: should this be a late copy of another opening,
        # then what was asked for under that one must not find a lease, not for a moment.
        lease_id = random.getrandbits(63) | 1
        ttl = await self._store.grant_lease(lease_id, ttl)
        record = state_pb2.SessionRecord(
            secret_sha256=_sha256(request.credentials.secret),
            lease_id=lease_id,
            holder=identity or request.holder,
            project=request.project or DEFAULT_PROJECT,
            ttl_millis=int(ttl.total_seconds() * 1000),
            identity=identity,
            opened_at_millis=sent_at,
            client=request.client if request.HasField("client") else None,
            heeds_reclaim=request.heeds_reclaim,
        )
        found = await self._write(request.credentials, identity, record)
        session = self._remember(session_id, found or record)
        if found is None:
            session.alive_until = Instant(sent_at + record.ttl_millis)
        else:
            await self.renew(session)
        return session

    async def find(
        self, credentials: seat_service_pb2.SessionCredentials, identity: str = ""
    ) -> Session:
        """Return an open session. It may have ended since this node last read it.

        Raises ``Malformed``, ``NotYourSession`` or ``SessionLost``.
        """
        check_credentials(credentials)
        session_id = credentials.session_id
        session = await self.look(session_id)
        if session is None:
            raise SessionLost(session_id)
        _check_owner(session_id, session, credentials, identity)
        return session

    async def look(self, session_id: str) -> Session | None:
        """Return a session for those who look; None: there is none. It may have ended since."""
        session = self._known.get(session_id)
        if session is None:
            entry = await self._store.get(self._keys.session(session_id))
            if entry is None:
                return None
            record = parsed(state_pb2.SessionRecord, entry.key, entry.value)
            session = self._remember(session_id, record)
        return session

    async def renew(self, session: Session) -> timedelta:
        """Restart the session's lease and return its ttl. Raises ``SessionLost``."""
        sent_at = self._clock.now()
        ttl = await self._keep_alive(session.session_id, session.lease_id)
        session.alive_until = Instant(sent_at + int(ttl.total_seconds() * 1000))
        return ttl

    async def assure(self, session: Session) -> None:
        """Make sure that the session lives for at least half its ttl. Raises ``SessionLost``."""
        if session.alive_until - self._clock.now() < session.ttl.total_seconds() * 500:
            await self.renew(session)

    async def remaining(self, session: Session) -> timedelta | None:
        """Return how long the session's lease lives yet, as the store has it; None: it has ended."""
        left = await self._store.lease_remaining(session.lease_id)
        if left is None:
            self._known.pop(session.session_id, None)
        return left

    async def close(self, session: Session) -> None:
        """End the session; everything it holds is free. Succeeds also when it had ended."""
        self._known.pop(session.session_id, None)
        session.is_closed = True
        # What a newer version knows of the session stays until it is forgotten.
        ended = state_pb2.SessionRecord.FromString(session.kept)
        for name in (
            "lease_id",
            "holder",
            "project",
            "ttl_millis",
            "opened_at_millis",
            "client",
            "heeds_reclaim",
        ):
            ended.ClearField(name)
        ended.secret_sha256, ended.identity = session.secret_sha256, session.identity
        await self._note_end(session.session_id, ended)
        await self._store.revoke_lease(session.lease_id)

    async def put_tombstone(
        self, credentials: seat_service_pb2.SessionCredentials, identity: str = ""
    ) -> None:
        """See to it that a session that was closed before it was opened is not opened any more."""
        session_id = credentials.session_id
        never_opened = [Unchanged(self._keys.opened(session_id), 0)]
        ended = state_pb2.SessionRecord(
            secret_sha256=_sha256(credentials.secret), identity=identity
        )
        await self._note_end(session_id, ended, only_if=never_opened)

    async def _note_end(
        self,
        session_id: str,
        record: state_pb2.SessionRecord,
        *,
        only_if: Sequence[Unchanged] = (),
    ) -> None:
        key, value = self._keys.opened(session_id), record.SerializeToString()
        with suppress(
            StoreFull
        ):  # it still ends leases, and opens and grants nothing meanwhile
            await self._memory.keep([], key, value, only_if=only_if)

    async def _write(
        self,
        credentials: seat_service_pb2.SessionCredentials,
        identity: str,
        record: state_pb2.SessionRecord,
    ) -> state_pb2.SessionRecord | None:
        """Write a new session's record; return that of the session of this id, if there is one.

        Raises ``SessionLost`` when there was one, and ``NotYourSession`` when it is, or was, another's.
        """
        session_id = credentials.session_id
        key, opened = self._keys.session(session_id), self._keys.opened(session_id)
        value = record.SerializeToString()
        try:
            committed = await self._memory.keep(
                [Put(key, value, record.lease_id)],
                *(opened, value),
                only_if=[Unchanged(key, 0), Unchanged(opened, 0)],
                else_read=[key, opened],
            )
        except LeaseNotFound:
            raise SessionLost(session_id) from None
        if committed.succeeded:
            return None
        await self._store.revoke_lease(record.lease_id)  # granted for this, for nothing
        found = committed.read[key] or committed.read[opened]
        if found is None:
            raise StoreUnavailable("the session's record changed while it was read")
        before = parsed(state_pb2.SessionRecord, found.key, found.value)
        # Whose it is comes first: a stranger must not keep it alive, nor learn that it has ended.
        _check_owner(session_id, before, credentials, identity)
        if committed.read[key] is None:
            self._known.pop(session_id, None)
            raise SessionLost(session_id)
        return before

    async def _keep_alive(self, session_id: str, lease_id: int) -> timedelta:
        try:
            return await self._store.keep_alive(lease_id)
        except LeaseNotFound:
            self._known.pop(session_id, None)
            raise SessionLost(session_id) from None

    def _remember(self, session_id: str, record: state_pb2.SessionRecord) -> Session:
        known = self._known.get(session_id)
        if known is not None and known.lease_id == record.lease_id:
            return known  # the one that streams of this node have
        session = Session(
            session_id=session_id,
            lease_id=record.lease_id,
            holder=record.holder,
            project=record.project,
            ttl=timedelta(milliseconds=record.ttl_millis),
            secret_sha256=record.secret_sha256,
            identity=record.identity,
            alive_until=Instant(0),
            client=record.client if record.HasField("client") else None,
            heeds_reclaim=record.heeds_reclaim,
            kept=kept(record),
        )
        self._known[session_id] = session
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return session


def _check_owner(
    session_id: str,
    opened_with: Session | state_pb2.SessionRecord,
    credentials: seat_service_pb2.SessionCredentials,
    identity: str,
) -> None:
    """Raise ``NotYourSession`` for callers that did not open the session that there is, or was."""
    # Under mutual TLS the certificate decides: a secret that leaked is of no use.
    if opened_with.identity:
        is_owner = identity == opened_with.identity
    else:
        secret_sha256 = _sha256(credentials.secret)
        is_owner = hmac.compare_digest(secret_sha256, opened_with.secret_sha256)
    if not is_owner:
        raise NotYourSession(session_id)


class _Memory:
    """Keeps keys for ``REMEMBERED_MIN``, under leases that many of them share."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lease_id = 0
        self._begun = 0
        self._use_until = 0.0

    async def keep(
        self,
        writes: Sequence[Write],
        key: str,
        value: bytes,
        *,
        only_if: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
    ) -> Committed:
        """Commit ``writes``, and ``value`` under ``key`` for ``REMEMBERED_MIN`` or a little longer.

        Raises as ``Store.commit`` does; ``LeaseNotFound`` for leases of ``writes`` alone.
        """
        if self._clock.monotonic() >= self._use_until:
            await self._begin(key)
        for _ in range(BEGINNINGS_MAX):
            try:
                return await self._commit(writes, key, value, only_if, else_read)
            except LeaseNotFound:
                if await self._store.lease_remaining(self._lease_id) is not None:
                    raise
            await self._begin(key)  # somebody ended ours
        raise StoreUnavailable("leases end faster than they are made")

    async def _commit(
        self,
        writes: Sequence[Write],
        key: str,
        value: bytes,
        only_if: Sequence[Unchanged],
        else_read: Sequence[str],
    ) -> Committed:
        put = Put(key, value, self._lease_id)
        return await self._store.commit([*writes, put], only_if=only_if, else_read=else_read)

    async def _begin(self, key: str) -> None:
        self._begun += 1
        use_until = self._clock.monotonic() + REMEMBERED_TOGETHER.total_seconds()
        lease_id = lease_id_of(f"{key} {self._clock.now()} {self._begun}")
        with suppress(LeaseExists):  # an attempt whose answer was lost
            await self._store.grant_lease(lease_id, REMEMBERED_MIN + REMEMBERED_TOGETHER)
        self._lease_id, self._use_until = lease_id, use_until


def lease_id_of(name: str) -> int:
    """Return a lease's id that follows from a name: 63 bits of its SHA-256, never 0."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 or 1


def _sha256(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
