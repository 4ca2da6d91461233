"""What every door of a node shares: sessions, seats, and the signing of tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.server.clock import Clock
from seatkeeper.server.decide import Grant
from seatkeeper.server.pool.seats import Seats
from seatkeeper.server.sessions import Session, Sessions
from seatkeeper.server.tokens import TokenSigner
from seatkeeper.server.validate import check_grant_ref
from seatkeeper.v1 import seat_pb2, seat_service_pb2


@dataclass(frozen=True)
class Core:
    """The parts of a node that its doors use."""

    node_id: str
    sessions: Sessions
    seats: Seats
    signer: TokenSigner
    clock: Clock

    def opened(self, session: Session) -> seat_service_pb2.Opened:
        """Return the answer to an opened or resumed session."""
        opened = seat_service_pb2.Opened(session_id=session.session_id, node_id=self.node_id)
        opened.ttl.FromTimedelta(session.ttl)
        # Many open or resume at one moment, when a node has died: spread out what follows.
        opened.renew_in.FromTimedelta(renew_in(session.ttl) * random.uniform(0.2, 1.0))
        return opened

    def granted(
        self, pool: str, grant: Grant, session: Session, certificate_sha256: bytes | None
    ) -> seat_pb2.Granted:
        """Return the answer to a granted request; its token lasts as long as the lease is known to."""
        granted = seat_pb2.Granted(
            grant_id=grant.grant_id,
            pool=pool,
            seats=grant.seats,
            fence=grant.fence,
            token=self._token(pool, grant, session, certificate_sha256),
        )
        granted.granted_at.FromMilliseconds(grant.granted_at)
        return granted

    async def renewed(
        self,
        session: Session,
        request: seat_service_pb2.Renew,
        certificate_sha256: bytes | None,
    ) -> seat_service_pb2.Renewed:
        """Renew a session; return the answer. Raises ``SessionGone``, ``Malformed``."""
        for ref in request.tokens_for:
            check_grant_ref(ref)
        ttl = await self.sessions.renew(session)
        renewed = seat_service_pb2.Renewed(sequence=request.sequence)
        renewed.ttl.FromTimedelta(ttl)
        renewed.renew_in.FromTimedelta(renew_in(ttl))
        for ref in request.tokens_for:
            loop = await self.seats.loop(ref.pool)
            if loop is None:
                continue
            await loop.listed()
            grant = loop.state.grants.get(ref.grant_id)
            if grant is not None and grant.session_id == session.session_id:
                token = self._token(ref.pool, grant, session, certificate_sha256)
                renewed.tokens.add(grant=ref, token=token)
        return renewed

    def _token(
        self, pool: str, grant: Grant, session: Session, certificate_sha256: bytes | None
    ) -> str:
        return self.signer.sign(
            pool,
            grant,
            issued_at=self.clock.now(),
            expires_at=session.alive_until,
            certificate_sha256=certificate_sha256,
        )


def renew_in(ttl: timedelta) -> timedelta:
    """Return when to renew: a third of the ttl, so that two may be lost, or a little earlier."""
    return ttl / 3 * random.uniform(0.8, 1.0)
